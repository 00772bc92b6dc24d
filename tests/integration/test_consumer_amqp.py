"""
`EventConsumer` on a real RabbitMQ: acks after handling, dead letters, connections that break.
"""

from __future__ import annotations

import asyncio
import threading
import uuid
from typing import Any

import aio_pika
import aiormq
import pytest
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from structlog.testing import capture_logs

from outbox_relay.consumer import AmqpSource, ConsumedRecord, EventConsumer, Inbox, amqp
from tests.contract.brokers import freeze
from tests.integration.consuming import Program, cancelled_in_its_handler, running, until
from tests.services.database import Database
from tests.services.rabbitmq import Message, RabbitMQ


@pytest.fixture
def queue(rabbitmq: RabbitMQ, topic_name: str) -> str:
    """A durable queue and another one for its dead letters."""
    rabbitmq.declare_queue(topic_name)
    rabbitmq.declare_queue(f"{topic_name}-dead")
    return topic_name


async def publish(rabbitmq: RabbitMQ, queue: str, *numbers: int) -> None:
    """Events with the given numbers, as CloudEvents in headers; the same number is the same event."""
    connection = await aio_pika.connect(rabbitmq.url)
    async with connection, connection.channel() as channel:
        for number in numbers:
            message = aio_pika.Message(
                b'{"number": %d}' % number,
                headers={
                    "ce_specversion": "1.0",
                    "ce_id": str(uuid.UUID(int=number)),
                    "ce_type": "counted",
                },
                content_type="application/json",
                delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            )
            await channel.default_exchange.publish(message, queue)


def source(rabbitmq: RabbitMQ, queue: str, **changed: Any) -> AmqpSource:
    """The queue, with dead letters."""
    given: dict[str, Any] = {
        "dead_letter_exchange": "",
        "dead_letter_routing_key": f"{queue}-dead",
        **changed,
    }
    return AmqpSource(queue, url=rabbitmq.url, **given)


async def waiting(rabbitmq: RabbitMQ, queue: str) -> list[bytes]:
    """The bodies that are in *queue*."""
    return [found.body for found in await asyncio.to_thread(rabbitmq.messages, queue)]


async def test_messages_are_handled_in_order_and_acked(rabbitmq: RabbitMQ, queue: str) -> None:
    """
    A failure is repeated before those behind it; in the end the queue is empty.
    """
    await publish(rabbitmq, queue, 0, 1, 2)
    handled, failures = [], [ValueError()]

    async def handle(record: ConsumedRecord) -> None:
        if record.payload["number"] == 1 and failures:
            raise failures.pop()
        handled.append(record.payload["number"])

    async with running(source(rabbitmq, queue), handle):
        await until(lambda: len(handled) == 3)

    assert handled == [0, 1, 2]
    assert await waiting(rabbitmq, queue) == []


async def test_a_message_is_acked_only_after_its_handler(rabbitmq: RabbitMQ, queue: str) -> None:
    """
    Cancelled in the middle, it is the broker's again, and so are those that were prefetched.
    """
    await publish(rabbitmq, queue, 0, 1)
    began = asyncio.Event()

    async def stuck(record: ConsumedRecord) -> None:
        began.set()
        await asyncio.Event().wait()

    async with running(source(rabbitmq, queue), stuck, stop_seconds=0.1):
        await began.wait()

    assert await waiting(rabbitmq, queue) == [b'{"number": 0}', b'{"number": 1}']


async def test_stopping_finishes_what_is_in_work(rabbitmq: RabbitMQ, queue: str) -> None:
    """
    The handler at work ends and is acked; what was prefetched goes back.
    """
    await publish(rabbitmq, queue, 0, 1)
    began, gate, handled = asyncio.Event(), asyncio.Event(), []

    async def slow(record: ConsumedRecord) -> None:
        began.set()
        await gate.wait()
        handled.append(record.payload["number"])

    async with running(source(rabbitmq, queue), slow) as consumer:
        await began.wait()
        consumer.stop()
        await asyncio.sleep(0.1)  # it is not cut off meanwhile
        gate.set()

    assert handled == [0]
    assert await waiting(rabbitmq, queue) == [b'{"number": 1}']


