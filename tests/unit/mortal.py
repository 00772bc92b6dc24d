"""
Relays that die as `kill -9` does: at any call of store or broker, before or after its effect, or while
they make a record of a row.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from random import Random
from typing import Any

import pytest

from outbox_relay.errors import StoreUnavailable
from outbox_relay.relay import dispatch
from outbox_relay.relay.options import RelayOptions
from outbox_relay.relay.producer import EventProducer
from outbox_relay.relay.track import next_batch
from outbox_relay.testing import FakeClock, InMemoryStore, RecordingBroker, Watcher

POISON = b"poison"
LEASE_SECONDS = 15.0


class Life:
    """Ends after *steps* calls or answers, of *dies_at* if given. Whoever is dead waits for ever."""

    def __init__(self, steps: int | None, dies_at: Collection[str]) -> None:
        self.steps = steps
        self._dies_at = dies_at
        self.over = False
        self.buried = False

    async def step(self, method: str) -> None:
        """One more call of *method*, or its answer."""
        counts = not self._dies_at or method in self._dies_at
        if counts and self.steps is not None and not self.over:
            self.steps -= 1
            self.over = self.steps < 0
        if self.buried:
            raise StoreUnavailable("the process is gone")
        if self.over:
            await asyncio.Event().wait()


class Mortal:
    """A port as one process uses it."""

    def __init__(self, port: Any, life: Life) -> None:
        self._port = port
        self._life = life

    def __getattr__(self, name: str) -> Any:
        inner = getattr(self._port, name)
        if not asyncio.iscoroutinefunction(inner):
            return inner

        async def call(*args: Any, **named: Any) -> Any:
            await self._life.step(name)
            answer = await inner(*args, **named)
            await self._life.step(name)
            return answer

        return call


class MortalRelay:
    """A relay in a process of its own, so to say."""

    living: MortalRelay | None = None

    def __init__(
        self,
        clock: FakeClock,
        store: InMemoryStore,
        broker: RecordingBroker,
        *,
        steps: int | None = None,
        dies_at: Collection[str] = (),
        seed: int = 1,
        **options: Any,
    ) -> None:
        self.clock = clock
        self.life = Life(steps, dies_at)
        self.watcher = Watcher()
        self.producer = EventProducer(
            Mortal(store, self.life),
            Mortal(broker, self.life),
            owner="mortal",
            clock=clock,
            observer=self.watcher,
            random=Random(seed),
            options=RelayOptions(lease_seconds=LEASE_SECONDS, **options),
        )
        self.task = asyncio.create_task(self.producer.run())
        MortalRelay.living = self

    async def lives(self, seconds: float) -> bool:
        """Run for *seconds*. Whether it lives after that; if not, its lease has run out."""
        until = self.clock.now() + seconds
        while not self.life.over and self.clock.now() < until:
            await self.clock.advance(0.25)
        if not self.life.over:
            return True
        await self.bury()
        await self.clock.advance(LEASE_SECONDS + 1)
        return False

    async def bury(self) -> None:
        """Leave nothing behind but what others can see."""
        self.life.over = self.life.buried = True
        for task in asyncio.all_tasks():
            if task is not asyncio.current_task():
                task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@pytest.fixture
def deadly(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Making a record of a row with the payload `POISON` is deadly. The ids that killed, in order."""
    victims: list[int] = []

    class Deadly:
        def __init__(self, encoder: Any) -> None:
            self._encoder = encoder

        def record(self, row: Any) -> Any:
            if row.payload != POISON:
                return self._encoder.record(row)
            assert MortalRelay.living is not None
            victims.append(row.id)
            MortalRelay.living.life.over = True
            raise asyncio.CancelledError

    def deadly_batch(track: Any, *, encoder: Any, batch_bytes: int) -> Any:
        return next_batch(track, Deadly(encoder), batch_bytes=batch_bytes)

    monkeypatch.setattr(dispatch, "next_batch", deadly_batch)
    yield victims
    MortalRelay.living = None
