"""`outbox-relay replay`: publish produced events again, on purpose."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outbox_relay.cli.event_options import (
    CeIdOption,
    NameOption,
    SinceOption,
    UntilOption,
    event_id_of,
    filter_of,
)
from outbox_relay.cli.exits import SIGNALLED, Exit, errors_as_exits, fail
from outbox_relay.cli.operating import run_on, settings_of
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
)

if TYPE_CHECKING:
    from outbox_relay.cli.replay_work import Job
    from outbox_relay.config import Config
    from outbox_relay.operations import Access, EventFilter
    from outbox_relay.operations.replay_rows import Survey
    from outbox_relay.operations.replay_state import ReplayOrder, ReplayState

DEFAULT_RATE = 500

EverythingOption = Annotated[bool, typer.Option("--all", help="Every produced event that is kept.")]
ToTopicOption = Annotated[
    str | None, typer.Option("--to-topic", metavar="TOPIC", help="Publish all to this topic.")
]
AsNewOption = Annotated[
    bool,
    typer.Option("--as-new", help="With new ce_ids, so that inboxes handle them once more."),
]
RateOption = Annotated[
    int, typer.Option("--rate", metavar="ROWS", min=1, help="Most events a second.")
]
SkipOption = Annotated[
    bool, typer.Option("--skip-rejected", help="Pass over what the broker refuses.")
]
ResumeOption = Annotated[
    Path | None,
    typer.Option("--resume", metavar="FILE", help="Keep here how far it is; go on from it."),
]

NOTHING_CHOSEN = (
    "say which events: --ce-id, --topic, --key, --name, --since, --until, --from-id, --to-id, or --all "
    "alone"
)


def replay(
    *,
    config: ConfigOption = None,
    flags: SetOption = None,
    ce_id: CeIdOption = None,
    topics: TopicOption = None,
    keys: KeyOption = None,
    names: NameOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    from_id: FromIdOption = None,
    to_id: ToIdOption = None,
    everything: EverythingOption = False,
    to_topic: ToTopicOption = None,
    as_new: AsNewOption = False,
    rate: RateOption = DEFAULT_RATE,
    skip_rejected: SkipOption = False,
    resume: ResumeOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """
    Publish produced events again, on purpose.

    Counts them and asks first. Oldest first, in order per key, with the header replay-of; their rows do
    not change, and the relay goes on beside it. They keep their ce_id, so that an inbox handles only
    what it has not handled; with --as-new it handles all of them once more. Ctrl-C stops it; with --resume the
    same command goes on, also after a crash.
    """
    settings = settings_of(config, flags)
    which = filter_of(
        topics=topics,
        keys=keys,
        names=names,
        since=since,
        until=until,
        from_id=from_id,
        to_id=to_id,
    )
    said = {
        "ce_id": ce_id, "topics": topics, "keys": keys, "names": names, "since": since,
        "until": until, "from_id": from_id, "to_id": to_id, "all": everything,
        "to_topic": to_topic, "as_new": as_new,
    }  # fmt: skip
    said = {name: value for name, value in said.items() if value not in (None, False, [])}
    asked = _Asked(which, ce_id, everything, to_topic, as_new, resume, said)
    from outbox_relay.cli.replay_work import Job
    from outbox_relay.operations.replay_state import claimed

    with errors_as_exits(), claimed(resume):
        order, (state, counted) = _begin(settings, asked, quiet=as_json)
        job = Job(order, rate, skip_rejected, resume, quiet=as_json)
        _carry_out(settings, job, state, counted, dry_run=dry_run, yes=yes)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the options say is meant."""

    which: EventFilter
    ce_id: str | None
    everything: bool
    to_topic: str | None
    as_new: bool
    resume: Path | None
    said: dict[str, Any]
    """The options as they were said: a time such as 2h means another moment each time."""


def _begin(
    settings: Config, asked: _Asked, *, quiet: bool
) -> tuple[ReplayOrder, tuple[ReplayState, Survey | None]]:
    """The order, from the file if there is one, and where it stands."""
    from outbox_relay.operations import EventFilter
    from outbox_relay.operations.replay_state import ReplayOrder, load

    _check_wire(settings, asked)
    chosen = asked.which != EventFilter() or asked.ce_id is not None
    kept = None if asked.resume is None else load(asked.resume)
    if kept is not None:
        order, state = kept
        if asked.said not in ({}, order.said):
            fail(
                Exit.USAGE,
                f"--resume {asked.resume}: another replay has begun there: leave out what chooses to go "
                "on with it, or name another file",
            )
        return order, (state, None)
    if chosen == asked.everything:
        fail(Exit.USAGE, NOTHING_CHOSEN)
    order = ReplayOrder(
        which=_filter(settings, asked),
        to_topic=asked.to_topic,
        as_new=asked.as_new,
        said=asked.said,
    )
    return order, _counted(settings, order, quiet=quiet)


