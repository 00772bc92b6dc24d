"""
The Kafka adapter against faults of a real broker.
"""

from __future__ import annotations

import asyncio

import pytest

from outbox_relay.brokers.kafka import KafkaBroker
from outbox_relay.brokers.options import KafkaOptions
from outbox_relay.errors import BrokerUnavailable
from outbox_relay.relay.outcomes import Acked, Fault, Rejected, RejectReason, Unknown
from outbox_relay.relay.ports import Record
from outbox_relay.testing import record


@pytest.fixture
async def broker(kafka):
    made = KafkaBroker(
        KafkaOptions(
            bootstrap_servers=kafka.bootstrap_servers,
            publish_deadline_seconds=3,
            request_timeout_seconds=1,
        )
    )
    yield made
    await made.close(timeout_seconds=1)


def records(*values: bytes, key: bytes | None = b"k") -> list[Record]:
    return [record(key, value) for value in values]


async def test_a_record_over_the_topics_limit_is_rejected_and_does_not_poison_its_partition(
    kafka, broker, topic_name
):
    """
    I7. aiokafka alone answers OutOfOrderSequenceNumber for ever after the first refusal.
    """
    kafka.create_topic(topic_name, config={"max.message.bytes": "1000"})
    await broker.partitions(topic_name)
    assert await broker.publish(topic_name, 0, records(b"first")) == Acked()

    refused = await broker.publish(topic_name, 0, records(b"x" * 5000))
    others = [await broker.publish(topic_name, 0, records(b"%d" % n)) for n in range(3)]

    assert isinstance(refused, Rejected)
    assert refused.reason is RejectReason.TOO_LARGE
    assert others == [Acked()] * 3
    assert [r.value for r in kafka.consume_all(topic_name)] == [b"first", b"0", b"1", b"2"]


async def test_no_record_is_left_out_of_a_batch_larger_than_one_event_may_be(kafka, topic_name):
    """
    I3. A batch is acked as a whole; its limit is `relay.batch_bytes`, not that of one event.
    """
    kafka.create_topic(topic_name)
    options = KafkaOptions(bootstrap_servers=kafka.bootstrap_servers, max_request_bytes=100_000)
    broker = KafkaBroker(options)
    values = [b"%05d" % n * 2000 for n in range(25)]
    try:
        await broker.partitions(topic_name)
        outcome = await broker.publish(topic_name, 0, records(*values))
    finally:
        await broker.close(timeout_seconds=1)

    assert outcome == Acked()
    assert [r.value for r in kafka.consume_all(topic_name)] == values


async def test_a_record_without_key_on_a_compacted_topic_is_rejected(kafka, broker, topic_name):
    """
    I7. INVALID_RECORD, which aiokafka does not know, is an answer and not an unknown outcome.
    """
    kafka.create_topic(topic_name, config={"cleanup.policy": "compact"})
    await broker.partitions(topic_name)

    refused = await broker.publish(topic_name, 0, records(b"x", key=None))

    assert isinstance(refused, Rejected)
    assert refused.reason is RejectReason.INVALID_RECORD
    assert await broker.publish(topic_name, 0, records(b"x")) == Acked()


async def test_a_frozen_broker_leaves_the_outcome_unknown_within_the_deadline(
    kafka, broker, topic_name
):
    """
    I3, I8. aiokafka's own future may stay pending for ever.
    """
    kafka.create_topic(topic_name)
    await broker.partitions(topic_name)
    await broker.publish(topic_name, 0, records(b"before"))
    kafka.freeze()

    outcome = await broker.publish(topic_name, 0, records(b"x"))
    answers = await broker.probe()
    kafka.thaw()

    assert isinstance(outcome, Unknown)
    assert outcome.fault is not Fault.TOPIC
    assert not answers
    assert await until_acked(broker, topic_name) == Acked()


async def test_a_dead_broker_is_found_again_on_its_return(kafka, broker, topic_name):
    """
    I8. Without a restart, and an unknown topic is never the answer meanwhile.
    """
    kafka.create_topic(topic_name)
    await broker.partitions(topic_name)
    kafka.kill()

    outcome = await broker.publish(topic_name, 0, records(b"x"))
    with pytest.raises(BrokerUnavailable):
        await broker.partitions("not-yet-known")
    await asyncio.to_thread(kafka.start)

    assert isinstance(outcome, Unknown)
    assert outcome.fault is not Fault.TOPIC
    assert await until_acked(broker, topic_name) == Acked()


async def until_acked(broker: KafkaBroker, topic: str):
    """What the relay does: publish again until there is an ack."""
    for _ in range(20):
        outcome = await broker.publish(topic, 0, records(b"again"))
        if outcome == Acked():
            return outcome
        await asyncio.sleep(0.2)
    return outcome


async def test_closing_fits_its_budget_while_the_broker_is_frozen(kafka, broker, topic_name):
    """
    I9. `AIOKafkaProducer.stop()` alone may never return.
    """
    kafka.create_topic(topic_name)
    await broker.partitions(topic_name)
    kafka.freeze()
    publishing = asyncio.create_task(broker.publish(topic_name, 0, records(b"x")))
    await asyncio.sleep(0)

    async with asyncio.timeout(3):
        await broker.close(timeout_seconds=1)

    publishing.cancel()
    kafka.thaw()


async def test_a_topic_made_anew_with_fewer_partitions_is_a_fault_of_the_topic(
    kafka, broker, topic_name
):
    """
    I7. Nothing is rejected: the topic is learnt anew.
    """
    kafka.create_topic(topic_name, partitions=3)
    await broker.partitions(topic_name)

    outcome = await broker.publish(topic_name, 7, records(b"x"))

    assert isinstance(outcome, Unknown)
    assert outcome.fault is Fault.TOPIC
