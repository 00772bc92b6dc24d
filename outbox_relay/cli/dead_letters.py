"""`outbox-relay dead-letters`: look at rows that were given up, send them once more, or delete them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from outbox_relay.cli import dead_letter_view as view
from outbox_relay.cli.dead_letter_options import (
    AllOption,
    IdOption,
    RateOption,
    ReasonOption,
    SinceOption,
    UntilOption,
    chosen,
    selection,
)
from outbox_relay.cli.dead_letter_work import (
    Done,
    Pace,
    Survey,
    act_on_all,
    progress_bar,
    survey,
)
from outbox_relay.cli.exits import SIGNALLED, Exit, errors_as_exits, fail, require_driver
from outbox_relay.cli.options import (
    ConfigOption,
    DryRunOption,
    FromIdOption,
    JsonOption,
    KeyOption,
    SetOption,
    ToIdOption,
    TopicOption,
    YesOption,
    bounded,
    load,
)
from outbox_relay.relay.dead_letters import DeadLetter, DeadLetters, Found, Selection

if TYPE_CHECKING:
    from outbox_relay.config import Config

Result = TypeVar("Result")

dead_letters = typer.Typer(
    name="dead-letters",
    help="Look at rows that were given up; requeue or discard them.",
    no_args_is_help=True,
)


@dead_letters.command("list")
def list_(
    *,
    config: ConfigOption = None,
    flags: SetOption = None,
    ids: IdOption = None,
    from_id: FromIdOption = None,
    to_id: ToIdOption = None,
    topics: TopicOption = None,
    keys: KeyOption = None,
    reasons: ReasonOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: Annotated[
        int, typer.Option("--limit", metavar="ROWS", min=0, help="Most rows to show.")
    ] = 50,
    as_json: JsonOption = False,
) -> None:
    """Count the dead letters by topic and reason, and show the oldest."""
    which = selection(
        ids=ids, from_id=from_id, to_id=to_id, topics=topics, keys=keys,
        reasons=reasons, since=since, until=until,
    )  # fmt: skip

    async def work(letters: DeadLetters) -> tuple[Survey, list[DeadLetter]]:
        surveyed = await survey(letters, which)
        oldest = await letters.find(which, limit=limit) if limit else []
        return surveyed, await letters.read([letter.id for letter in oldest])

    surveyed, shown = _run(config, flags, lambda _: work)
    if as_json:
        rows = [view.as_json(letter) for letter in shown]
        counts = view.counts_as_json(surveyed.counts)
        typer.echo(json.dumps({"counts": counts, "dead_letters": rows}))
        return
    _print_counts(surveyed)
    if shown:
        view.print_letters(shown)
    if surveyed.rows > len(shown):
        typer.echo(f"{surveyed.rows - len(shown):,} more are not shown: see --limit")


@dead_letters.command()
def show(
    row_id: Annotated[int, typer.Argument(metavar="ID", help="The row.")],
    config: ConfigOption = None,
    flags: SetOption = None,
    with_payload: Annotated[
        bool, typer.Option("--payload", help="Also the payload, as it would be published.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show one dead letter. Exits with 1 if there is none of this id."""

    async def work(letters: DeadLetters) -> tuple[list[DeadLetter], bytes]:
        found = await letters.read([bounded(row_id)])
        return found, await letters.payload(row_id) if found and with_payload else b""

    found, stored = _run(config, flags, lambda _: work)
    if not found:
        fail(Exit.FAILED, f"row {row_id} is no dead letter: see outbox-relay dead-letters list")
    fields = view.as_json(found[0])
    if with_payload:
        fields |= view.payload(stored, found[0].codec)
    if as_json:
        typer.echo(json.dumps(fields))
        return
    for name, value in fields.items():
        typer.echo(f"{name}: {view.for_reading(name, value, found[0].content_type)}")