async def test_a_poison_message_goes_to_the_dead_letters(rabbitmq: RabbitMQ, queue: str) -> None:
    """
    Durable, with the headers that it had and the reason; then it is acked.
    """
    await publish(rabbitmq, queue, 7, 8)
    handled = []

    async def handle(record: ConsumedRecord) -> None:
        if record.payload["number"] == 7:
            raise ValueError("no")
        handled.append(record.payload["number"])

    async with running(source(rabbitmq, queue), handle):
        await until(lambda: handled == [8])

    [dead] = await asyncio.to_thread(rabbitmq.messages, f"{queue}-dead")
    assert (dead.body, dead.content_type, dead.delivery_mode) == (
        b'{"number": 7}',
        "application/json",
        2,
    )
    assert dead.headers["ce_id"] == str(uuid.UUID(int=7))
    assert dead.headers["dead-letter-reason"] == "handler_failed"
    assert dead.headers["dead-letter-error"] == "ValueError: no"


async def test_a_dead_letter_that_no_queue_takes_is_held(rabbitmq: RabbitMQ, queue: str) -> None:
    """
    It is mandatory: acked to nowhere it would be lost.
    """
    await publish(rabbitmq, queue, 7)
    failed = asyncio.Event()

    async def handle(record: ConsumedRecord) -> None:
        failed.set()
        raise ValueError("no")

    nowhere = source(rabbitmq, queue, dead_letter_routing_key="no-such-queue")
    async with running(nowhere, handle, stop_seconds=0.2):
        await failed.wait()
        await asyncio.sleep(0.2)

    assert await waiting(rabbitmq, queue) == [b'{"number": 7}']


async def test_the_broker_comes_back_and_the_inbox_drops_what_comes_twice(
    rabbitmq: RabbitMQ, queue: str, sqlite_database: Database
) -> None:
    """
    The connection is lost after the handler's commit and before the ack: the broker delivers the
    message again, and its effect happens once.
    """
    await publish(rabbitmq, queue, 0)
    await asyncio.to_thread(rabbitmq.write_declarations)
    engine, inbox = create_async_engine(sqlite_database.async_url), Inbox("billing")
    await inbox.create(engine)
    sessions, effects = async_sessionmaker(engine), []

    async def handle(record: ConsumedRecord) -> None:
        async with sessions.begin() as session:
            first = await inbox.first_time(session, record)
        if first:
            effects.append(record.payload["number"])
            await asyncio.to_thread(rabbitmq.kill)
            await asyncio.to_thread(rabbitmq.start)

    async with running(source(rabbitmq, queue), handle):
        await until(lambda: inbox.duplicates >= 1)
    await engine.dispose()

    assert effects == [0]
    assert await waiting(rabbitmq, queue) == []


async def test_a_queue_that_does_not_exist_is_waited_for(
    rabbitmq: RabbitMQ, topic_name: str
) -> None:
    """
    It may be declared later, by whoever owns it.
    """
    handled = []

    async def handle(record: ConsumedRecord) -> None:
        handled.append(record.payload["number"])

    async with running(AmqpSource(topic_name, url=rabbitmq.url), handle):
        await asyncio.sleep(0.1)
        rabbitmq.declare_queue(topic_name)
        await publish(rabbitmq, topic_name, 3)
        await until(lambda: handled == [3])


