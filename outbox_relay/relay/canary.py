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
        observer = self._around.observer
        try:
            row_id = await self._around.store.write_canary(self._options.topic)
            observer.canary("written", 0.0)
            seconds = await self._follow(row_id, until=until)
        except StoreUnavailable as error:
            if error.ends_term:
                raise
            observer.canary("failed", 0.0)
            observer.log("canary_failed", error=str(error))
            return
        if seconds is None:
            observer.canary("late", 0.0)
            observer.log("canary_failed", row_id=row_id, error="it is not marked yet")
        elif seconds == CANARY_DEAD:
            observer.canary("failed", 0.0)
            observer.log("canary_failed", row_id=row_id, error="it is a dead letter")
        else:
            observer.canary("acked", seconds)

    async def _follow(self, row_id: int, *, until: float) -> float | None:
        """How long it took until the row was marked, or CANARY_DEAD; None if neither is so by *until*."""
        clock, pause = self._around.clock, FIRST_LOOK_SECONDS
        started = clock.now()
        while True:
            seconds = await self._around.store.canary_seconds(row_id)
            if seconds is not None:
                return clock.now() - started if seconds == CANARY_GONE else seconds
            left = until - clock.now()
            if left <= 0:
                return None
            await clock.sleep(min(pause, left))
            pause = min(MOST_LOOK_SECONDS, pause * 1.5)