@dead_letters.command()
def requeue(
    *,
    config: ConfigOption = None,
    flags: SetOption = None,
    ids: IdOption = None,
    from_id: FromIdOption = None,
    to_id: ToIdOption = None,
    topics: TopicOption = None,
    keys: KeyOption = None,
    reasons: ReasonOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    everything: AllOption = False,
    dry_run: DryRunOption = False,
    rate: RateOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """
    Let the relay publish dead letters once more.

    Says how many and asks first. What was wrong must be mended before: a row that is refused again
    is a dead letter again. With relay.on_dead_letter = "hold_key" it comes in its place, else late;
    its record has the header requeued-at. Ctrl-C stops it; the same command goes on with the rest.
    """
    which = selection(
        ids=ids, from_id=from_id, to_id=to_id, topics=topics, keys=keys,
        reasons=reasons, since=since, until=until,
    )  # fmt: skip
    order = _Order("requeue", chosen(which, everything), Pace(rate), dry_run, yes, as_json)
    _carry_out(order, config, flags)


@dead_letters.command()
def discard(
    *,
    config: ConfigOption = None,
    flags: SetOption = None,
    ids: IdOption = None,
    from_id: FromIdOption = None,
    to_id: ToIdOption = None,
    topics: TopicOption = None,
    keys: KeyOption = None,
    reasons: ReasonOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    everything: AllOption = False,
    dry_run: DryRunOption = False,
    rate: RateOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """
    Delete dead letters: they will never be published.

    Says how many and asks first. Each row is logged to standard error, without payload and key.
    Ctrl-C stops it; the same command goes on with the rest.
    """
    which = selection(
        ids=ids, from_id=from_id, to_id=to_id, topics=topics, keys=keys,
        reasons=reasons, since=since, until=until,
    )  # fmt: skip
    order = _Order("discard", chosen(which, everything), Pace(rate), dry_run, yes, as_json)
    _carry_out(order, config, flags)


@dataclass(frozen=True, slots=True)
class _Order:
    """What somebody wants done."""

    verb: Literal["requeue", "discard"]
    selection: Selection
    pace: Pace
    dry_run: bool
    yes: bool
    as_json: bool

    @property
    def done(self) -> str:
        """What has become of the rows."""
        return f"{self.verb.removesuffix('e')}ed"


def carry_out_requeue(
    which: Selection,
    pace: Pace,
    config: Any,
    flags: list[str] | None,
    *,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """As the verb `requeue`, for another verb that chooses for itself."""
    _carry_out(_Order("requeue", which, pace, dry_run, yes, as_json), config, flags)


def _carry_out(order: _Order, config: Any, flags: list[str] | None) -> None:
    surveyed = _run(config, flags, lambda _: lambda letters: survey(letters, order.selection))
    if not order.as_json:
        _print_counts(surveyed)
    done = Done(0)
    if surveyed.rows and not order.dry_run:
        if not order.yes:
            # Not a word of ours goes on by default: without a terminal this ends the command.
            typer.confirm(f"{order.verb} {surveyed.rows:,} dead letters?", abort=True, err=True)
        done = _run(
            config, flags, lambda settings: lambda letters: _act(letters, order, surveyed, settings)
        )
    _tell(order, surveyed, done)
    if done.stopped_by is not None:
        raise typer.Exit(SIGNALLED + done.stopped_by)


async def _act(letters: DeadLetters, order: _Order, surveyed: Survey, settings: Config) -> Done:
    from outbox_relay.logs import configure_logs, get_logger

    logger = get_logger()
    gone: set[int] = set()

    async def discard(ids: Sequence[int]) -> int:
        gone.clear()
        gone.update(await letters.discard(ids))
        return len(gone)

    def acted(found: Sequence[Found]) -> None:
        # Not what somebody else requeued in between.
        for letter in [letter for letter in found if letter.id in gone]:
            logger.info(
                "dead_letter_discarded",
                row_id=letter.id,
                topic=letter.topic,
                event_id=str(letter.event_id),
                reason=letter.reason,
            )

    with progress_bar(order.verb, surveyed.rows, quiet=order.as_json) as advance:
        # After the bar has taken standard error: log lines come above it.
        configure_logs(settings.log)
        done = await act_on_all(
            letters,
            order.selection,
            surveyed,
            act=letters.requeue if order.verb == "requeue" else discard,
            acted=acted,
            pace=order.pace,
            advance=advance,
        )
    configure_logs(settings.log)
    logger.info(
        f"dead_letters_{order.done}",
        rows=done.rows,
        of=surveyed.rows,
        stopped=done.stopped_by is not None,
        **order.selection.described(),
    )
    return done


def _tell(order: _Order, surveyed: Survey, done: Done) -> None:
    if order.as_json:
        counts = view.counts_as_json(surveyed.counts)
        told = {f"would_{order.verb}": surveyed.rows} if order.dry_run else {order.done: done.rows}
        typer.echo(json.dumps(told | ({"counts": counts} if order.dry_run else {})))
    elif order.dry_run:
        typer.echo(f"would {order.verb} {surveyed.rows:,}; nothing is done")
    elif done.stopped_by is not None:
        typer.echo(
            f"stopped: {order.done} {done.rows:,} of {surveyed.rows:,}; the same command goes on "
            "with the rest"
        )
    else:
        typer.echo(f"{order.done} {done.rows:,}")


def _run(
    config: Any,
    flags: list[str] | None,
    make: Callable[[Config], Callable[[DeadLetters], Coroutine[Any, Any, Result]]],
) -> Result:
    """Do on the dead letters what *make* makes of the settings; errors become exit codes."""
    from outbox_relay.wiring import build_dead_letters

    with errors_as_exits():
        settings = load(config, flags)
        require_driver(settings.database.url)
        work = make(settings)

        async def main() -> Result:
            letters = build_dead_letters(settings.database)
            try:
                return await work(letters)
            finally:
                await letters.close()

        return asyncio.run(main())


def _print_counts(surveyed: Survey) -> None:
    if surveyed.rows:
        view.print_counts(surveyed.counts)
    else:
        typer.echo("no dead letters")
