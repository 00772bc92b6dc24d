"""
Document 003: its examples, against a real RabbitMQ, Kafka and MariaDB.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

import outbox_relay.cqrs as cqrs
from outbox_relay import InvalidTopic
from outbox_relay.cqrs.adapters.kafka import kafka_producer_factory
from outbox_relay.cqrs.message_brokers.amqp import AMQPMessageBroker
from outbox_relay.cqrs.message_brokers.kafka import KafkaMessageBroker
from outbox_relay.errors import BrokerUnavailable, ConfigError, PublishError
from outbox_relay.migrate import migrate
from outbox_relay.store.options import DatabaseOptions
from tests.documents import d003_mediator, d003_outbox
from tests.documents.d003_mediator import (
    CloseMeetingRoomCommand,
    JoinMeetingCommand,
    ReadMeetingQuery,
)
from tests.services.database import Database
from tests.services.kafka import Kafka
from tests.services.process import free_port
from tests.services.rabbitmq import RabbitMQ

MESSAGE_ID = UUID("01234567-89ab-7def-8123-456789abcdef")


class MeetingAPI:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    async def join_user(self, user_id: int, meeting_id: int) -> None:
        self.calls.append(("join", user_id, meeting_id))

    async def notify_room(self, meeting_id: int, text: str) -> None:
        self.calls.append(("notify", meeting_id))

    async def get_link(self, meeting_id: int) -> str:
        return f"https://meet.example/{meeting_id}"


async def test_the_mediator_example_runs_on_rabbitmq(rabbitmq: RabbitMQ, topic_name: str) -> None:
    """
    Domain events in process; the notification event in the queue, durable, in its envelope.
    """
    api = MeetingAPI()
    mediator, broker = d003_mediator.build(rabbitmq.url, topic_name, f"x-{topic_name}", api)

    await mediator.send(JoinMeetingCommand(user_id=1, meeting_id=2))
    answer = await mediator.send(ReadMeetingQuery(meeting_id=2))
    with pytest.warns(cqrs.DirectPublishWarning):
        await mediator.send(CloseMeetingRoomCommand(meeting_room_id=7))
    await mediator.send(CloseMeetingRoomCommand(meeting_room_id=8))
    await broker.close()

    assert api.calls == [("join", 1, 2), ("notify", 2)]
    assert answer.link == "https://meet.example/2"
    messages = await asyncio.to_thread(rabbitmq.messages, topic_name)
    assert [message.delivery_mode for message in messages] == [2, 2]
    envelope = json.loads(messages[0].body)
    assert envelope["message_type"] == "notification_event"
    assert envelope["message_name"] == "meeting_room_closed"
    assert envelope["message_id"] == envelope["payload"]["event_id"] == messages[0].message_id
    assert envelope["payload"]["payload"] == {"meeting_room_id": 7}
    assert json.loads(messages[1].body)["payload"]["payload"] == {"meeting_room_id": 8}


async def test_rabbitmq_that_is_gone_is_an_error(topic_name: str) -> None:
    """
    Within the time given, and it says for which event.
    """
    broker = AMQPMessageBroker(f"amqp://ob:ob@127.0.0.1:{free_port()}/", topic_name, topic_name)
    with pytest.raises(BrokerUnavailable, match="'closed'"):
        await broker.send_message(message())


async def test_the_kafka_broker_example_runs(kafka: Kafka, topic_name: str) -> None:
    """
    A message without a topic goes to every topic of the producer; one with a topic there alone.
    """
    topics = [f"{topic_name}-{number}" for number in (1, 2)]
    for topic in topics:
        await asyncio.to_thread(kafka.create_topic, topic)
    broker = KafkaMessageBroker(kafka_producer_factory(dsn=kafka.bootstrap_servers, topics=topics))

    await broker.send_message(message())
    await broker.send_message(message(topic=topics[0], key=7))
    await broker.close()

    first, second = [await asyncio.to_thread(kafka.consume_all, topic) for topic in topics]
    assert [record.key for record in first] == [None, b"7"]
    assert [record.value for record in second] == [message().to_json()]
    assert first[0].headers == {}


async def test_kafka_errors_are_told_apart(kafka: Kafka, topic_name: str) -> None:
    """
    No topic, a topic that is not there, brokers that are not there; the log level is aiokafka's.
    """
    producer = kafka_producer_factory(kafka.bootstrap_servers)
    broker = KafkaMessageBroker(producer, "CRITICAL")
    with pytest.raises(InvalidTopic, match="topics="):
        await broker.send_message(message())
    with pytest.raises(PublishError, match=topic_name):
        await broker.send_message(message(topic=topic_name))
    await broker.close()
    away = KafkaMessageBroker(kafka_producer_factory(f"127.0.0.1:{free_port()}"), "CRITICAL")
    with pytest.raises(BrokerUnavailable):
        await away.send_message(message(topic=topic_name))
    with pytest.raises(ConfigError, match="bootstrap_servers"):
        kafka_producer_factory("")

    assert logging.getLogger("aiokafka").level == logging.CRITICAL


async def test_the_outbox_example_runs_on_mariadb_and_kafka(
    mariadb_database: Database, kafka: Kafka, topic_name: str
) -> None:
    """
    The handler's row and its ECST event commit together; `periodically_task` is the relay.
    """
    await asyncio.to_thread(kafka.create_topic, topic_name)
    sessions = d003_outbox.make_sessions(mariadb_database.async_url)
    await make_tables(sessions)
    repository = d003_outbox.make_repository(sessions, default_topic=topic_name)
    mediator = d003_outbox.make_mediator(repository)
    broker = d003_outbox.make_broker(kafka.bootstrap_servers, [topic_name])
    producer = d003_outbox.make_producer(repository, broker)

    relaying = asyncio.create_task(producer.periodically_task())
    await mediator.send(d003_outbox.CloseMeetingRoomCommand(meeting_room_id=1))
    async with sessions() as session:
        assert await session.scalar(sa.select(d003_outbox.MeetingRoom.state)) == "closed"
    records = await until_there(kafka, topic_name, 1)
    producer.stop()
    await relaying

    await mediator.send(d003_outbox.CloseMeetingRoomCommand(meeting_room_id=2))
    again = d003_outbox.make_producer(repository, broker)
    await again.produce_all()
    records = await until_there(kafka, topic_name, 2)
    await sessions.kw["bind"].dispose()

    assert [record.headers["ce_type"] for record in records] == [b"MeetingRoomClosed"] * 2
    assert [json.loads(record.value or b"") for record in records] == [{"message": "foo"}] * 2


async def test_an_event_without_topic_is_refused_and_nothing_is_saved(
    mariadb_database: Database,
) -> None:
    """
    The example as it is printed: the error says how to give one.
    """
    sessions = d003_outbox.make_sessions(mariadb_database.async_url)
    await make_tables(sessions)
    mediator = d003_outbox.make_mediator(d003_outbox.make_repository(sessions))

    with pytest.raises(InvalidTopic, match=r"MeetingRoomClosed.*default_topic"):
        await mediator.send(d003_outbox.CloseMeetingRoomCommand(meeting_room_id=1))

    async with sessions() as session:
        assert await session.scalar(sa.select(d003_outbox.MeetingRoom.id)) is None
    await sessions.kw["bind"].dispose()


async def test_the_producer_relays_to_rabbitmq_too(
    mariadb_database: Database, rabbitmq: RabbitMQ, topic_name: str
) -> None:
    """
    The same `EventProducer`, with an AMQPMessageBroker.
    """
    sessions = d003_outbox.make_sessions(mariadb_database.async_url)
    await make_tables(sessions)
    repository = d003_outbox.make_repository(sessions, default_topic="rooms")
    await d003_outbox.make_mediator(repository).send(
        d003_outbox.CloseMeetingRoomCommand(meeting_room_id=1)
    )
    broker = AMQPMessageBroker(rabbitmq.url, topic_name, f"x-{topic_name}")
    await broker.declare()
    await broker.close()
    await cqrs.EventProducer(repository, broker).produce_all()
    await sessions.kw["bind"].dispose()

    [sent] = await asyncio.to_thread(rabbitmq.messages, topic_name)
    assert json.loads(sent.body) == {"message": "foo"}


def test_a_broker_that_no_relay_knows_is_refused() -> None:
    """
    When the producer is made.
    """
    repository = d003_outbox.make_repository(d003_outbox.make_sessions("sqlite+aiosqlite:///x.db"))
    with pytest.raises(ConfigError, match="object"):
        cqrs.EventProducer(repository, object())  # type: ignore[arg-type]


def message(**more: Any) -> cqrs.Message:
    """The same each time."""
    return cqrs.Message(
        message_type="notification_event",
        message_name="closed",
        message_id=MESSAGE_ID,
        payload={"room": 1},
        **more,
    )


async def make_tables(sessions: Any) -> None:
    """The application's and the outbox'."""
    engine = sessions.kw["bind"]
    async with engine.begin() as connection:
        await connection.run_sync(d003_outbox.Base.metadata.create_all)
    url = engine.url.render_as_string(hide_password=False)
    await asyncio.to_thread(migrate, DatabaseOptions(url=url))


async def until_there(kafka: Kafka, topic: str, count: int) -> list[Any]:
    """The records of *topic*, once they are *count*."""
    async with asyncio.timeout(60):
        while True:
            records = await asyncio.to_thread(kafka.consume_all, topic)
            if len(records) >= count:
                return records
