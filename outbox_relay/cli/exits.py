"""How a command ends: exit codes, and errors as one line each on standard error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from importlib.util import find_spec
from typing import NoReturn

import typer
from sqlalchemy.engine import make_url

from outbox_relay.errors import ConfigError, OutboxRelayError, SchemaMismatch


class Exit(IntEnum):
    """The exit codes. Part of the interface: scripts decide by them."""

    OK = 0
    """Done; `run` also after SIGTERM or SIGINT."""

    FAILED = 1
    """The command could not do its work, such as a database that does not answer."""

    USAGE = 2
    """Wrong usage or configuration, or an extra is not installed."""

    SCHEMA = 3
    """The tables are missing, or older or newer than this release serves."""

    FOUND = 4
    """`audit` found events that are lost, twice, out of order, or were never in the table."""

    WARNINGS = 5
    """`doctor` found something that is at risk, and nothing worse."""

    ERRORS = 6
    """`doctor` found something that keeps events from flowing, or loses them."""


SIGNALLED = 128
"""A second signal ends `run` at once with this plus the signal's number, such as 143."""


def fail(code: Exit, *lines: str) -> NoReturn:
    """End with *code* and *lines* on standard error."""
    for line in lines:
        typer.echo(line, err=True)
    raise typer.Exit(code)


@contextmanager
def errors_as_exits() -> Iterator[None]:
    """Turn this package's errors into exit codes."""
    try:
        yield
    except ConfigError as error:
        fail(Exit.USAGE, *error.problems)
    except SchemaMismatch as error:
        fail(Exit.SCHEMA, str(error))
    except OutboxRelayError as error:
        fail(Exit.FAILED, str(error))


def require(module: str, *, extra: str, purpose: str) -> None:
    """End with the extra to install unless *module* is there."""
    if find_spec(module) is None:
        fail(Exit.USAGE, f'{purpose} needs {module}: install "outbox-relay[{extra}]"')


def require_driver(url: str) -> None:
    """End with the extra to install unless the driver of *url* is there."""
    backend = make_url(url).get_backend_name()
    if backend == "sqlite":
        require("aiosqlite", extra="sqlite", purpose="a SQLite database")
    if backend == "postgresql":
        require("asyncpg", extra="postgresql", purpose="a PostgreSQL database")
