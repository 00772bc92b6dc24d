"""`outbox-relay status --watch`: the same screen, again and again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from outbox_relay.cli.operating import run_on
from outbox_relay.cli.status import as_object
from outbox_relay.cli.status_view import screen
from outbox_relay.errors import SchemaMismatch, StoreUnavailable
from outbox_relay.operations import read_standing
from outbox_relay.operations.rates import Mark, Rate, mark, rate

if TYPE_CHECKING:
    from outbox_relay.config import Config
    from outbox_relay.operations import Access, Standing

Show = Callable[["Standing | str", "Rate | None"], None]


def watch_standing(settings: Config, *, interval: float, as_json: bool) -> None:
    """
    Show the standing every *interval* seconds, until Ctrl-C, which ends it with 0.

    A database that does not answer is told, and asked again: this is looked at in an outage.
    """
    console = Console()
    try:
        if as_json:
            run_on(settings, lambda access: _watch(access, settings, interval, _print_json))
        elif not console.is_terminal:
            run_on(settings, lambda access: _watch(access, settings, interval, _printer(console)))
        else:
            with Live(console=console, screen=True, auto_refresh=False) as live:
                show = _refresher(live)
                run_on(settings, lambda access: _watch(access, settings, interval, show))
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


async def _watch(access: Access, settings: Config, interval: float, show: Show) -> None:
    before: Mark | None = None
    kept = settings.relay.retention_seconds
    while True:
        try:
            standing = await read_standing(access, retention_seconds=kept)
            moved = None if before is None else await rate(access, before, standing)
            show(standing, moved)
            counts = not standing.schema_problem and settings.database.layout == "outbox"
            before = await mark(access, standing) if counts else None
        except (StoreUnavailable, SchemaMismatch) as error:
            before = None
            show(str(error), None)
        await asyncio.sleep(interval)


def _print_json(standing: Standing | str, moved: Rate | None) -> None:
    if isinstance(standing, str):
        typer.echo(json.dumps({"error": standing}))
        return
    rates = {
        "written_per_second": moved and round(moved.written_per_second, 3),
        "produced_per_second": moved and round(moved.produced_per_second, 3),
    }
    typer.echo(json.dumps(as_object(standing) | rates))


def _rendered(standing: Standing | str, moved: Rate | None) -> Group:
    if isinstance(standing, str):
        return Group(Text(standing, style="red"))
    lines = [Text(standing.schema_problem, style="red")] if standing.schema_problem else []
    return Group(screen(standing, moved), *lines)


def _printer(console: Console) -> Show:
    def show(standing: Standing | str, moved: Rate | None) -> None:
        console.print(_rendered(standing, moved), "")

    return show


def _refresher(live: Live) -> Show:
    def show(standing: Standing | str, moved: Rate | None) -> None:
        live.update(_rendered(standing, moved), refresh=True)

    return show
