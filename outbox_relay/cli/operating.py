"""Runs an operator's work on the outbox that the settings name; errors become exit codes."""

from __future__ import annotations

import asyncio
import getpass
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from outbox_relay.cli.exits import errors_as_exits, require_driver
from outbox_relay.cli.options import load

if TYPE_CHECKING:
    from outbox_relay.config import Config
    from outbox_relay.operations import Access

Result = TypeVar("Result")


def settings_of(config: Path | None, flags: list[str] | None) -> Config:
    """The settings, or an exit that says what is wrong with them."""
    with errors_as_exits():
        settings = load(config, flags)
        require_driver(settings.database.url)
    return settings


def run_on(settings: Config, work: Callable[[Access], Awaitable[Result]]) -> Result:
    """*work* on the outbox of *settings*."""
    with errors_as_exits():
        return run_raising(settings, work)


def run_raising(settings: Config, work: Callable[[Access], Awaitable[Result]]) -> Result:
    """The same, where the caller says what an error means."""
    from outbox_relay.operations import Access

    async def main() -> Result:
        access = Access(settings.database)
        try:
            return await work(access)
        finally:
            await access.close()

    return asyncio.run(main())


def somebody() -> str:
    """Who runs this command, for the table and the log: the user and the machine."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # no entry in the list of users, as in many containers
        name = "?"
    return f"{name}@{socket.gethostname()}"
