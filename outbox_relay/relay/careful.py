"""
Finding the row that kills the relay, and no other.

A row that kills the process comes first again after each restart: it would stand in the way for ever.
So after `CAREFUL_AFTER` terms in a row without a clean end a term is *careful*. Before rows become
records their ids are written beside the lease, durably; when they are records, and before they are
published, the ids are erased. Whoever comes after a death in between learns which rows they were:

* at first they are many at once, which costs hardly any time; after a death each of them is tried alone;
* a row during which, alone, `GIVE_UP_AFTER` terms in a row ended becomes a dead letter.

Whatever else kills relays (``kill -9``, a node, the memory) does so at any time, and a row is a
suspect for a millisecond or two. Before a suspect is tried again there is a pause of random length, so
that what kills at a certain time after the start cannot meet the same row each time. And a row that was
not the reason is acquitted at its next trial, however often relays died before.

Care ends after as many rows as could be in flight when the relay died, or when nothing is left.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import islice

from outbox_relay.errors import StoreUnavailable
from outbox_relay.relay.decide import Backoff
from outbox_relay.relay.lease import Past, Suspects
from outbox_relay.relay.outcomes import RejectReason
from outbox_relay.relay.ports import Row
from outbox_relay.relay.surroundings import Surroundings
from outbox_relay.relay.track import Batch, Track, Unreadable

CAREFUL_AFTER = 2
"""Terms in a row without a clean end. One happens to every relay some day."""

GIVE_UP_AFTER = 3
"""Terms in a row that ended during one and the same row, alone."""

MOST_TOGETHER = 500
PAUSE_SECONDS = 5.0
"""The longest pause before a suspect is tried again."""

Make = Callable[[Track], Batch | Unreadable]


class Careful:
    """The care of one term. While it is `on`, batches are made by `next_batch`."""

    def __init__(self, around: Surroundings, ended: asyncio.Event) -> None:
        self._around = around
        self._ended = ended
        self._backoff = Backoff(initial_seconds=0.1, max_seconds=5.0)
        self._turn = asyncio.Lock()
        self._rows_left = 0
        self._suspects: dict[int, Suspects] = {}
        self.on = False
        if around.lease.past is not None:
            self.learn(around.lease.past)

    def learn(self, past: Past) -> None:
        """*past* is what the lanes bring with them: it may call for care."""
        if past.crash_count < CAREFUL_AFTER:
            return
        self._rows_left = self._around.options.in_flight_rows
        self._suspects = {suspects.lane: suspects for suspects in past.suspects}
        self.on = True
        self._around.observer.careful(True)
        self._around.observer.log(
            "careful_begun", crash_count=past.crash_count, suspects=len(past.suspects)
        )

    async def next_batch(self, track: Track, make: Make) -> Batch | Unreadable | None:
        """What *make* takes off *track*, with care. None if nothing was taken: look again."""
        async with self._turn:
            if not self.on:
                return make(track) if track.queue else None
            rows = self._next_rows(track)
            if not rows:
                return None
            deaths = self._deaths(rows[0])
            if deaths >= GIVE_UP_AFTER:
                track.queue.popleft()
                detail = f"{deaths} relays in a row died while they made a record of it"
                return Unreadable(rows[0], detail, RejectReason.KILLS_RELAY)
            lanes = {row.lane for row in rows}
            if (deaths and not await self._paused()) or not await self._suspected(rows, lanes):
                return None
            made = self._make(track, rows, make)
            # Not if that failed: what ends the process then has a name.
            await self._acquit(rows)
            if isinstance(made, Batch):
                await self._passed(len(made.rows))
            return made

    async def given_up(self, row: Row) -> None:
        """*row* is a dead letter, durably. Whoever requeues it asks for another trial."""
        async with self._turn:
            if self._deaths(row):
                await self._acquit([row])

    async def caught_up(self) -> None:
        """Nothing is left of what waited: neither then of what killed a relay."""
        if self.on and not self._turn.locked():
            await self._end()

    # Which rows

    def _next_rows(self, track: Track) -> list[Row]:
        """The rows to look at together: as many as wait, or one alone that is suspected."""
        rows: list[Row] = []
        for row in islice(track.queue, MOST_TOGETHER):
            if self._is_suspect(row):
                return rows or [row]
            rows.append(row)
        return rows

    def _is_suspect(self, row: Row) -> bool:
        suspects = self._suspects.get(row.lane)
        return suspects is not None and suspects.first_id <= row.id <= suspects.last_id

    def _deaths(self, row: Row) -> int:
        """How many terms in a row ended during *row* alone."""
        suspects = self._suspects.get(row.lane)
        if suspects is None or not suspects.first_id == row.id == suspects.last_id:
            return 0
        return suspects.deaths

    @staticmethod
    def _make(track: Track, rows: list[Row], make: Make) -> Batch | Unreadable | None:
        """What *make* takes of *rows*, as far as they still wait."""
        ids = {row.id for row in rows}
        waiting = deque(row for row in islice(track.queue, len(rows)) if row.id in ids)
        if not waiting:
            return None
        before = len(waiting)
        part = Track(track.partition, waiting)
        made = make(part)
        for _ in range(before - len(part.queue)):
            track.queue.popleft()
        return made

    # What is written

    async def _paused(self) -> bool:
        """Wait before a suspect is tried again. False if the term ends meanwhile."""
        around = self._around
        pause = PAUSE_SECONDS * around.random.random()
        return not await around.clock.wait(self._ended, pause)

    async def _suspected(self, rows: list[Row], lanes: set[int]) -> bool:
        """
        Write down that *rows* come next. False if the term ends.

        A lease that is lost is always the whole term's: while care lasts no lane is given back.
        """
        if self._ended.is_set():
            return False
        ids = [row.id for row in rows]
        await self._until_done(lambda: self._suspect(min(ids), max(ids), lanes))
        return True

    def _suspect(self, first: int, last: int, lanes: set[int]) -> Awaitable[None]:
        return self._around.store.suspect(first, last, lanes, self._around.lease.term)

    async def _acquit(self, rows: list[Row]) -> None:
        """*rows* did no harm. Others of their lanes are suspects still."""
        for row in rows:
            if self._deaths(row):
                del self._suspects[row.lane]
        lanes = {row.lane for row in rows}
        for still in [None, *(self._suspects[lane] for lane in lanes & self._suspects.keys())]:
            some = lanes - self._suspects.keys() if still is None else {still.lane}
            if some:
                await self._until_done(partial(self._acquitted, some, still))

    def _acquitted(self, lanes: set[int], still: Suspects | None) -> Awaitable[None]:
        return self._around.store.acquit(lanes, self._around.lease.term, still=still)

    async def _until_done(self, write: Callable[[], Awaitable[None]]) -> None:
        failures = 0
        while True:
            try:
                return await write()
            except StoreUnavailable as error:
                if error.ends_term:
                    raise
                self._around.observer.log("suspects_failed", error=str(error))
                # The main loop may be who waits here: an outage must not look like a loop that hangs.
                self._around.observer.cycle()
                failures += 1
                jitter = self._around.random.random()
                await self._around.clock.sleep(self._backoff.delay_seconds(failures, jitter=jitter))

    # The end

    async def _passed(self, rows: int) -> None:
        self._rows_left -= rows
        if self._rows_left <= 0:
            await self._end()

    async def _end(self) -> None:
        self.on = False
        term = self._around.lease.term  # of lanes that come meanwhile the past stays
        await self._until_done(lambda: self._around.store.recovered(term))
        self._around.observer.careful(self.on)
        self._around.observer.log("careful_done")
