"""The real `EventProducer` over what was outboxed, in memory, in time that stands still."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Final

from outbox_relay.relay.producer import EventProducer
from outbox_relay.schema import Codec, Status
from outbox_relay.testing.broker import Published, RecordingBroker
from outbox_relay.testing.clock import FakeClock
from outbox_relay.testing.outboxed import Outboxed, WrittenEvent
from outbox_relay.testing.store import InMemoryStore

PARTITIONS: Final = 4
_STEP_SECONDS: Final = 0.05


class NotDrained(AssertionError):
    """Events are still waiting after all the time that was given. The text says which."""


def memory_broker(topics: Mapping[str, int] | None = None) -> RecordingBroker:
    """A broker in memory with *topics* and their partitions; it keeps what it acks in `published`."""
    return RecordingBroker(FakeClock(), topics or {})


class MemoryRelay:
    """
    Relays what *outboxed* has into *broker*: same order, same headers, same outcomes as on Kafka.

    Nothing is written to the application's database. A rolled back event is never relayed; one in a
    transaction that is still open is, so that it works in tests that never commit.
    """

    def __init__(self, outboxed: Outboxed, broker: RecordingBroker) -> None:
        self._outboxed = outboxed
        self._broker = broker
        self._store = InMemoryStore(broker.clock)
        self._taken: dict[bytes, int] = {}

    def __call__(self, *, seconds: float = 60.0, create_topics: bool = True) -> list[Published]:
        """
        Relay until nothing waits; what the broker acked in this call.

        Call it with or without a running event loop. *create_topics* gives each topic that *broker*
        lacks four partitions. Raises NotDrained if events still wait, such as while the broker is down,
        for at most *seconds* of the fake clock.
        """
        self._take(create_topics)
        before = len(self._broker.published)
        with ThreadPoolExecutor(1) as own_thread:
            own_thread.submit(lambda: asyncio.run(self._relay(seconds))).result()
        return self._broker.published[before:]

    def dead_letters(self) -> list[tuple[WrittenEvent, str]]:
        """What the broker refused for good, and why."""
        return [
            (event, self._store.error(row_id) or "")
            for event in self._outboxed
            if (row_id := self._taken.get(event.event_id.bytes)) is not None
            and self._store.status(row_id) is Status.DEAD
        ]

    def _take(self, create_topics: bool) -> None:
        for event in self._outboxed:
            if event.event_id.bytes in self._taken:
                continue
            if create_topics:
                self._broker.topics.setdefault(event.topic, PARTITIONS)
            self._taken[event.event_id.bytes] = self._insert(event)

    def _insert(self, event: WrittenEvent) -> int:
        transaction = self._store.begin()
        row_id = transaction.insert(
            event.topic,
            key=event.key,
            payload=event.value or b"",
            name=event.name,
            headers=event.headers or None,
            codec=Codec.TOMBSTONE if event.value is None else Codec.RAW,
        )
        stored = self._store.rows[row_id]
        stored.row = stored.row._replace(
            event_id=event.event_id.bytes, content_type=event.content_type
        )
        transaction.commit()
        return row_id

    async def _relay(self, seconds: float) -> None:
        clock = self._broker.clock
        steady = Random(1)  # noqa: S311 - jitter, not a secret
        producer = EventProducer(
            self._store, self._broker, owner="memory", clock=clock, random=steady
        )
        running = asyncio.ensure_future(producer.run(until_empty=True))
        until = clock.now() + seconds
        while not running.done() and clock.now() < until:
            await clock.advance(_STEP_SECONDS)
        if running.done():
            running.result()
        else:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        if self._store.pending():
            raise NotDrained(f"there still waits: {self._waiting()}")

    def _waiting(self) -> str:
        rows = [self._store.rows[row_id].row for row_id in self._store.pending()]
        return json.dumps([f"{row.event_name} for topic {row.topic}" for row in rows[:10]])
