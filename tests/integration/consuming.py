"""
Consumers that run while a test looks on, and events for them on Kafka.
"""

from __future__ import annotations

import asyncio
import json
import threading
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from outbox_relay.consumer import ConsumedRecord, EventConsumer, KafkaSource, Retries
from outbox_relay.consumer.source import Source
from tests.services.kafka import Kafka

FAST: Final = Retries(attempts=2, initial_seconds=0.01, max_seconds=0.05)


@asynccontextmanager
async def running(
    source: Source, handle: Callable[[ConsumedRecord], Awaitable[None]], **options: Any
) -> AsyncIterator[EventConsumer]:
    """A consumer that runs until the block ends."""
    consumer = EventConsumer(source, handle, **{"retries": FAST, **options})
    task = asyncio.create_task(consumer.run(handle_signals=False))
    try:
        yield consumer
    finally:
        consumer.stop()
        await asyncio.wait_for(task, 30)


async def cancelled_in_its_handler(source: Source) -> bool:
    """Whether a consumer ends at once when its task is cancelled, whatever stop_seconds says."""
    began = asyncio.Event()

    async def stuck(record: ConsumedRecord) -> None:
        began.set()
        await asyncio.Event().wait()

    consumer = EventConsumer(source, stuck, stop_seconds=3600)
    task = asyncio.create_task(consumer.run(handle_signals=False))
    await began.wait()
    task.cancel()
    await asyncio.wait({task}, timeout=20)
    return task.cancelled()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for it; the test's own timeout ends a wait for ever."""
    while not condition():
        await asyncio.sleep(0.01)


class Program:
    """A consumer in an event loop of its own, as a service runs it."""

    def __init__(self, consumer: EventConsumer) -> None:
        self._consumer = consumer
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._consumer.run(handle_signals=False))

    async def ends(self, *, within_seconds: float) -> bool:
        """Whether it has ended so long after it is told to stop, the loop and its last task too."""
        self._loop.call_soon_threadsafe(self._consumer.stop)
        await asyncio.to_thread(self._thread.join, within_seconds)
        return not self._thread.is_alive()


async def produce(kafka: Kafka, topic: str, *numbers: int, partition: int | None = None) -> None:
    """Events with the given numbers; the same number is the same event."""
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers, linger_ms=5) as producer:
        sent = [
            await producer.send(
                topic,
                json.dumps({"number": number}).encode(),
                b"key-%d" % (number % 7),
                partition=partition,
                headers=[
                    ("ce_specversion", b"1.0"),
                    ("ce_id", str(uuid.UUID(int=number)).encode()),
                    ("ce_type", b"counted"),
                ],
            )
            for number in numbers
        ]
        await asyncio.gather(*sent)


async def committed(kafka: Kafka, topic: str, partition: int = 0) -> int | None:
    """The offset that the group has committed."""
    client = AIOKafkaConsumer(
        bootstrap_servers=kafka.bootstrap_servers, group_id=f"{topic}-billing"
    )
    await client.start()
    try:
        return await client.committed(TopicPartition(topic, partition))
    finally:
        await client.stop()


def member_of(kafka: Kafka, topic: str, **changed: Any) -> KafkaSource:
    """A consumer of the group, which learns of a rebalance at once."""
    fetch = {"heartbeat_interval_ms": 100}
    group = f"{topic}-billing"
    servers = kafka.bootstrap_servers
    return KafkaSource(topic, bootstrap_servers=servers, group=group, fetch=fetch, **changed)
