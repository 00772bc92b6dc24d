"""
A source that delivers what it was given, and a handler that fails when it is told to.
"""

from __future__ import annotations

import asyncio
from typing import Any

from outbox_relay import NotificationEvent
from outbox_relay.consumer import (
    ConsumedRecord,
    Delivery,
    EventConsumer,
    Outcome,
    Retries,
)
from outbox_relay.consumer.source import Process


class OrderPlaced(NotificationEvent, name="order.placed", topic="orders", key="order_id"):
    """An event of the tests."""

    order_id: int


def delivery(offset: int = 0, *, name: str = "order.placed", **changed: Any) -> Delivery:
    """An order."""
    headers = (("ce_specversion", b"1.0"), ("ce_id", b"%d" % offset), ("ce_type", name.encode()))
    value = b'{"order_id": %d}' % offset
    given: dict[str, Any] = {"value": value, "headers": headers, "key": b"k", **changed}
    return Delivery(topic="orders", partition=0, offset=offset, **given)


class FakeSource:
    """Delivers what it was given, one after the other, and notes what came of it."""

    def __init__(self, *deliveries: Delivery, dead_letters: bool = True) -> None:
        self.deliveries = deliveries
        self.can_dead_letter = dead_letters
        self.refusals = 0
        self.outcomes: list[Outcome | None] = []
        self.dead: list[tuple[Delivery, dict[str, bytes]]] = []

    async def run(self, process: Process, stopping: asyncio.Event, stop_seconds: float) -> None:
        for message in self.deliveries:
            self.outcomes.append(await process(message, stopping))

    async def dead_letter(self, found: Delivery, headers: list[tuple[str, bytes]]) -> None:
        if self.refusals:
            self.refusals -= 1
            raise ConnectionError("the broker is away")
        self.dead.append((found, dict(headers)))


FAST = Retries(attempts=3, initial_seconds=0.001, max_seconds=0.001)


class Handler:
    """Raises the given errors first, then handles."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.calls = 0
        self.handled: list[int | None] = []

    async def __call__(self, record: ConsumedRecord) -> None:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        self.handled.append(record.offset)


async def consume(
    source: FakeSource, handle: Any = None, *, retries: Retries = FAST, **options: Any
) -> EventConsumer:
    """Run a consumer to the end of *source*."""
    consumer = EventConsumer(source, handle, retries=retries, **options)
    await consumer.run(handle_signals=False)
    return consumer
