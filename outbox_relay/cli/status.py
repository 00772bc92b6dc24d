"""`outbox-relay status`: how the outbox stands, read from the database alone."""

from __future__ import annotations

import dataclasses
import json
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outbox_relay.cli.exits import Exit, errors_as_exits, fail
from outbox_relay.cli.operating import run_raising, settings_of
from outbox_relay.cli.options import ConfigOption, SetOption
from outbox_relay.errors import StoreUnavailable

if TYPE_CHECKING:
    from outbox_relay.operations import Standing


def status(
    config: ConfigOption = None,
    flags: SetOption = None,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Look again and again, until Ctrl-C.")
    ] = False,
    interval: Annotated[
        float, typer.Option("--interval", metavar="SECONDS", min=0.2, help="With --watch.")
    ] = 2.0,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="One JSON object, for scripts; with --watch one a line."),
    ] = False,
) -> None:
    """
    Show backlog, dead letters, who relays, and what pauses.

    Reads the database and nothing else, so it works while no relay runs, and costs little however
    much waits. Exits with 1 if the database does not answer, with 3 if the tables are missing or do
    not fit.
    """
    from outbox_relay.operations import read_standing

    settings = settings_of(config, flags)
    if watch:
        from outbox_relay.cli.status_watch import watch_standing

        watch_standing(settings, interval=interval, as_json=as_json)
        return
    kept = settings.relay.retention_seconds
    with errors_as_exits():
        try:
            standing = run_raising(
                settings, lambda access: read_standing(access, retention_seconds=kept)
            )
        except StoreUnavailable as error:
            said = str(error)
            more = "" if "doctor" in said else "; `outbox-relay doctor` looks closer"
            fail(Exit.FAILED, said + more)
    if as_json:
        typer.echo(json.dumps(as_object(standing)))
    else:
        from rich.console import Console

        from outbox_relay.cli.status_view import screen

        Console().print(screen(standing))
    if standing.schema_problem:
        # With --json the object has said it, and standard error says it for eyes.
        fail(Exit.SCHEMA, standing.schema_problem)


def as_object(standing: Standing) -> dict[str, Any]:
    """What `--json` prints."""
    from outbox_relay.operations.headline import headline

    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(standing), default=_text))
    return {"state": str(headline(standing).state), **plain}


def _text(value: object) -> str:
    if isinstance(value, datetime):
        return f"{value.isoformat()}Z"
    raise TypeError(type(value).__name__)
