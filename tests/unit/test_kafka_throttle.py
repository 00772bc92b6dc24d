"""
A broker that throttles is sent nothing until it is over, and nothing becomes unknown for it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.structs import TopicPartition

from outbox_relay.brokers import kafka_throttle
from outbox_relay.brokers.kafka import KafkaBroker
from outbox_relay.brokers.kafka_client import SLOW_SECONDS, Client
from outbox_relay.brokers.kafka_throttle import (
    FIRST_VERSION,
    MOST_THROTTLE_SECONDS,
    TOLD_EVERY_SECONDS,
    Throttles,
)
from outbox_relay.brokers.options import KafkaOptions
from outbox_relay.relay.outcomes import Acked, Outcome, Unknown, Unsent
from outbox_relay.testing import record
from tests.unit.throttled import Cluster, Counting

NO_LEADER, TIMED_OUT = 5, 7
LONG = 60_000
SHORT = 150


@pytest.fixture
def cluster() -> Cluster:
    return Cluster({0: 1, 1: 1, 2: 2})


@pytest.fixture
def watcher() -> Counting:
    return Counting()


@pytest.fixture(params=[True, False], ids=["idempotent", "plain"])
async def broker(cluster, watcher, monkeypatch, request) -> AsyncIterator[KafkaBroker]:
    options = KafkaOptions(
        bootstrap_servers="nowhere:1",
        publish_deadline_seconds=0.5,
        request_timeout_seconds=0.3,
        idempotent=request.param,
    )
    monkeypatch.setattr(kafka_throttle, "REST_SECONDS", 0.1)
    made = KafkaBroker(options, observer=watcher)

    async def start() -> Client:
        client = Client(options, {}, made._throttles)
        cluster.join(client, monkeypatch)
        if request.param:
            client.sender._txn_manager.set_pid_and_epoch(1, 0)
        await client.sender.start()
        return client

    monkeypatch.setattr(made, "_start", start)
    await made._started()
    yield made
    await asyncio.gather(*made._retiring)
    await made.close(timeout_seconds=1)


def publish(broker: KafkaBroker, partition: int) -> asyncio.Task[Outcome]:
    return asyncio.create_task(broker.publish("t", partition, [record(b"k", b"v")]))


async def as_the_relay_does(broker: KafkaBroker, partition: int) -> tuple[Outcome, int]:
    """Again while it stays unsent; how often."""
    unsent = 0
    while True:
        outcome = await publish(broker, partition)
        if outcome != Unsent():
            return outcome, unsent
        unsent += 1


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not what():
            await asyncio.sleep(0)


async def throttled(broker: KafkaBroker, cluster: Cluster, milliseconds: int) -> None:
    """Publish to the first broker, which throttles from then on."""
    cluster.says(1, milliseconds).set()
    assert await publish(broker, 0) == Acked()


# What a broker says


def test_how_long_a_broker_throttles_is_counted_once_and_said_once_a_minute(watcher):
    """
    Answers on several connections overlap: their seconds are not added up.
    """
    now = [100.0]
    throttles = Throttles(watcher, clock=lambda: now[0])

    throttles.begin(1, 2_000)
    now[0] += 1
    throttles.begin(1, 3_000)
    throttles.begin(1, 1_000)
    throttles.begin(2, 500)
    left = [throttles.left(node) for node in (1, 2, 3, None)]
    now[0] += TOLD_EVERY_SECONDS
    over = throttles.left(1)
    throttles.begin(1, 1_000)

    assert left == [3.0, 0.5, 0.0, 0.0]
    assert over == 0.0
    assert watcher.throttled_seconds == 4.0 + 0.5 + 1.0
    assert watcher.events == [
        ("broker_throttles", {"node": 1, "seconds": 2.0}),
        ("broker_throttles", {"node": 2, "seconds": 0.5}),
        ("broker_throttles", {"node": 1, "seconds": 1.0}),
    ]


def test_a_value_that_cannot_be_meant_does_not_stop_the_relay(watcher):
    """
    The largest number there is room for is 24 days.
    """
    throttles = Throttles(watcher, clock=lambda: 0.0)

    assert throttles.begin(1, 2**31 - 1) == MOST_THROTTLE_SECONDS
    assert throttles.left(1) == MOST_THROTTLE_SECONDS


@pytest.mark.parametrize(
    ("version", "milliseconds"),
    [(FIRST_VERSION, 0), (FIRST_VERSION, -5), (FIRST_VERSION - 1, LONG)],
)
async def test_an_answer_that_asks_for_nothing_holds_nothing_up(
    broker, cluster, watcher, version, milliseconds
):
    """
    A broker before Kafka 2.0 has waited itself before it answered.
    """
    cluster.version = version
    await throttled(broker, cluster, milliseconds)

    assert await publish(broker, 0) == Acked()
    assert watcher.events == []


# What is not sent


async def test_nothing_is_sent_before_the_throttle_is_over(broker, cluster, watcher):
    """
    Neither what waited in the queue when the answer came, nor what comes later; all of it in one request.
    """
    told = cluster.says(1, SHORT)
    first = publish(broker, 0)
    await until(lambda: len(cluster.sent) == 1)
    queued = asyncio.create_task(as_the_relay_does(broker, 1))
    await asyncio.sleep(0)
    told.set()
    assert await first == Acked()
    over = time.monotonic() + SHORT / 1000

    later = asyncio.create_task(as_the_relay_does(broker, 0))

    assert (await queued)[0] == (await later)[0] == Acked()
    assert [(node, sorted(numbers)) for node, numbers in cluster.sent] == [(1, [0]), (1, [0, 1])]
    assert cluster.at[1] >= over - 0.02
    assert watcher.names() == ["broker_throttles"]


async def test_a_throttle_longer_than_every_deadline_leaves_nothing_unknown(
    broker, cluster, watcher
):
    """
    I5. The outcome is `Unsent` in time, so that the relay looks at its lease; nothing is quarantined.
    """
    await throttled(broker, cluster, LONG)

    outcomes = [await publish(broker, number) for number in (0, 1, 0)]

    assert outcomes == [Unsent()] * 3
    assert cluster.sent == [(1, [0])]
    assert watcher.names() == ["broker_throttles"]


async def test_other_brokers_are_not_held_up(broker, cluster):
    """
    I7. Only that broker is sent nothing.
    """
    await throttled(broker, cluster, LONG)

    assert await publish(broker, 2) == Acked()


async def test_a_partition_whose_leader_moves_does_not_wait_for_the_old_one(broker, cluster):
    """
    I7. The throttle is the broker's, not the partition's.
    """
    await throttled(broker, cluster, LONG)
    cluster.leaders[0] = 2

    assert await publish(broker, 0) == Acked()
    assert cluster.sent[-1] == (2, [0])


async def test_a_batch_that_is_cancelled_while_it_waits_is_never_sent(broker, cluster):
    """
    I5. The stop's budget is spent, or the term is over.
    """
    await throttled(broker, cluster, SHORT)
    waiting = publish(broker, 0)
    await asyncio.sleep(0)

    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await broker._throttles.over(1)
    assert await publish(broker, 1) == Acked()

    assert cluster.sent == [(1, [0]), (1, [1])]


async def test_closing_does_not_wait_for_a_throttle(broker, cluster):
    """
    I10. However long it is, also for a request that was about to be sent.
    """
    await throttled(broker, cluster, LONG)
    client = broker._client
    client._spawn(client._request(1, {}))
    await asyncio.sleep(0)
    started = time.monotonic()

    await broker.close(timeout_seconds=5)

    assert time.monotonic() - started < 1
    assert client._later == set()
    assert not broker._throttles.listeners


# What was about to be sent


async def test_a_batch_that_has_its_numbers_waits_and_goes_with_them(broker, cluster, watcher):
    """
    The answer that throttles came on another connection, just then. It is not taken for a slow one.
    """
    client = broker._client
    real = client.sender._send_produce_req

    async def after_another_answer(node_id: int, batches: Any) -> None:
        broker._throttles.begin(node_id, int(1000 * SLOW_SECONDS) + 50)
        client.sender._send_produce_req = real
        await real(node_id, batches)

    client.sender._send_produce_req = after_another_answer

    assert await publish(broker, 0) == Acked()
    assert client._slow == set()
    assert client.burnt == set()
    assert client._troubles == {}


async def test_a_batch_with_numbers_that_stays_unsent_is_not_unknown(broker, cluster, watcher):
    """
    I2. Its numbers are used up: the partition goes by another producer, and is not in quarantine.
    """
    client = broker._client
    real = client.sender._send_produce_req

    async def after_another_answer(node_id: int, batches: Any) -> None:
        broker._throttles.begin(node_id, 700)
        client.sender._send_produce_req = real
        await real(node_id, batches)

    client.sender._send_produce_req = after_another_answer

    assert await publish(broker, 0) == Unsent()
    assert client.burnt == {TopicPartition("t", 0)}
    outcome, _ = await as_the_relay_does(broker, 0)
    await client._throttles.over(1)

    assert outcome == Acked()
    assert [numbers for _, numbers in cluster.sent] == [[0]]
    assert "partition_quarantined" not in watcher.names()


async def test_a_refused_batch_whose_new_leader_throttles_is_unsent(broker, cluster, watcher):
    """
    I2. Nothing of it is stored, and nobody can say that it is.
    """
    broker._throttles.begin(2, LONG)
    told = cluster.says(1, error=NO_LEADER)
    waiting = publish(broker, 0)
    await until(lambda: len(cluster.sent) == 1)
    cluster.leaders[0] = 2
    told.set()

    assert await waiting == Unsent()
    assert cluster.sent == [(1, [0])]
    assert "partition_quarantined" not in watcher.names()


async def test_a_batch_that_may_be_stored_is_repeated_after_the_throttle_by_its_producer(
    broker, cluster, watcher
):
    """
    I4. Only so the broker drops the second copy.
    """
    told = cluster.says(1, SHORT, error=TIMED_OUT)
    told.set()

    assert await publish(broker, 0) == Acked()
    assert cluster.at[1] - cluster.at[0] >= SHORT / 1000 - 0.02
    assert watcher.names() == ["broker_throttles"]


async def test_one_that_may_be_stored_and_cannot_be_repeated_in_time_is_unknown(broker, cluster):
    """
    I3. That is the truth about it.
    """
    cluster.says(1, LONG, error=TIMED_OUT).set()

    assert isinstance(await publish(broker, 0), Unknown)
    assert cluster.sent == [(1, [0])]


async def test_a_producer_with_a_gap_in_its_numbers_is_given_up(broker, cluster, watcher):
    """
    I7. The next batch of that partition would be refused.
    """
    tp = TopicPartition("t", 0)
    other = await broker._quarantine()
    other.burnt.add(tp)

    broker._failed(other, tp, Unsent())

    assert broker._quarantines == []
    assert watcher.names() == ["producer_rebuilt"]


# Requests but ours


@pytest.mark.parametrize(("milliseconds", "left"), [(100, 1), (LONG, 0)])
async def test_a_connection_that_is_not_read_for_long_is_left(broker, cluster, milliseconds, left):
    """
    I8. A request for metadata would lie there too, and a broker that is well seem to be away.
    """
    closed = []
    client = broker._client
    connections = client.producer.client._conns
    connections[(1, "DEFAULT")] = SimpleNamespace(close=lambda: closed.append(1))

    client.throttled(1, milliseconds, "DEFAULT")
    client.throttled(1, milliseconds, "another")

    assert (len(connections), len(closed)) == (left, 1 - left)
    connections.clear()


@pytest.mark.parametrize(("answers", "expected"), [([False, True], True), ([False, False], False)])
async def test_a_probe_whose_connection_is_left_asks_once_more(
    broker, monkeypatch, answers, expected
):
    """
    I8. Else all producers would be given up, and the relay wait for a broker that is well.
    """

    async def update() -> bool:
        return left.pop(0)

    left = list(answers)
    metadata = broker._client.producer.client
    monkeypatch.setattr(metadata, "force_metadata_update", update)

    assert await broker.probe() is expected
    assert left == []
