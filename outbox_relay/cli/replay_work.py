"""Carrying out a replay: the parts joined, signals, the bar, what is kept and what is logged."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from outbox_relay.cli.dead_letter_work import progress_bar, stop_signals
from outbox_relay.cli.operating import run_raising, somebody
from outbox_relay.errors import OutboxRelayError, PublishError, StoreUnavailable
from outbox_relay.logs import configure_logs, get_logger
from outbox_relay.operations.replay_rows import ReplayRows
from outbox_relay.operations.replay_state import ReplayOrder, ReplayState, save
from outbox_relay.operations.replaying import EvenPace, Replay, ReplayStopped, Told
from outbox_relay.relay.envelope import make_encoder
from outbox_relay.relay.watching import Silent
from outbox_relay.wiring import build_broker

if TYPE_CHECKING:
    from outbox_relay.config import Config
    from outbox_relay.operations import Access
    from outbox_relay.relay.ports import Row

CLOSE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be done, and how."""

    order: ReplayOrder
    rate: int
    skip_rejected: bool
    keep: Path | None
    """Where to keep how far it is."""
    quiet: bool


def carry_out(
    settings: Config, job: Job, state: ReplayState
) -> tuple[ReplayState, signal.Signals | None]:
    """
    Publish what is left of *state*; how far it came, and the signal that stopped it, if one did.

    Raises OutboxRelayError, with a text that says how to go on.
    """
    reached = [state]

    def saved(now: ReplayState) -> None:
        reached[0] = now
        if job.keep is not None:
            save(job.keep, job.order, now)

    saved(state)
    try:
        stopped_by = run_raising(settings, partial(_work, settings, job, state, saved))
    except (StoreUnavailable, PublishError, ReplayStopped) as error:
        raise OutboxRelayError(
            f"{error}. {reached[0].published:,} events were published: "
            f"{how_to_go_on(job.order, reached[0], job.keep)}"
        ) from error
    finally:
        _log(settings, job.order, reached[0])
    return reached[0], None if reached[0].done else stopped_by


async def _work(
    settings: Config,
    job: Job,
    state: ReplayState,
    saved: Callable[[ReplayState], None],
    access: Access,
) -> signal.Signals | None:
    left = max(0, state.rows - state.published - state.passed_over)
    with progress_bar("replay", left, quiet=job.quiet) as advance, stop_signals() as stop:
        # After the bar has taken standard error: log lines come above it.
        configure_logs(settings.log)

        async def rest(seconds: float) -> bool:
            await stop.wait_for(seconds)
            return not stop.is_set()

        told = Told(saved=saved, published=advance, passed_over=_passed_over, waits=_waits)
        broker = build_broker(settings, Silent())
        try:
            replay = Replay(
                job.order,
                ReplayRows(access, job.order.which),
                broker,
                make_encoder(settings.wire, max_payload_bytes=settings.relay.max_payload_bytes),
                batch_bytes=settings.relay.batch_bytes,
                skip_rejected=job.skip_rejected,
                told=told,
            )
            await replay.run(state, EvenPace(job.rate), rest=rest)
        finally:
            await broker.close(timeout_seconds=CLOSE_SECONDS)
        return stop.signal


def _passed_over(row: Row, why: str) -> None:
    get_logger().warning(
        "replay_passed_over",
        row_id=row.id,
        topic=row.topic,
        event_id=str(UUID(bytes=row.event_id)),
        error=why,
    )


def _waits(why: str) -> None:
    get_logger().warning("replay_waits", error=why)


def _log(settings: Config, order: ReplayOrder, after: ReplayState) -> None:
    configure_logs(settings.log)
    get_logger().info(
        "replayed",
        rows=after.published,
        of=after.rows,
        passed_over=after.passed_over,
        after_id=after.after_id,
        done=after.done,
        to_topic=order.to_topic,
        as_new=order.as_new,
        replay_id=order.replay_id,
        by=somebody(),
        **order.which.described(),
    )


def how_to_go_on(order: ReplayOrder, state: ReplayState, keep: Path | None) -> str:
    """What to say to go on after *state*."""
    if keep is not None:
        return f"outbox-relay replay --resume {keep} goes on"
    rest = f"--from-id {state.after_id + 1} --to-id {state.last_id}"
    instead = " instead of --all" if order.said.get("all") else ""
    return f"the same command with {rest}{instead} goes on"
