"""
I7 on three brokers: what is wrong with one topic holds up that topic.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from outbox_relay.brokers.kafka import KafkaBroker
from outbox_relay.brokers.kafka_client import SLOW_SECONDS
from outbox_relay.brokers.options import KafkaOptions
from outbox_relay.relay.outcomes import Acked, Fault, Outcome, Unknown
from outbox_relay.testing import Watcher, record
from tests.services.kafka_cluster import KafkaCluster

HEALTHY, SICK = "healthy", "sick"


@pytest.fixture
def topics(kafka_cluster: KafkaCluster, topic_name: str) -> Iterator[dict[str, str]]:
    """
    Both are led by the first broker. The sick one needs the second broker too; the healthy one does
    not know it.
    """
    names = {HEALTHY: f"{topic_name}-healthy", SICK: f"{topic_name}-sick"}
    kafka_cluster.create_topic(names[HEALTHY], replication=[[1, 3]] * 3)
    kafka_cluster.create_topic(
        names[SICK], replication=[[1, 2]], config={"min.insync.replicas": "2"}
    )
    yield names
    for name in names.values():
        with contextlib.suppress(Exception):
            kafka_cluster.delete_topic(name)


@pytest.fixture
def watcher() -> Watcher:
    return Watcher()


@pytest.fixture
async def broker(kafka_cluster: KafkaCluster, watcher: Watcher) -> AsyncIterator[KafkaBroker]:
    made = KafkaBroker(
        KafkaOptions(bootstrap_servers=kafka_cluster.bootstrap_servers), observer=watcher
    )
    yield made
    await made.close(timeout_seconds=2)


async def publish(broker: KafkaBroker, topic: str, value: bytes, partition: int = 0) -> Outcome:
    return await broker.publish(topic, partition, [record(b"k", value)])


async def until(what: Callable[[], bool], limit: float = 20.0) -> None:
    async with asyncio.timeout(limit):
        while not what():
            await asyncio.sleep(0.01)


class Traffic:
    """Batches on every partition of the healthy topic, one after another; how long each took."""

    def __init__(self, broker: KafkaBroker, topic: str) -> None:
        self._broker = broker
        self._topic = topic
        self.seconds: list[float] = []
        self.failed: list[Outcome] = []

    async def _run(self, partition: int) -> None:
        while True:
            started = time.monotonic()
            outcome = await publish(self._broker, self._topic, b"x", partition)
            self.seconds.append(time.monotonic() - started)
            if outcome != Acked():
                self.failed.append(outcome)
            await asyncio.sleep(0.005)

    @contextlib.asynccontextmanager
    async def flowing(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self._run(partition)) for partition in range(3)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.alone
async def test_too_few_replicas_of_one_topic_do_not_delay_another(
    kafka_cluster, topics, broker, watcher
):
    """
    aiokafka alone sleeps its backoff, 100 ms, with the whole broker held up. The trouble is told by its
    name, before the deadline, and the main producer stays.
    """
    for topic in topics.values():
        await broker.partitions(topic)
    assert await publish(broker, topics[SICK], b"before") == Acked()
    assert await publish(broker, topics[HEALTHY], b"before") == Acked()
    main = broker._client
    await asyncio.to_thread(kafka_cluster.brokers[1].kill)
    await asyncio.to_thread(kafka_cluster.wait_until_in_sync, topics[SICK], replicas=1)
    traffic = Traffic(broker, topics[HEALTHY])
    async with traffic.flowing():
        started = time.monotonic()
        outcomes = [await publish(broker, topics[SICK], b"again")]
        beside_main = sorted(traffic.seconds)
        outcomes += [await publish(broker, topics[SICK], b"again") for _ in range(2)]
        took = time.monotonic() - started

    assert [o.fault for o in outcomes if isinstance(o, Unknown)] == [Fault.PARTITION] * 3
    assert all("NOT_ENOUGH_REPLICAS (19)" in o.detail for o in outcomes)
    assert took < 9
    assert traffic.failed == []
    assert beside_main[len(beside_main) // 2] < 0.08
    assert broker._client is main

    await asyncio.to_thread(kafka_cluster.brokers[1].start)
    await asyncio.to_thread(kafka_cluster.wait_until_in_sync, topics[SICK], replicas=2)

    assert await publish(broker, topics[SICK], b"after") == Acked()
    assert "partition_well" in watcher.names()
    values = [r.value for r in await asyncio.to_thread(kafka_cluster.consume_all, topics[SICK])]
    assert values == [b"before", b"after"]


async def test_a_partition_that_is_well_again_goes_back_to_a_new_main_producer(
    kafka_cluster, topics, broker, watcher
):
    """
    Its numbers in the old one have a gap. Healthy batches settle before that is closed.
    """
    for topic in topics.values():
        await broker.partitions(topic)
    main = broker._client
    await asyncio.to_thread(kafka_cluster.brokers[1].kill)
    await asyncio.to_thread(kafka_cluster.wait_until_in_sync, topics[SICK], replicas=1)
    assert isinstance(await publish(broker, topics[SICK], b"lost"), Unknown)
    await asyncio.to_thread(kafka_cluster.brokers[1].start)
    await asyncio.to_thread(kafka_cluster.wait_until_in_sync, topics[SICK], replicas=2)

    traffic = Traffic(broker, topics[HEALTHY])
    async with traffic.flowing():
        by_quarantine = await publish(broker, topics[SICK], b"0")
        later = await publish(broker, topics[SICK], b"1")
        await until(lambda: broker._client is not main)
        back = await publish(broker, topics[SICK], b"2")
    records = await asyncio.to_thread(kafka_cluster.consume_all, topics[SICK])

    assert [by_quarantine, later, back] == [Acked()] * 3
    assert traffic.failed == []
    assert [r.value for r in records] == [b"0", b"1", b"2"]
    assert broker._sick == set()
    assert ("producer_rebuilt", {"reason": "healed"}) in watcher.events


async def test_a_slow_replica_of_one_topic_lets_the_others_go_another_way(
    kafka_cluster, topics, broker, watcher
):
    """
    A request has no answer while one of its partitions waits for a replica, and a broker answers one
    after the other on each connection. The next request takes another one.
    """
    for topic in topics.values():
        await broker.partitions(topic)
        await publish(broker, topic, b"before")
    kafka_cluster.brokers[1].freeze()
    sick = asyncio.create_task(publish(broker, topics[SICK], b"slow"))
    await asyncio.sleep(0.05)

    started = time.monotonic()
    outcomes = [await publish(broker, topics[HEALTHY], b"%d" % n) for n in range(10)]
    took = time.monotonic() - started
    kafka_cluster.brokers[1].thaw()

    assert outcomes == [Acked()] * 10
    assert took < SLOW_SECONDS + 1
    assert isinstance(await sick, Acked | Unknown)


async def test_a_topic_that_is_deleted_is_a_fault_of_the_topic(kafka_cluster, topics, broker):
    """
    Its name is told before the deadline, and only its rows wait.
    """
    for topic in topics.values():
        await broker.partitions(topic)
        await publish(broker, topic, b"before")
    await asyncio.to_thread(kafka_cluster.delete_topic, topics[SICK])

    traffic = Traffic(broker, topics[HEALTHY])
    async with traffic.flowing():
        outcome = await publish(broker, topics[SICK], b"x")

    assert isinstance(outcome, Unknown)
    assert outcome.fault is Fault.TOPIC
    assert traffic.failed == []


async def test_a_batch_whose_deadline_has_passed_is_not_stored_later(
    kafka_cluster, topic_name, watcher
):
    """
    I4, I6. Else an old copy would come long after its repetition.
    """
    kafka_cluster.create_topic(topic_name, replication=[[2]])
    broker = KafkaBroker(
        KafkaOptions(
            bootstrap_servers=kafka_cluster.bootstrap_servers,
            publish_deadline_seconds=3,
            request_timeout_seconds=2,
        ),
        observer=watcher,
    )
    try:
        await broker.partitions(topic_name)
        while await publish(broker, topic_name, b"before") != Acked():
            pass
        await asyncio.to_thread(kafka_cluster.brokers[1].kill)
        late = await publish(broker, topic_name, b"late")
        await asyncio.to_thread(kafka_cluster.brokers[1].start)
        await asyncio.to_thread(kafka_cluster.wait_until_in_sync, topic_name, replicas=1)
        await asyncio.sleep(1)
        records = await asyncio.to_thread(kafka_cluster.consume_all, topic_name)
    finally:
        await broker.close(timeout_seconds=2)

    assert isinstance(late, Unknown)
    assert {r.value for r in records} == {b"before"}


async def test_a_topic_that_refuses_our_timestamps_is_a_fault_of_the_topic(
    kafka_cluster, topics, broker
):
    """
    One wrong clock must not fill the dead letters; what is mended goes on.
    """
    sick = topics[SICK]
    await broker.partitions(sick)
    limit = {"min.insync.replicas": "2", "message.timestamp.before.max.ms": "1000"}
    await asyncio.to_thread(kafka_cluster.set_topic_config, sick, limit)
    outcome: Outcome = Acked()
    while outcome == Acked():  # until the broker has heard of it
        outcome = await publish(broker, sick, b"old")
    await asyncio.to_thread(kafka_cluster.set_topic_config, sick, {"min.insync.replicas": "2"})
    later: Outcome = outcome
    async with asyncio.timeout(20):
        while later != Acked():
            later = await publish(broker, sick, b"new")

    assert isinstance(outcome, Unknown)
    assert outcome.fault is Fault.TOPIC
    assert "INVALID_TIMESTAMP (32)" in outcome.detail
