"""
The AMQP adapter against what RabbitMQ does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from unittest.mock import AsyncMock

import aio_pika
import pytest
from aio_pika.abc import AbstractIncomingMessage

from outbox_relay.brokers.amqp import AmqpBroker
from outbox_relay.brokers.options import AmqpOptions
from outbox_relay.errors import BrokerUnavailable, TopicUnavailable
from outbox_relay.relay.outcomes import Acked, Fault, Outcome, Rejected, RejectReason, Unknown
from outbox_relay.relay.ports import Record
from outbox_relay.testing import Watcher
from outbox_relay.testing import record as make_record
from tests.contract.brokers import freeze
from tests.services.rabbitmq import RabbitMQ


@pytest.fixture
async def make_broker(rabbitmq: RabbitMQ) -> AsyncIterator[Callable[..., AmqpBroker]]:
    made: list[AmqpBroker] = []

    def make(**options: object) -> AmqpBroker:
        chosen = {
            "url": rabbitmq.url,
            "publish_deadline_seconds": 3.0,
            "request_timeout_seconds": 2.0,
            **options,
        }
        made.append(AmqpBroker(AmqpOptions(**chosen), observer=Watcher()))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for broker in made:
        await broker.close(timeout_seconds=1)


def record(value: bytes, key: bytes | None = b"k", seq: int = 1) -> Record:
    made = make_record(key, value, seq=seq, headers=(("ce_source", b"/shop"),))
    return made._replace(event_id=b"018f4e5a-1b2c-7d3e-8f40-%012d" % seq)


async def values(rabbitmq: RabbitMQ, queue: str) -> list[bytes]:
    return [m.body for m in await asyncio.to_thread(rabbitmq.messages, queue)]


async def test_a_message_is_persistent_and_says_what_it_is(
    rabbitmq: RabbitMQ, make_broker: Callable[..., AmqpBroker], topic_name: str
) -> None:
    """
    Properties of AMQP where it has them, the headers of CloudEvents beside.
    """
    await asyncio.to_thread(rabbitmq.declare_queue, topic_name)
    broker = make_broker()

    assert await broker.publish(topic_name, 0, [record(b"{}", key=b"\xff")]) == Acked()
    [message] = await asyncio.to_thread(rabbitmq.messages, topic_name)

    assert message.delivery_mode == 2
    assert message.message_id == "018f4e5a-1b2c-7d3e-8f40-000000000001"
    assert message.type == message.headers["ce_type"] == "order.placed"
    assert message.timestamp == 1_700_000_000
    assert message.headers["outbox-seq"] == "1"
    assert bytes(message.headers["outbox-key"]) == b"\xff"


async def test_exchange_and_routing_key_are_made_of_topic_event_and_key(
    rabbitmq: RabbitMQ, make_broker: Callable[..., AmqpBroker], topic_name: str
) -> None:
    """
    The mapping of the settings.
    """
    await asyncio.to_thread(rabbitmq.declare_exchange, f"x-{topic_name}")
    await asyncio.to_thread(
        rabbitmq.declare_queue, topic_name, exchange=f"x-{topic_name}", routing_key="#"
    )
    broker = make_broker(exchange="x-{topic}", routing_key="{event}.of.{key}.{topic}")

    assert await broker.partitions(topic_name) == 1
    assert await broker.publish(topic_name, 0, [record(b"{}", key=b"ann")]) == Acked()
    [message] = await asyncio.to_thread(rabbitmq.messages, topic_name)

    assert message.routing_key == f"order.placed.of.ann.{topic_name}"


async def test_a_routing_key_that_is_too_long_is_rejected(
    make_broker: Callable[..., AmqpBroker], topic_name: str
) -> None:
    """
    I7. AMQP has 255 bytes for it.
    """
    broker = make_broker(exchange="amq.topic", routing_key="{key}")

    outcome = await broker.publish(topic_name, 0, [record(b"{}", key=b"k" * 256)])

    assert isinstance(outcome, Rejected)
    assert outcome.reason is RejectReason.INVALID_RECORD


async def test_what_no_queue_takes_is_rejected_or_waits(
    rabbitmq: RabbitMQ, make_broker: Callable[..., AmqpBroker], topic_name: str
) -> None:
    """
    I2, I7. By the setting; nothing of it is lost in silence.
    """
    await asyncio.to_thread(rabbitmq.declare_exchange, topic_name)
    rejecting = make_broker(exchange="{topic}")
    pausing = make_broker(exchange="{topic}", unroutable="pause")
    batch = [record(b"a", seq=1), record(b"b", key=b"l", seq=2)]

    refused = await rejecting.publish(topic_name, 0, batch)
    waiting = await pausing.publish(topic_name, 0, batch)
    await asyncio.to_thread(
        rabbitmq.declare_queue, topic_name, exchange=topic_name, routing_key=topic_name
    )

    assert isinstance(refused, Rejected)
    assert refused.reason is RejectReason.UNROUTABLE
    assert isinstance(waiting, Unknown)
    assert waiting.fault is Fault.TOPIC
    assert await pausing.publish(topic_name, 0, batch) == Acked()
    assert await values(rabbitmq, topic_name) == [b"a", b"b"]


async def test_a_missing_exchange_holds_up_its_own_topic_alone(
    rabbitmq: RabbitMQ, make_broker: Callable[..., AmqpBroker], topic_name: str
) -> None:
    """
    I7. The server closes the channel over it; the batch of another topic under way is acked.
    """
    await asyncio.to_thread(rabbitmq.declare_exchange, f"{topic_name}-there")
    queue = f"{topic_name}-q"
    await asyncio.to_thread(
        rabbitmq.declare_queue, queue, exchange=f"{topic_name}-there", routing_key="#"
    )
    broker = make_broker(exchange="{topic}")
    batch = [record(b"%d" % n, key=b"%d" % n, seq=n) for n in range(50)]

    with pytest.raises(TopicUnavailable, match="does not exist: declare it"):
        await broker.partitions(f"{topic_name}-absent")
    lost, stored = await asyncio.gather(
        broker.publish(f"{topic_name}-absent", 0, batch),
        broker.publish(f"{topic_name}-there", 0, batch),
    )

    assert isinstance(lost, Unknown)
    assert lost.fault is Fault.TOPIC
    assert "NOT_FOUND (404)" in lost.detail
    assert stored == Acked()


async def test_a_full_queue_lets_no_record_overtake_another_of_its_key(
    rabbitmq: RabbitMQ, make_broker: Callable[..., AmqpBroker], topic_name: str
) -> None:
    """
    I4. A queue that refuses while it is full (reject-publish) takes the next one when a consumer made
    room: what follows a refused record of the same key must not be under way then.
    """
    limits = {"x-max-length": 1, "x-overflow": "reject-publish"}
    await asyncio.to_thread(rabbitmq.declare_queue, topic_name, arguments=limits)
    broker = make_broker()
    batch = [record(b"%d" % n, seq=n) for n in range(100)]
    seen: list[bytes] = []
    outcome: Outcome | None = None

    async with asyncio.timeout(60), await aio_pika.connect(rabbitmq.url) as connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=1)
        queue = await channel.get_queue(topic_name)

        async def consume(message: AbstractIncomingMessage) -> None:
            seen.append(message.body)
            await message.ack()

        await queue.consume(consume)
        while not isinstance(outcome, Acked):
            outcome = await broker.publish(topic_name, 0, batch)
        while len(set(seen)) < len(batch):
            await asyncio.sleep(0)

    assert list(dict.fromkeys(seen)) == [b"%d" % n for n in range(100)]


async def test_what_is_confirmed_of_a_batch_is_not_published_again_with_the_rest(
    rabbitmq: RabbitMQ, make_broker: Callable[..., AmqpBroker], topic_name: str
) -> None:
    """
    I6. A record that nobody takes makes the relay split its batch; the others are there once.
    """
    await asyncio.to_thread(
        rabbitmq.declare_queue, topic_name, exchange="amq.topic", routing_key=f"{topic_name}.good"
    )
    broker = make_broker(exchange="amq.topic", routing_key="{topic}.{key}")
    batch = [record(b"%d" % n, key=b"good", seq=n) for n in range(4)]
    batch.insert(2, record(b"bad", key=b"bad", seq=9))

    whole = await broker.publish(topic_name, 0, batch)
    halves = [await broker.publish(topic_name, 0, part) for part in (batch[:2], batch[2:])]
    quarters = [await broker.publish(topic_name, 0, part) for part in (batch[2:3], batch[3:])]

    assert isinstance(whole, Rejected)
    assert [type(outcome) for outcome in halves] == [Acked, Rejected]
    assert [type(outcome) for outcome in quarters] == [Rejected, Acked]
    assert await values(rabbitmq, topic_name) == [b"0", b"1", b"2", b"3"]


async def test_a_record_that_cannot_be_encoded_is_rejected_alone(
    rabbitmq: RabbitMQ, make_broker: Callable[..., AmqpBroker], topic_name: str
) -> None:
    """
    I7. A header's name longer than AMQP has room for, and headers that no frame holds.
    """
    await asyncio.to_thread(rabbitmq.declare_queue, topic_name)
    broker = make_broker()
    long_name = make_record(b"k", b"x", headers=(("n" * 300, b"x"),))
    long_value = make_record(b"k", b"x", headers=(("n", b"x" * 130_000),))

    outcomes = [await broker.publish(topic_name, 0, [r]) for r in (long_name, long_value)]

    assert [type(outcome) for outcome in outcomes] == [Rejected, Rejected]
    assert await broker.publish(topic_name, 0, [record(b"ok")]) == Acked()


async def test_a_wrong_password_is_said_and_the_right_one_is_read_again(
    rabbitmq: RabbitMQ, make_broker: Callable[..., AmqpBroker], topic_name: str, tmp_path: Path
) -> None:
    """
    I8, I11. Everything waits; no text holds the password.
    """
    await asyncio.to_thread(rabbitmq.declare_queue, topic_name)
    secret = tmp_path / "password"
    secret.write_text("canary-wrong\n")
    url = rabbitmq.url.replace("ob:ob@", "ob@")
    broker = make_broker(url=url, password_file=str(secret))

    with pytest.raises(BrokerUnavailable, match=r"ACCESS_REFUSED \(403\)") as raised:
        await broker.partitions(topic_name)
    outcome = await broker.publish(topic_name, 0, [record(b"x")])
    answers = await broker.probe()
    secret.write_text("ob\n")

    assert "canary" not in f"{raised.value}{outcome}"
    assert isinstance(outcome, Unknown)
    assert outcome.fault is Fault.BROKER
    assert not answers
    assert await broker.probe()
    assert await broker.publish(topic_name, 0, [record(b"x")]) == Acked()


async def test_a_server_without_memory_is_not_taken_for_one_that_answers(
    rabbitmq: RabbitMQ, make_broker: Callable[..., AmqpBroker], topic_name: str
) -> None:
    """
    I8. It blocks connections that publish: everything waits until it has room again.
    """
    await asyncio.to_thread(rabbitmq.declare_queue, topic_name)
    broker = make_broker(publish_deadline_seconds=1.5, request_timeout_seconds=1.0)
    assert await broker.publish(topic_name, 0, [record(b"before", seq=1)]) == Acked()
    try:
        await asyncio.to_thread(
            rabbitmq.control, "set_vm_memory_high_watermark", "absolute", "1000"
        )
        async with asyncio.timeout(20):
            while isinstance(await broker.publish(topic_name, 0, [record(b"x", seq=2)]), Acked):
                pass
        answers = [await broker.probe() for _ in range(3)]
    finally:
        await asyncio.to_thread(rabbitmq.control, "set_vm_memory_high_watermark", "0.4")

    assert answers == [False] * 3
    async with asyncio.timeout(20):
        while not await broker.probe():
            await asyncio.sleep(0.05)
    assert await broker.publish(topic_name, 0, [record(b"after", seq=3)]) == Acked()


async def test_a_connection_that_is_given_up_ends_nobody_who_uses_it(
    rabbitmq: RabbitMQ, make_broker: Callable[..., AmqpBroker], topic_name: str
) -> None:
    """
    I2, I3, I4. A question without an answer closes the connection, and aiormq cancels what waits on it:
    the batches of other topics are unknown, on a channel that is being opened as on one that waits for
    its confirms. A CancelledError would end their tracks, with rows neither published nor dropped.
    """
    proven, new = f"{topic_name}-proven", f"{topic_name}-new"
    for queue in (proven, new):
        await asyncio.to_thread(rabbitmq.declare_queue, queue)
    broker = make_broker(publish_deadline_seconds=20.0, request_timeout_seconds=1.0)
    assert await broker.publish(proven, 0, [record(b"x")]) == Acked()
    await freeze(rabbitmq)

    under_way = [broker.publish(topic, 0, [record(b"y", seq=2)]) for topic in (proven, new)]
    asking = broker.partitions(f"{topic_name}-other")
    *outcomes, answer = await asyncio.gather(*under_way, asking, return_exceptions=True)
    rabbitmq.thaw()

    assert [type(outcome) for outcome in outcomes] == [Unknown, Unknown]
    assert isinstance(answer, BrokerUnavailable)


async def test_an_answer_that_makes_no_sense_rejects_nothing(
    rabbitmq: RabbitMQ,
    make_broker: Callable[..., AmqpBroker],
    topic_name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    I2, I7. aiormq raises a ValueError at all who wait on a channel whose frames are garbled, as it does
    where a message cannot be put into frames. Only the latter is the record's fault.
    """
    await asyncio.to_thread(rabbitmq.declare_queue, topic_name)
    broker = make_broker()
    never = record(b"x")._replace(timestamp_ms=2**70)

    assert isinstance(await broker.publish(topic_name, 0, [never]), Rejected)
    with monkeypatch.context() as patched:
        garbled = AsyncMock(side_effect=ValueError("Unexpected frame"))
        patched.setattr(aio_pika.Exchange, "publish", garbled)
        assert isinstance(await broker.publish(topic_name, 0, [record(b"x")]), Unknown)
    assert await broker.publish(topic_name, 0, [record(b"x")]) == Acked()
