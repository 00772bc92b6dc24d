"""
Fixtures for tests of applications: ``pytest_plugins = ["outbox_relay.testing.pytest_plugin"]``.

In the conftest.py at the root of your tests. Nothing is loaded by whoever does not ask for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from outbox_relay.testing.broker import RecordingBroker
from outbox_relay.testing.crashes import crash_at as crash_at_point
from outbox_relay.testing.outboxed import Outboxed
from outbox_relay.testing.relaying import MemoryRelay, memory_broker


@pytest.fixture
def outboxed() -> Iterator[Outboxed]:
    """What this test's application has outboxed, in order, without what it rolled back."""
    with Outboxed() as recorded:
        yield recorded


@pytest.fixture
def outbox_broker() -> RecordingBroker:
    """A broker in memory. `published` holds what it acked; it can be down, slow, or refuse."""
    return memory_broker()


@pytest.fixture
def relay_outboxed(outboxed: Outboxed, outbox_broker: RecordingBroker) -> MemoryRelay:
    """Call it to relay what was outboxed into `outbox_broker`, through the real `EventProducer`."""
    return MemoryRelay(outboxed, outbox_broker)


@pytest.fixture
def crash_at() -> Callable[..., AbstractContextManager[None]]:
    """``with crash_at("after_commit"): ...``: see `outbox_relay.testing.crash_at`."""
    return crash_at_point
