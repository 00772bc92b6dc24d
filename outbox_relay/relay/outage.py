"""Whether a broker answers at all: one probe for everyone who needs to know."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from outbox_relay.relay.decide import Backoff
from outbox_relay.relay.surroundings import Surroundings

SETTLED_SECONDS = 1.0


class BrokerWatch:
    """
    The circuit for the broker.

    While `up` is cleared nothing is read and nothing published; a probe every second at most sets
    it again. An outage so costs no event an attempt, and no backlog is turned over and over.
    """

    def __init__(
        self, around: Surroundings, ended: asyncio.Event, fail: Callable[[Exception], None]
    ) -> None:
        self._around = around
        self._ended = ended
        self._fail = fail
        self._probing: asyncio.Task[None] | None = None
        self._asking: asyncio.Task[None] | None = None
        self.up = asyncio.Event()
        self.up.set()
        self.acked_at = 0.0
        self.answered_at = 0.0

    def acked(self, now: float) -> None:
        """A broker took a batch at *now*."""
        self.acked_at = now

    async def wait_until_up(self) -> None:
        """Return when a broker answers a probe, or the term ends."""
        if self._probing is None:
            self.up.clear()
            self._around.observer.log("broker_unreachable")
            self._probing = self._spawn(self._probe())
        await self.up.wait()

    async def _probe(self) -> None:
        around = self._around
        backoff = Backoff(max_seconds=1.0)
        failures = 0
        try:
            while not self._ended.is_set() and not await around.broker.probe():
                failures += 1
                delay = backoff.delay_seconds(failures, jitter=around.random.random())
                await around.clock.wait(self._ended, delay)
            if not self._ended.is_set():
                around.observer.log("broker_reachable")
        finally:
            self._probing = None
            self.up.set()

    def ask(self) -> None:
        """Find out, in the background, whether a broker answers now; see `answered_at`."""
        if self._asking is None:
            self._asking = self._spawn(self._ask())

    async def _ask(self) -> None:
        try:
            if await self._around.broker.probe():
                self.answered_at = self._around.clock.now()
            else:
                await self._around.clock.wait(self._ended, SETTLED_SECONDS)
        finally:
            self._asking = None

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return asyncio.create_task(self._guard(work))

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 - a bug ends the term; it must not end in silence
            self._fail(error)

    def tasks(self) -> list[asyncio.Task[None]]:
        """What is under way."""
        return [task for task in (self._probing, self._asking) if task is not None]
