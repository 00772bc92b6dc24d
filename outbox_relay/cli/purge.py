"""`outbox-relay purge`: delete old rows now."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from outbox_relay.cli.dead_letter_work import progress_bar, stop_signals
from outbox_relay.cli.exits import SIGNALLED, Exit, fail
from outbox_relay.cli.operating import run_on, settings_of, somebody
from outbox_relay.cli.options import ConfigOption, DryRunOption, JsonOption, SetOption, YesOption
from outbox_relay.relay.dead_letters import reason_of
from outbox_relay.schema import Status
from outbox_relay.shown import typed_seconds

if TYPE_CHECKING:
    import signal

    from outbox_relay.config import Config
    from outbox_relay.operations import Access
    from outbox_relay.operations.purging import Purger
    from outbox_relay.relay.ports import Aged


@dataclass(frozen=True, slots=True)
class _Order:
    """What somebody wants deleted."""

    status: Status
    older_than_seconds: float

    @property
    def what(self) -> str:
        """The rows, in words."""
        return "dead letters" if self.status is Status.DEAD else "produced rows"


def purge(
    *,
    config: ConfigOption = None,
    flags: SetOption = None,
    older_than: Annotated[
        str | None,
        typer.Option(
            "--older-than",
            metavar="AGE",
            help="Settled so long ago, such as 90m, 2h or 3d. Default: relay.retention_seconds.",
        ),
    ] = None,
    dead_letters: Annotated[
        bool, typer.Option("--dead-letters", help="Dead letters instead; needs --older-than.")
    ] = False,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """
    Delete old rows now: produced ones, or dead letters.

    Counts them and asks first. Never touches a row that may still be published. Small steps, with rests, as
    the relay's own purge, which may work beside it; stands still if the purge is paused. Ctrl-C stops it;
    the same command goes on with the rest.
    """
    settings = settings_of(config, flags)
    if settings.database.layout != "outbox":
        fail(
            Exit.USAGE,
            'purge: database.layout = "python-cqrs": its rows do not say when they were produced, and '
            "are not ours to delete",
        )
    order = _order(settings, older_than, dead_letters=dead_letters)
    due = run_on(settings, partial(_count, settings, order, as_json))
    if dry_run or not due:
        _tell(order, due, dry_run=dry_run, as_json=as_json)
        return
    if not yes:
        question = f"delete {due:,} {order.what} older than {order.older_than_seconds:,.0f} s?"
        typer.confirm(question, abort=True, err=True)
    rows, stopped_by = run_on(settings, partial(_purge, settings, order, due, as_json))
    _tell(order, rows, dry_run=False, as_json=as_json)
    if stopped_by is not None:
        typer.echo("stopped: the same command goes on with the rest", err=True)
        raise typer.Exit(SIGNALLED + stopped_by)


def _order(settings: Config, older_than: str | None, *, dead_letters: bool) -> _Order:
    if older_than is None:
        if dead_letters:
            fail(
                Exit.USAGE,
                "--dead-letters needs --older-than: nobody received these events, and nothing brings "
                "them back",
            )
        return _Order(Status.PRODUCED, settings.relay.retention_seconds)
    seconds = typed_seconds(older_than)
    if seconds is None:
        fail(Exit.USAGE, f"--older-than {older_than}: use a number and s, m, h or d, such as 3d")
    return _Order(Status.DEAD if dead_letters else Status.PRODUCED, float(seconds))


async def _count(settings: Config, order: _Order, quiet: bool, access: Access) -> int:
    from outbox_relay.operations.purging import HandPurge, PurgeTold
    from outbox_relay.wiring import build_purger

    async def not_paused() -> None:
        return None

    async def go_on(_: float) -> bool:
        return True

    purger: Purger = build_purger(settings.database)
    try:
        await _require(access)
        with progress_bar("counting", None, quiet=quiet) as advance:
            told = PurgeTold(looked=advance)
            work = HandPurge(
                purger, order.status, order.older_than_seconds, not_paused, go_on, told
            )
            return await work.count()
    finally:
        await purger.close()


async def _require(access: Access) -> None:
    """Tables that fit, or the error that says what mends it."""
    from outbox_relay.operations import paused

    await paused(access)


async def _purge(
    settings: Config, order: _Order, due: int, quiet: bool, access: Access
) -> tuple[int, signal.Signals | None]:
    from outbox_relay.logs import configure_logs, get_logger
    from outbox_relay.operations.purging import HandPurge, PurgeTold
    from outbox_relay.wiring import build_purger

    purger: Purger = build_purger(settings.database)
    done = 0
    with progress_bar("purge", due, quiet=quiet) as advance, stop_signals() as stop:
        configure_logs(settings.log)

        async def rest(seconds: float) -> bool:
            nonlocal done
            advance(work.rows - done)
            done = work.rows
            await stop.wait_for(seconds)
            return not stop.is_set()

        work = HandPurge(
            purger,
            order.status,
            order.older_than_seconds,
            partial(_pause_of, access),
            rest,
            PurgeTold(deleted=_log_dead_letter),
        )
        try:
            ended = await work.run()
        finally:
            await purger.close()
            configure_logs(settings.log)
            get_logger().info(
                "purged_by_hand",
                kind="dead_letter" if order.status is Status.DEAD else "produced",
                rows=work.rows,
                older_than_seconds=order.older_than_seconds,
                by=somebody(),
            )
    return work.rows, None if ended else stop.signal


async def _pause_of(access: Access) -> str | None:
    from outbox_relay.cli.pause_view import pause_text
    from outbox_relay.operations import THE_PURGE, paused

    return next((pause_text(p) for p in await paused(access) if p.topic == THE_PURGE), None)


def _log_dead_letter(row: Aged) -> None:
    from outbox_relay.logs import get_logger

    get_logger().info(
        "dead_letter_purged",
        row_id=row.id,
        topic=row.topic,
        event_id=str(UUID(bytes=row.event_id)),
        reason=reason_of(row.last_error or ""),
    )


def _tell(order: _Order, rows: int, *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"would_purge" if dry_run else "purged": rows}))
    elif dry_run and rows:
        typer.echo(f"would delete {rows:,} {order.what}; nothing is done")
    elif not rows:
        typer.echo(f"no {order.what} are older than {order.older_than_seconds:,.0f} s")
    else:
        typer.echo(f"deleted {rows:,} {order.what}")
