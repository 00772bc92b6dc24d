"""
A real quota: more is published than the broker takes, and nothing comes twice.
"""

from __future__ import annotations

import asyncio
from collections import Counter

from outbox_relay.brokers.kafka import KafkaBroker
from outbox_relay.brokers.options import KafkaOptions
from outbox_relay.relay.outcomes import Acked, Outcome, Unsent
from outbox_relay.testing import record
from tests.unit.throttled import Counting

PARTITIONS, ROUNDS, BATCH_BYTES = 4, 3, 60_000
BYTES_PER_SECOND = 30_000
"""Two rounds are one and a half times what the quota's window of ten seconds takes."""
DEADLINE_SECONDS = 1.5


async def drain(broker: KafkaBroker, topic: str, partition: int) -> Counter[Outcome]:
    """Publish each round as the relay does: until it is acked."""
    outcomes = Counter[Outcome]()
    for number in range(ROUNDS):
        value = b"%d-%d-" % (partition, number) + b"x" * BATCH_BYTES
        outcome: Outcome = Unsent()
        while outcome != Acked():
            outcome = await broker.publish(topic, partition, [record(b"k", value)])
            outcomes[outcome] += 1
    return outcomes


async def test_under_a_quota_nothing_is_unknown_and_nothing_comes_twice(kafka, topic_name):
    """
    I2, I8. The broker throttles for longer than a batch's deadline, and answers a probe meanwhile.
    """
    # Old by their timestamps, the records would be gone before they are counted.
    kafka.create_topic(topic_name, PARTITIONS, {"retention.ms": "-1"})
    await asyncio.to_thread(kafka.limit_client, topic_name, BYTES_PER_SECOND)
    watcher = Counting()
    options = KafkaOptions(
        bootstrap_servers=kafka.bootstrap_servers,
        client_id=topic_name,
        publish_deadline_seconds=DEADLINE_SECONDS,
        request_timeout_seconds=1.0,
    )
    broker = KafkaBroker(options, observer=watcher)
    try:
        await broker.partitions(topic_name)
        draining = [asyncio.create_task(drain(broker, topic_name, p)) for p in range(PARTITIONS)]
        async with asyncio.timeout(15):
            await watcher.begun.wait()
        answers = await broker.probe()
        outcomes = sum(await asyncio.gather(*draining), Counter[Outcome]())
    finally:
        await broker.close(timeout_seconds=1)

    values = Counter(r.value for r in kafka.consume_all(topic_name))
    assert answers
    assert watcher.throttled_seconds > DEADLINE_SECONDS
    assert set(outcomes) == {Acked(), Unsent()}
    assert outcomes[Acked()] == len(values) == values.total() == PARTITIONS * ROUNDS
    assert watcher.names() == ["broker_throttles"]
