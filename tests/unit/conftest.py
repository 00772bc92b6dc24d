"""A relay over the in-memory store and broker, in time that stands still."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from random import Random

import hypothesis
import pytest

from outbox_relay.errors import StoreUnavailable
from outbox_relay.relay.options import RelayOptions
from outbox_relay.relay.producer import EventProducer
from outbox_relay.testing import FakeClock, InMemoryStore, RecordingBroker, Watcher

# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


class Running:
    """An EventProducer under way, and what it works with."""

    def __init__(self, clock, store, broker, **options) -> None:
        self.clock = clock
        self.store = store
        self.broker = broker
        self.watcher = Watcher()
        self.producer = EventProducer(
            store,
            broker,
            owner=options.pop("owner", None),
            clock=clock,
            observer=options.pop("observer", None) or self.watcher,
            canary=options.pop("canary", None),
            tracing=options.pop("tracing", None),
            random=Random(1),
            options=RelayOptions(**options),
        )
        self.task = asyncio.create_task(self.producer.run())

    async def crash(self) -> None:
        """End as `kill -9` does: no release, no mark, no farewell."""

        def no_farewell() -> None:
            raise StoreUnavailable("the process is gone")

        self.store.before["release"] = no_farewell
        for task in asyncio.all_tasks():
            if task is not asyncio.current_task() and task.get_coro().__qualname__ != "crash":
                task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        del self.store.before["release"]

    async def stop(self) -> None:
        """End as SIGTERM does."""
        self.producer.stop()
        await self.clock.advance(0.1)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(clock) -> InMemoryStore:
    return InMemoryStore(clock)


@pytest.fixture
def broker(clock) -> RecordingBroker:
    return RecordingBroker(clock, {"orders": 1, "users": 1, "wide": 8})


@pytest.fixture
async def start(clock, store, broker) -> AsyncIterator[Callable[..., Running]]:
    """Starts relays, and ends those that still run."""
    started: list[Running] = []

    def start_(**options) -> Running:
        parts = options.pop("store", store), options.pop("broker", broker)
        started.append(Running(clock, *parts, **options))
        return started[-1]

    yield start_
    for running in started:
        running.task.cancel()
    await asyncio.gather(*(running.task for running in started), return_exceptions=True)


@pytest.fixture
def crowd(start):
    """Starts relays by name, four of which may be active."""

    def start_(*names: str, **options):
        options = {"max_active_relays": 4} | options
        return [start(owner=name, **options) for name in names]

    return start_