async def test_a_program_ends_in_time_while_the_server_answers_nothing(
    rabbitmq: RabbitMQ, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    I9. Also where the consumer waits for an answer of its own, here about the queue; and nothing of the
    client stays behind that would keep the event loop from closing.
    """
    monkeypatch.setattr(amqp, "_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(amqp, "_CLOSE_SECONDS", 0.2)
    await publish(rabbitmq, queue, 0)
    handled = threading.Event()

    async def handle(record: ConsumedRecord) -> None:
        handled.set()

    consumer = EventConsumer(source(rabbitmq, queue), handle, stop_seconds=0.2)
    program = Program(consumer)
    await asyncio.to_thread(handled.wait)
    await freeze(rabbitmq)
    await asyncio.sleep(0.2)  # a question is under way
    ended = await program.ends(within_seconds=10)
    rabbitmq.thaw()

    assert ended


async def test_a_queue_that_is_made_anew_is_consumed_from(rabbitmq: RabbitMQ, queue: str) -> None:
    """
    The broker ends the consumer of a queue that is deleted; that it is there again hides nothing.
    """
    handled: list[int] = []

    async def handle(record: ConsumedRecord) -> None:
        handled.append(record.payload["number"])

    async with running(source(rabbitmq, queue), handle):
        await publish(rabbitmq, queue, 0)
        await until(lambda: handled == [0])
        await asyncio.to_thread(rabbitmq.delete_queue, queue)
        await asyncio.to_thread(rabbitmq.declare_queue, queue)
        await publish(rabbitmq, queue, 1)
        async with asyncio.timeout(12):  # without asking for it, which happens every 15 s
            await until(lambda: handled == [0, 1])


async def test_a_connection_that_its_heartbeat_gives_up_is_replaced(
    rabbitmq: RabbitMQ, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    aiormq then cancels what waits on it: that ends the connection's life, and not the consumer's.
    """
    monkeypatch.setattr(amqp, "_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(aiormq.connection.Connection, "HEARTBEAT_GRACE_MULTIPLIER", 0.5)
    handled: list[int] = []

    async def handle(record: ConsumedRecord) -> None:
        handled.append(record.payload["number"])

    beating = source(rabbitmq, queue, client={"heartbeat": 1, "timeout": 2.0})
    with capture_logs() as logs:
        async with running(beating, handle):
            await publish(rabbitmq, queue, 0)
            await until(lambda: handled == [0])
            await freeze(rabbitmq)
            await until(lambda: any(entry["event"] == "amqp_unavailable" for entry in logs))
            rabbitmq.thaw()
            await publish(rabbitmq, queue, 1)
            await until(lambda: 1 in handled)


async def test_a_server_that_lets_in_and_says_nothing_is_left_in_time(
    rabbitmq: RabbitMQ, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The way in has a limit of its own: before the log-in there is no heartbeat.
    """
    monkeypatch.setattr(amqp, "_OPEN_SECONDS", 0.3)
    silent = source(rabbitmq, queue)

    async def handle(record: ConsumedRecord) -> None:
        raise AssertionError

    await freeze(rabbitmq)
    with capture_logs() as logs:
        async with running(silent, handle):
            await until(lambda: any(entry["event"] == "amqp_unavailable" for entry in logs))
    rabbitmq.thaw()


async def test_cancelled_it_ends_its_handler_where_it_is(rabbitmq: RabbitMQ, queue: str) -> None:
    """
    At once, whatever stop_seconds says; what it did not ack is the broker's.
    """
    await publish(rabbitmq, queue, 0)

    assert await cancelled_in_its_handler(source(rabbitmq, queue))
    assert await waiting(rabbitmq, queue) == [b'{"number": 0}']


async def test_a_dead_letter_keeps_what_is_no_text(rabbitmq: RabbitMQ, queue: str) -> None:
    """
    A key of bytes is the same key there: text with backslashes would be another one.
    """
    await asyncio.to_thread(rabbitmq.declare_queue, queue)
    async with await aio_pika.connect(rabbitmq.url) as connection:
        channel = await connection.channel()
        headers: Any = {"ce_id": "1", "outbox-key": bytearray(b"\xff\x00")}
        message = aio_pika.Message(b"{}", headers=headers)
        await channel.default_exchange.publish(message, queue)

    async def handle(record: ConsumedRecord) -> None:
        raise ValueError(record.key)

    dead: list[Message] = []
    async with running(source(rabbitmq, queue), handle):
        while not dead:
            dead = await asyncio.to_thread(rabbitmq.messages, f"{queue}-dead")

    assert bytes(dead[0].headers["outbox-key"]) == b"\xff\x00"
