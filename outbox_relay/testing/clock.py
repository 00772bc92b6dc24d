"""Time that a test moves."""

from __future__ import annotations

import asyncio
import heapq
import itertools


class FakeClock:
    """Time that stands still until `advance`."""

    def __init__(self, start: float = 1000.0) -> None:
        self._now = start
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def now(self) -> float:
        """Seconds."""
        return self._now

    def wall_us(self) -> int:
        """Microseconds."""
        return int(self._now * 1_000_000)

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock is moved so far."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now + seconds, next(self._order), waiter))
        await waiter

    async def wait(self, event: asyncio.Event, seconds: float) -> bool:
        """Wait for *event*, or until the clock is moved so far."""
        waiting = asyncio.ensure_future(event.wait())
        sleeping = asyncio.ensure_future(self.sleep(seconds))
        try:
            await asyncio.wait([waiting, sleeping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            sleeping.cancel()
        return event.is_set()

    async def advance(self, seconds: float) -> None:
        """Move the clock, stopping wherever somebody wakes up, so that all of them act in order."""
        until = self._now + seconds
        await settle()
        while self._sleepers and self._sleepers[0][0] <= until:
            at, _, waiter = heapq.heappop(self._sleepers)
            if waiter.done():
                continue
            self._now = max(self._now, at)
            waiter.set_result(None)
            await settle()
        self._now = until
        await settle()


async def settle(rounds: int = 30) -> None:
    """Let every task that can go on do so."""
    for _ in range(rounds):
        await asyncio.sleep(0)