def _check_wire(settings: Config, asked: _Asked) -> None:
    from outbox_relay.operations import EventFilter

    if asked.ce_id is not None and (asked.which != EventFilter() or asked.everything):
        fail(Exit.USAGE, "--ce-id stands alone: it names one event")
    if asked.as_new and settings.wire.headers == "none" and settings.wire.envelope == "none":
        fail(
            Exit.USAGE,
            '--as-new: with wire.headers = "none" and no envelope a record says no id at all',
        )
    if asked.as_new and asked.resume is None and not asked.ce_id:
        fail(
            Exit.USAGE,
            "--as-new needs --resume FILE: it keeps what the new ids follow from, so that whatever is "
            "repeated has the same one",
        )


def _filter(settings: Config, asked: _Asked) -> EventFilter:
    from outbox_relay.operations import EventFilter, find_event

    if asked.ce_id is None:
        return asked.which
    event_id = event_id_of(asked.ce_id, option="--ce-id")
    found = run_on(settings, lambda access: find_event(access, event_id, seconds=60.0))
    if found.id is None:
        fail(Exit.FAILED, f"there is no event {asked.ce_id}: see outbox-relay events search")
    return EventFilter(first_id=found.id, last_id=found.id)


def _counted(settings: Config, order: ReplayOrder, *, quiet: bool) -> tuple[ReplayState, Survey]:
    from outbox_relay.cli.dead_letter_work import progress_bar
    from outbox_relay.operations.replay_rows import survey
    from outbox_relay.operations.replay_state import ReplayState
    from outbox_relay.operations.selection import Span

    async def work(access: Access) -> Survey:
        # The end of the bar is known with the first slice: it counts in hundredths of the span.
        with progress_bar("counting", 100, quiet=quiet) as advance:
            done = 0

            def looked(part: Span, whole: Span) -> None:
                nonlocal done
                share = 100 * (part.last - whole.first + 1) // (whole.last - whole.first + 1)
                advance(share - done)
                done = share

            return await survey(access, order.which, looked=looked)

    counted = run_on(settings, work)
    return ReplayState(last_id=counted.last_id, rows=counted.rows), counted


def _print_counts(counted: Survey | None) -> None:
    from outbox_relay.cli.dead_letter_view import print_table

    if counted is not None and counted.rows:
        print_table(
            ("topic", "events"),
            [(topic, f"{rows:,}") for topic, rows in sorted(counted.counts.items())],
        )


def _carry_out(
    settings: Config,
    job: Job,
    state: ReplayState,
    counted: Survey | None,
    *,
    dry_run: bool,
    yes: bool,
) -> None:
    from outbox_relay.cli.replay_work import carry_out

    if not job.quiet:
        _print_counts(counted)
    left = max(0, state.rows - state.published - state.passed_over)
    if dry_run or state.done or not state.rows:
        _tell_without_work(job, state, counted, left, dry_run=dry_run)
        return
    where = f"to {job.order.to_topic}" if job.order.to_topic else "to their topics"
    if not yes:
        question = f"publish {left:,} events again {where}, {job.rate:,} a second at most?"
        typer.confirm(question, abort=True, err=True)
    with errors_as_exits():
        after, stopped_by = carry_out(settings, job, state)
    _tell(job, after, stopped=stopped_by is not None)
    if stopped_by is not None:
        raise typer.Exit(SIGNALLED + stopped_by)


def _tell_without_work(
    job: Job, state: ReplayState, counted: Survey | None, left: int, *, dry_run: bool
) -> None:
    if job.quiet:
        told: dict[str, Any] = {"would_replay": left} if dry_run else {"replayed": 0}
        if counted is not None and dry_run:
            rows = sorted(counted.counts.items())
            told["counts"] = [{"topic": topic, "rows": count} for topic, count in rows]
        typer.echo(json.dumps(told))
    elif dry_run and left:
        seconds = left / job.rate
        typer.echo(
            f"would publish {left:,} events again, in {seconds:,.0f} s at least; nothing is done"
        )
    elif job.keep is not None and state.done:
        typer.echo(f"{job.keep} says that this replay is done: {state.published:,} events")
    else:
        typer.echo("no produced events fit")


def _tell(job: Job, after: ReplayState, *, stopped: bool) -> None:
    if job.quiet:
        told = {
            "replayed": after.published,
            "passed_over": after.passed_over,
            "of": after.rows,
            "after_id": after.after_id,
            "last_id": after.last_id,
            "done": after.done,
        }
        typer.echo(json.dumps(told))
        return
    over = f", passed over {after.passed_over:,}" if after.passed_over else ""
    typer.echo(f"published {after.published:,} of {after.rows:,}{over}")
    if stopped:
        from outbox_relay.cli.replay_work import how_to_go_on

        typer.echo(f"stopped: {how_to_go_on(job.order, after, job.keep)}", err=True)
