"""
What every broker promises to the relay: in memory, and real Kafka.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from outbox_relay import testing
from outbox_relay.brokers.kafka import KafkaBroker
from outbox_relay.brokers.options import KafkaOptions
from outbox_relay.errors import TopicUnavailable
from outbox_relay.relay.outcomes import Acked, Rejected, RejectReason, Unknown
from outbox_relay.relay.ports import Record
from outbox_relay.testing import FakeClock, RecordingBroker


@dataclass
class Site:
    """A broker with a topic of three partitions, and what a consumer sees of it."""

    broker: Any
    topic: str
    consume: Any
    create: Any


@pytest.fixture(params=["memory", "kafka"])
async def site(request) -> AsyncIterator[Site]:
    if request.param == "memory":
        broker = RecordingBroker(FakeClock(), {"t": 3}, max_record_bytes=900_000)

        async def consume(topic: str) -> list[tuple[int, bytes | None, bytes | None]]:
            return [
                (p.partition, p.record.key, p.record.value)
                for p in broker.published
                if p.topic == topic
            ]

        def create(name: str, partitions: int) -> None:
            broker.topics[name] = partitions

        yield Site(broker, "t", consume, create)
        return
    kafka = request.getfixturevalue("kafka")
    topic = request.getfixturevalue("topic_name")
    kafka.create_topic(topic, partitions=3)
    real = KafkaBroker(
        KafkaOptions(bootstrap_servers=kafka.bootstrap_servers, max_request_bytes=900_000)
    )

    async def consume_real(name: str) -> list[tuple[int, bytes | None, bytes | None]]:
        records = await asyncio.to_thread(kafka.consume_all, name)
        return [(r.partition, r.key, r.value) for r in records]

    yield Site(real, topic, consume_real, kafka.create_topic)
    await real.close(timeout_seconds=2)


def record(value: bytes | None, key: bytes | None = b"k") -> Record:
    return testing.record(key, value)


async def test_a_batch_is_acked_in_order_on_its_partition(site):
    """
    I3, I4.
    """
    assert await site.broker.partitions(site.topic) == 3
    assert site.broker.known_partitions(site.topic) == 3

    outcome = await site.broker.publish(site.topic, 1, [record(b"%d" % n) for n in range(50)])

    assert outcome == Acked()
    assert await site.consume(site.topic) == [(1, b"k", b"%d" % n) for n in range(50)]


async def test_a_tombstone_and_an_event_without_key_arrive_as_they_are(site):
    """
    A null is not an empty value, and no key is not an empty key.
    """
    await site.broker.partitions(site.topic)

    outcome = await site.broker.publish(site.topic, 0, [record(None), record(b"", key=None)])

    assert outcome == Acked()
    assert await site.consume(site.topic) == [(0, b"k", None), (0, None, b"")]


async def test_an_oversized_record_is_rejected_and_the_next_batch_is_acked(site):
    """
    I7. Nothing of it stays behind in the client.
    """
    await site.broker.partitions(site.topic)

    refused = await site.broker.publish(site.topic, 0, [record(b"x" * 1_000_000)])
    accepted = await site.broker.publish(site.topic, 0, [record(b"ok")])

    assert isinstance(refused, Rejected)
    assert refused.reason is RejectReason.TOO_LARGE
    assert accepted == Acked()


async def test_a_missing_topic_is_unavailable_and_can_be_made_later(site):
    """
    I8. Only on the broker's own answer.
    """
    with pytest.raises(TopicUnavailable, match="does not exist"):
        await site.broker.partitions(f"{site.topic}-later")

    await asyncio.to_thread(site.create, f"{site.topic}-later", 2)

    assert await site.broker.partitions(f"{site.topic}-later") == 2


async def test_publishing_to_a_topic_that_is_gone_is_unknown(site):
    """
    I2. Never rejected: the topic may come back.
    """
    outcome = await site.broker.publish(f"{site.topic}-never", 0, [record(b"x")])

    assert isinstance(outcome, Unknown)


async def test_a_broker_that_answers_says_so(site):
    """
    The probe behind the decision whether an outage is the partition's or everyone's.
    """
    assert await site.broker.probe()
