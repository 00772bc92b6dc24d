"""Marks rows as produced, or deletes them, many in one statement, behind the tracks and on its own connection."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from random import Random

from outbox_relay.errors import LeaseLost, StoreUnavailable
from outbox_relay.relay.decide import Backoff
from outbox_relay.relay.lease import Holding
from outbox_relay.relay.ports import Clock, Observer, Store

MARK_ROWS = 2000
GATHER_SECONDS = 0.01
"""How long acks gather before a mark: it costs no latency and saves the database commits."""


class Marker:
    """
    The queue between acks and marks.

    A mark is repeated until the database answers: it is safe to repeat, and giving it up would
    publish the rows again.
    """

    def __init__(
        self,
        store: Store,
        holding: Holding,
        *,
        clock: Clock,
        observer: Observer,
        random: Random,
        on_marked: Callable[[Sequence[int]], None],
        delete: bool = False,
    ) -> None:
        self._record = store.delete_produced if delete else store.mark_produced
        self._holding = holding
        self._clock = clock
        self._observer = observer
        self._random = random
        self._on_marked = on_marked
        self._acked: deque[int] = deque()
        self._under_way = 0
        self._some = asyncio.Event()
        self._many = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._flushing = False
        self.failing = False
        """Whether the database took no mark the last time."""

    def add(self, ids: Sequence[int]) -> None:
        """The broker acked *ids*."""
        self._acked.extend(ids)
        self._empty.clear()
        self._some.set()
        if len(self._acked) >= MARK_ROWS // 2 or self._flushing:
            self._many.set()

    async def flush(self) -> None:
        """Wait until everything added is marked."""
        self._flushing = True
        self._many.set()
        await self._empty.wait()

    async def run(self) -> None:
        """
        Mark what is added, for ever. Raises LeaseLost when the term is over.

        Two at a time when much waits: else the database's commit and one core of it set the rate.
        """
        markers = [asyncio.create_task(self._run(helps=helps)) for helps in (False, True)]
        try:
            await asyncio.gather(*markers)
        finally:
            for marker in markers:
                marker.cancel()
            await asyncio.gather(*markers, return_exceptions=True)

    async def _run(self, *, helps: bool) -> None:
        while True:
            if helps:
                await self._many.wait()
            else:
                await self._some.wait()
                await self._clock.wait(self._many, GATHER_SECONDS)
            ids = self._next()
            if ids:
                self._under_way += 1
                await self._mark(ids)
                self._under_way -= 1
                self._on_marked(ids)
            if not self._acked and not self._under_way:
                self._empty.set()

    def _next(self) -> list[int]:
        count = min(MARK_ROWS, len(self._acked))
        ids = [self._acked.popleft() for _ in range(count)]
        if not self._acked:
            self._some.clear()
        if not self._acked or (len(self._acked) < MARK_ROWS // 2 and not self._flushing):
            self._many.clear()
        return ids

    async def _mark(self, ids: Sequence[int]) -> None:
        backoff = Backoff(initial_seconds=0.05, max_seconds=2.0)
        failures = 0
        while True:
            started = self._clock.now()
            try:
                await self._record(ids, self._holding.lease.term)
            except LeaseLost as error:
                if self._holding.is_over(error):
                    raise
            except StoreUnavailable as error:
                if error.ends_term:
                    raise
                failures += 1
                self.failing = True
                self._observer.log("mark_failed", rows=len(ids), error=str(error))
                delay = backoff.delay_seconds(failures, jitter=self._random.random())
                await self._clock.sleep(delay)
            else:
                self.failing = False
                self._observer.marked(len(ids), self._clock.now() - started)
                return
