"""The options that several verbs share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, overload

import typer

from outbox_relay.cli.exits import Exit, fail
from outbox_relay.config import CONFIG_VARIABLE, SEARCHED, Config, find_config, load_config
from outbox_relay.errors import ConfigError
from outbox_relay.schema import MAX_ID
from outbox_relay.shown import typed_instant, typed_key

if TYPE_CHECKING:
    from datetime import datetime

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help=(
            f"Settings as TOML. Else ${CONFIG_VARIABLE}, ./config.toml, "
            "/etc/outbox-relay/config.toml, or the environment alone."
        ),
    ),
]

SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="KEY=VALUE",
        help="One setting, such as relay.stop_seconds=5. Wins over file and environment.",
    ),
]

FromIdOption = Annotated[
    int | None, typer.Option("--from-id", metavar="ID", min=0, help="This row and later ones.")
]
ToIdOption = Annotated[
    int | None, typer.Option("--to-id", metavar="ID", min=0, help="This row and earlier ones.")
]
TopicOption = Annotated[
    list[str] | None, typer.Option("--topic", metavar="TOPIC", help="Of this topic.")
]
KeyOption = Annotated[
    list[str] | None,
    typer.Option("--key", metavar="KEY", help="Of this key: text, or its bytes as 0x..."),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object, for scripts.")]

NO_FILE = (
    f"no file was read: there is no {' and no '.join(map(str, SEARCHED))}; name one with --config, "
    f"or in ${CONFIG_VARIABLE}"
)


def load(path: Path | None, flags: list[str] | None) -> Config:
    """The settings of file, environment and `--set`. Raises ConfigError."""
    chosen = {}
    for flag in flags or []:
        key, separator, value = flag.partition("=")
        if not separator:
            raise ConfigError(["--set: use KEY=VALUE, such as --set relay.stop_seconds=5"])
        chosen[key.strip()] = value
    found = find_config(path, os.environ)
    try:
        return load_config(found, os.environ, chosen)
    except ConfigError as error:
        if found is None:
            raise ConfigError([*error.problems, NO_FILE]) from error
        raise


def key_bytes(text: str) -> bytes:
    """The key that `--key` names. Ends with 2 if it cannot be read."""
    try:
        return typed_key(text)
    except ValueError as error:
        fail(Exit.USAGE, f"--key {text}: {error}")


def instant(text: str | None, *, now: datetime, option: str) -> datetime | None:
    """The time that *option* names, if it is given. Ends with 2 if it cannot be read."""
    try:
        return None if text is None else typed_instant(text, now=now)
    except ValueError as error:
        fail(Exit.USAGE, f"{option} {text}: {error}")


@overload
def bounded(row_id: int) -> int: ...


@overload
def bounded(row_id: int | None) -> int | None: ...


def bounded(row_id: int | None) -> int | None:
    """
    The id, or the largest that a table can have: drivers break over larger numbers.

    >>> bounded(7), bounded(10**30) == MAX_ID, bounded(None)
    (7, True, None)
    """
    return None if row_id is None else max(0, min(row_id, MAX_ID))
