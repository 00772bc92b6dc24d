"""
The canary: an event of the relay's own, written every minute and followed until it is marked.

An idle shop and a relay that publishes nothing look alike; a canary tells them apart. It takes the whole
way: it is committed, read, published, acked and marked like any row, and kept and purged like any.
"""

from __future__ import annotations

from outbox_relay.errors import StoreUnavailable
from outbox_relay.relay.ports import CANARY_DEAD, CANARY_GONE
from outbox_relay.relay.surroundings import Surroundings

FIRST_LOOK_SECONDS = 0.05
MOST_LOOK_SECONDS = 1.0


class Canary:
    """The canary of one term. One relay of a table writes it: the one that has lane 0."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._options = around.canary

    async def run(self) -> None:
        """Write and follow one after another, for ever."""
        around, every = self._around, self._options.every_seconds
        try:
            while True:
                ours = 0 in around.lease.lanes
                around.observer.canary_every(every if ours else 0.0)
                started = around.clock.now()
                if ours:
                    await self._one(until=started + every)
                await around.clock.sleep(max(0.0, started + every - around.clock.now()))
        finally:
            around.observer.canary_every(0.0)

    async def _one(self, *, until: float) -> None:
        around, observer = self._around, self._around.observer
        try:
            row_id = await around.store.write_canary(self._options.topic)
            observer.canary("written", 0.0)
            started = around.clock.now()
            seconds = await self._follow(row_id, until=until)
        except StoreUnavailable as error:
            if error.ends_term:
                raise
            observer.canary("failed", 0.0)
            observer.log("canary_failed", error=str(error))
            return
        waited = around.clock.now() - started
        outcome, took, wrong = fate(seconds, waited, around.options.retention_seconds)
        observer.canary(outcome, took)
        if wrong:
            observer.log("canary_failed", row_id=row_id, error=wrong)

    async def _follow(self, row_id: int, *, until: float) -> float | None:
        """What the store says of the row, once it is settled; None if it is not by *until*."""
        clock, pause = self._around.clock, FIRST_LOOK_SECONDS
        while True:
            seconds = await self._around.store.canary_seconds(row_id)
            left = until - clock.now()
            if seconds is not None or left <= 0:
                return seconds
            await clock.sleep(min(pause, left))
            pause = min(MOST_LOOK_SECONDS, pause * 1.5)


def fate(seconds: float | None, waited: float, retention_seconds: float) -> tuple[str, float, str]:
    """
    What became of a canary of which the store says *seconds*: its outcome, how long it took, what is wrong.

    A row that is gone was acked if rows are deleted on the ack, or purged so soon; else somebody deleted it.
    A dead letter that is discarded between two looks, within a second, cannot be told from the first.

    >>> fate(CANARY_GONE, 0.2, 0.0), fate(CANARY_GONE, 0.2, 3600.0)
    (('acked', 0.2, ''), ('failed', 0.0, 'its row is gone'))
    """
    if seconds is None:
        return "late", 0.0, "it is not marked yet"
    if seconds == CANARY_DEAD:
        return "failed", 0.0, "it is a dead letter"
    if seconds != CANARY_GONE:
        return "acked", seconds, ""
    if waited >= retention_seconds:
        return "acked", waited, ""
    return "failed", 0.0, "its row is gone"
