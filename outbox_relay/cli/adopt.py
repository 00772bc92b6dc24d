"""`outbox-relay adopt`: take over the outbox table of another library."""

from __future__ import annotations

import dataclasses
import json
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outbox_relay.cli import dead_letter_view as view
from outbox_relay.cli.dead_letter_options import RateOption
from outbox_relay.cli.dead_letter_work import Pace, progress_bar
from outbox_relay.cli.dead_letters import carry_out_requeue
from outbox_relay.cli.exits import Exit, errors_as_exits, fail, require_driver
from outbox_relay.cli.options import (
    ConfigOption,
    DryRunOption,
    FromIdOption,
    JsonOption,
    SetOption,
    ToIdOption,
    TopicOption,
    YesOption,
    load,
)
from outbox_relay.python_cqrs import ABANDONED
from outbox_relay.relay.dead_letters import Selection

if TYPE_CHECKING:
    from outbox_relay.adoption import Found
    from outbox_relay.config import Config

adopt = typer.Typer(
    name="adopt",
    help="Take over the outbox table of another library.",
    no_args_is_help=True,
)

PrepareOption = Annotated[
    bool, typer.Option("--prepare", help="Make the index and the tables that a relay needs.")
]
ReviveOption = Annotated[
    bool, typer.Option("--revive", help="Let rows be published that were given up.")
]
MoveToOption = Annotated[
    str | None,
    typer.Option("--move-to", metavar="TABLE", help="Move what waits to this table of ours."),
]
PayloadOnlyOption = Annotated[
    bool, typer.Option("--payload-only", help="With --move-to: for a relay with wire.envelope.")
]
WatchOption = Annotated[
    float,
    typer.Option("--watch", metavar="SECONDS", min=0.0, help="Tell if the old relay works."),
]

LAYOUT = "database.layout=python-cqrs"


@adopt.callback()
def _adopt() -> None:
    pass


@adopt.command("python-cqrs")
def python_cqrs(
    *,
    config: ConfigOption = None,
    flags: SetOption = None,
    prepare: PrepareOption = False,
    revive: ReviveOption = False,
    move_to: MoveToOption = None,
    payload_only: PayloadOnlyOption = False,
    watch: WatchOption = 0.0,
    topics: TopicOption = None,
    from_id: FromIdOption = None,
    to_id: ToIdOption = None,
    rate: RateOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """
    Look at a table of python-cqrs, and take it over step by step.

    Alone it only reads: what made the table, what is in it, what its relay gave up, what stands in
    the way, and the settings for a relay that works on it in place. --prepare makes the index online,
    while applications write. --topic, --from-id and --to-id choose for --revive. Exits with 3 if
    python-cqrs made no such table, with 1 if the database refuses.
    """
    if sum((prepare, revive, move_to is not None)) > 1:
        fail(Exit.USAGE, "--prepare, --revive and --move-to are steps: one at a time")
    chooses = topics or from_id is not None or to_id is not None or rate is not None
    if chooses and not revive:
        # Else somebody would move every topic who named one.
        fail(Exit.USAGE, "--topic, --from-id, --to-id and --rate go with --revive")
    if payload_only and move_to is None:
        fail(Exit.USAGE, "--payload-only goes with --move-to")
    if (watch or as_json) and (prepare or move_to is not None):
        fail(Exit.USAGE, "--watch and --json look: leave out --prepare and --move-to")
    if watch and revive:
        fail(Exit.USAGE, "--watch looks: leave out --revive")
    chosen = [*(flags or []), LAYOUT]
    if revive:
        which = Selection(
            topics=tuple(topics or ()), first_id=from_id, last_id=to_id, reasons=(ABANDONED,)
        )
        carry_out_requeue(
            which, Pace(rate), config, chosen, dry_run=dry_run, yes=yes, as_json=as_json
        )
        return
    with errors_as_exits():
        settings = load(config, chosen)
        require_driver(settings.database.url)
        if prepare:
            _prepare(settings, dry_run=dry_run)
        elif move_to is not None:
            _move(settings, move_to, payload_only=payload_only, dry_run=dry_run, yes=yes)
        else:
            _show(settings, watch=watch, as_json=as_json)


def _prepare(settings: Config, *, dry_run: bool) -> None:
    from outbox_relay import adoption

    if dry_run:
        done = adoption.planned(settings.database)
        for statement in done:
            typer.echo(f"{statement};")
    else:
        # Before each: an index over a large table takes its time.
        done = adoption.prepare(settings.database, begins=lambda text: typer.echo(f"{text};"))
    if not done:
        typer.echo("nothing to do: the index and the tables are there")
    elif not dry_run:
        typer.echo(f"done: {settings.database.table} is ready for a relay")


def _move(settings: Config, to: str, *, payload_only: bool, dry_run: bool, yes: bool) -> None:
    from outbox_relay.adoption_move import Move
    from outbox_relay.schema import tables

    try:
        tables(to)
    except ValueError as error:
        fail(Exit.USAGE, f"--move-to: {error}")
    move = Move(settings.database, to, payload_only=payload_only)
    waiting = move.waiting()
    stays = f"; {waiting.given_up:,} given up stay, see --revive" if waiting.given_up else ""
    if dry_run:
        typer.echo(f"would move {waiting.rows:,}{stays}; nothing is done")
        return
    table = settings.database.table
    if not yes:
        text = (
            f"no application writes to {table} any more, no relay works on it; move {waiting.rows:,} rows "
            f"to {to}?"
        )
        typer.confirm(text, abort=True, err=True)
    with progress_bar("move", waiting.rows, quiet=False) as move.moved:
        moved = move.run()
    typer.echo(f"moved {moved:,}{stays}")


def _show(settings: Config, *, watch: float, as_json: bool) -> None:
    from outbox_relay import adoption

    found = adoption.look(settings.database)
    moves: bool | None = None
    if watch:
        time.sleep(watch)
        again = adoption.look(settings.database)
        moves, found = again.moved_since(found), again
    if as_json:
        typer.echo(json.dumps(_as_json(found, moves)))
        return
    typer.echo(f"{found.table} was made by python-cqrs {found.layout.releases}\n")
    rows = [(c.state, c.topic, f"{c.rows:,}", f"{c.given_up:,}") for c in found.counts]
    view.print_table(("state", "topic", "rows", "given up"), rows)
    if found.abandoned:
        typer.echo("\ngiven up by its relay, and never selected again; --revive lets them go out:")
        lost = [(str(a.id), a.event_name, a.topic, a.created_at) for a in found.abandoned]
        view.print_table(("id", "event", "topic", "created"), lost)
        if found.given_up > len(lost):
            typer.echo(f"{found.given_up - len(lost):,} more are not shown")
    for warning in found.warnings:
        typer.echo(f"\nwarning: {warning}")
    if moves and found.ours_at_work:
        typer.echo(
            "\na relay of ours works on it; whether one of python-cqrs does too cannot be seen"
        )
    elif moves is not None:
        seen = "at work: stop it, or events are published twice" if moves else "not seen at work"
        typer.echo(f"\na relay of python-cqrs is {seen}")
    if found.missing:
        typer.echo("\nwhat --prepare would make:")
        for statement in found.missing:
            typer.echo(f"{statement};")
    typer.echo("\nsettings of a relay that works on it in place:\n")
    typer.echo(adoption.config_section(settings.database, found))


def _as_json(found: Found, moves: bool | None) -> dict[str, Any]:
    fields = dataclasses.asdict(found)
    if found.ours_at_work:
        moves = moves and None  # ours marks rows too
    return fields | {"releases": found.layout.releases, "relay_at_work": moves}
