"""
Retention: deletes produced rows, and dead letters, that are old enough.

Each status is walked by id, a chunk at a time, in two places. The *front* goes on as long as it finds
rows that are due: rows are mostly produced in the order of their ids, so that behind a chunk in which
none is due there are hardly any. Hardly: the rows of a topic that paused have small ids and were
produced late, and the front stands still before them. So the *sweep* goes over all rows, slowly
where it finds nothing due.

The purge never asks for pending rows. It rests after each statement as long as that took, and longer
while the relay is busy, so it takes a share of the database and no more, however slow that is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from outbox_relay.errors import StoreUnavailable
from outbox_relay.relay.dead_letters import reason_of
from outbox_relay.relay.decide import Backoff
from outbox_relay.relay.ports import Aged, PurgePlan
from outbox_relay.relay.surroundings import Surroundings
from outbox_relay.schema import Status

PURGE: Final = "@purge"
"""The row of the control table that pauses the purge. No topic can have this name."""

KINDS: Final = {Status.PRODUCED: "produced", Status.DEAD: "dead_letter"}
"""What is purged, as metrics and logs name it."""

FIRST_ROWS = 100
MOST_ROWS = 1000
SWEEP_ROWS = 2000
STATEMENT_SECONDS = 0.05
"""A statement that deletes should take no longer: it holds its locks until it ends."""

IDLE_SECONDS = 10.0
MOST_IDLE_SECONDS = 60.0
LOG_SECONDS = 60.0


@dataclass(slots=True)
class Pace:
    """How many rows one statement deletes: more while they go fast, fewer when they are slow."""

    rows: int = FIRST_ROWS

    def deleted(self, rows: int, seconds: float) -> None:
        """A statement over *rows* took *seconds*."""
        if seconds > 2 * STATEMENT_SECONDS:
            self.failed()
        elif seconds < STATEMENT_SECONDS and rows >= self.rows:
            self.rows = min(MOST_ROWS, self.rows * 2)

    def failed(self) -> None:
        """A statement was too much."""
        self.rows = max(1, self.rows // 2)


def rest_seconds(seconds: float, *, busy: bool) -> float:
    """
    How long to rest after a statement of *seconds*: at most half of the time is the purge's, and a
    fifth while the relay is *busy*. Never nothing of it, so that it cannot lag for ever.

    >>> rest_seconds(0.02, busy=True)
    0.08
    """
    return max(0.001, seconds * (4 if busy else 1))


@dataclass(slots=True)
class Walk:
    """The way through the rows of one status."""

    status: Status
    older_than_seconds: float
    front: int = 0
    sweep: int = 0
    pace: Pace = field(default_factory=Pace)
    purged: int = 0
    logged_at: float = 0.0

    def plan_front(self) -> PurgePlan:
        """The next chunk at the front."""
        return self.plan(self.front, self.pace.rows)

    def front_seen(self, rows: Sequence[Aged]) -> bool:
        """*rows* were at the front, and the due ones are gone. Whether to go on."""
        due = [row.id for row in rows if row.due]
        if due:
            self.front = due[-1]
        return bool(due)

    def plan_sweep(self) -> PurgePlan:
        """The next chunk of the sweep."""
        return self.plan(self.sweep, SWEEP_ROWS)

    def sweep_seen(self, rows: Sequence[Aged]) -> bool:
        """The sweep went over *rows*, and the due ones are gone. Whether to go on at once."""
        at_the_end = len(rows) < SWEEP_ROWS
        self.sweep = 0 if at_the_end else rows[-1].id
        return not at_the_end and any(row.due for row in rows)

    def plan(self, after_id: int, limit: int) -> PurgePlan:
        """The next *limit* rows behind *after_id*."""
        return PurgePlan(
            status=self.status,
            older_than_seconds=self.older_than_seconds,
            after_id=after_id,
            limit=limit,
        )


class Purge:
    """The purge of one term. Deletes nothing before the operator's word is known."""

    def __init__(self, around: Surroundings, *, busy: Callable[[], bool]) -> None:
        options = around.options
        self._around = around
        self._busy = busy
        self._allowed = asyncio.Event()
        self.is_ours: Callable[[], bool] = lambda: True
        """Whether this relay is the one that purges: of several, one does."""
        self._stopping = False
        self._paused = False
        self._slowest = 0.0
        self._idle = IDLE_SECONDS
        self._working = False
        self.walks = [Walk(Status.PRODUCED, options.retention_seconds)]
        if options.dead_letter_retention_seconds:
            # First, since they are few.
            self.walks.insert(0, Walk(Status.DEAD, options.dead_letter_retention_seconds))

    def operator_wants(self, names: frozenset[str]) -> frozenset[str]:
        """Pause or go on as *names*, the control table, says. The other names."""
        paused = PURGE in names
        if paused != self._paused:
            self._around.observer.log("purge_paused" if paused else "purge_goes_on")
        self._paused = paused
        if paused or self._stopping:
            self._allowed.clear()
        else:
            self._allowed.set()
        return names - {PURGE}

    def minds_its_word(self) -> bool:
        """Whether it waits for the operator or deletes right now: ask often what the operator wants."""
        return self._paused or self._working

    def stop(self) -> None:
        """Delete nothing more."""
        self._stopping = True
        self._allowed.clear()

    async def run(self) -> None:
        """Purge for ever. Raises LeaseLost, or what else ends the term."""
        around = self._around
        backoff = Backoff(initial_seconds=1.0, max_seconds=60.0)
        failures = 0
        while True:
            self._slowest = 0.0
            try:
                for walk in self.walks:
                    await self._round(walk)
            except StoreUnavailable as error:
                if error.ends_term:
                    raise
                failures += 1
                around.observer.log("purge_failed", error=str(error))
                for walk in self.walks:
                    walk.pace.failed()
                jitter = around.random.random()
                await around.clock.sleep(backoff.delay_seconds(failures, jitter=jitter))
            else:
                failures = 0
                self._idle = (
                    IDLE_SECONDS if self._working else min(MOST_IDLE_SECONDS, self._idle * 2)
                )
                self._working = False
                # Deleted entries of the index that a long transaction keeps make a look expensive.
                await around.clock.sleep(max(self._idle, 20 * self._slowest))

    async def _round(self, walk: Walk) -> None:
        """All that is due at the front, and some of the sweep."""
        try:
            while walk.front_seen(await self._chunk(walk, walk.plan_front())):
                pass
            while walk.sweep_seen(await self._chunk(walk, walk.plan_sweep())):
                pass
        finally:
            self._log(walk, every_seconds=0.0)

    async def _chunk(self, walk: Walk, plan: PurgePlan) -> Sequence[Aged]:
        """The rows of *plan*, of which those that are due are gone."""
        await self._allowed.wait()
        if not self.is_ours():
            return ()
        clock = self._around.clock
        started = clock.now()
        rows = await self._around.store.aged(plan)
        await self._rest(clock.now() - started)
        due = [row for row in rows if row.due]
        self._working |= bool(due)
        while due:
            # Dead letters one by one: each that is deleted is told, and no other.
            count = 1 if plan.status is Status.DEAD else walk.pace.rows
            some, due = due[:count], due[count:]
            await self._delete(walk, plan, some)
        return rows

    async def _delete(self, walk: Walk, plan: PurgePlan, rows: Sequence[Aged]) -> None:
        await self._allowed.wait()
        around = self._around
        started = around.clock.now()
        count = await around.store.purge([row.id for row in rows], plan, around.lease.term)
        seconds = around.clock.now() - started
        if count:
            walk.pace.deleted(len(rows), seconds)
            walk.purged += count
            around.observer.purged(KINDS[walk.status], count)
            if walk.status is Status.DEAD:
                self._log_dead_letter(rows[0])
            self._log(walk, every_seconds=LOG_SECONDS)
        await self._rest(seconds)

    async def _rest(self, seconds: float) -> None:
        self._around.observer.timed("purge", seconds)
        self._slowest = max(self._slowest, seconds)
        await self._around.clock.sleep(rest_seconds(seconds, busy=self._busy()))

    def _log(self, walk: Walk, *, every_seconds: float) -> None:
        now = self._around.clock.now()
        if walk.purged and now - walk.logged_at >= every_seconds:
            self._around.observer.log("purged", kind=KINDS[walk.status], rows=walk.purged)
            walk.purged = 0
            walk.logged_at = now

    def _log_dead_letter(self, row: Aged) -> None:
        self._around.observer.log(
            "dead_letter_purged",
            row_id=row.id,
            topic=row.topic,
            event_id=str(UUID(bytes=row.event_id)),
            reason=reason_of(row.last_error or ""),
        )
