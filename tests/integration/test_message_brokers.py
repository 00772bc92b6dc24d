"""
The documents' brokers, which send one message at a time: none is taken for sent that nobody has.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest

from outbox_relay.brokers.options import KafkaOptions
from outbox_relay.cqrs.adapters.kafka import KafkaProducer
from outbox_relay.cqrs.message_brokers import amqp
from outbox_relay.cqrs.message_brokers.amqp import AMQPMessageBroker
from outbox_relay.cqrs.message_brokers.kafka import KafkaMessageBroker
from outbox_relay.cqrs.message_brokers.protocol import Message
from outbox_relay.cqrs.producer import EventProducer
from outbox_relay.errors import BrokerUnavailable, ConfigError, PublishError
from outbox_relay.store.options import DatabaseOptions
from tests.contract.brokers import freeze
from tests.services.rabbitmq import RabbitMQ


def message() -> Message:
    return Message(
        message_type="notification_event",
        message_name="order.placed",
        message_id=uuid.uuid4(),
        payload={"card": "canary"},
    )


@pytest.fixture
async def broker(rabbitmq: RabbitMQ, topic_name: str) -> AsyncIterator[AMQPMessageBroker]:
    made = AMQPMessageBroker(rabbitmq.url, topic_name, f"{topic_name}-exchange")
    yield made
    await made.close()


async def test_what_no_queue_takes_is_said(
    rabbitmq: RabbitMQ, broker: AMQPMessageBroker, topic_name: str
) -> None:
    """
    I3, I11. The server confirms it all the same, after it has given it back. The text has no payload.
    """
    await broker.send_message(message())
    await asyncio.to_thread(rabbitmq.delete_queue, topic_name)

    with pytest.raises(PublishError, match="NO_ROUTE") as raised:
        await broker.send_message(message())

    assert "canary" not in str(raised.value)
    assert raised.value.__cause__ is None


async def test_a_server_that_answers_nothing_is_said_in_time_and_then_left(
    rabbitmq: RabbitMQ, broker: AMQPMessageBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    I9. The next message connects anew.
    """
    monkeypatch.setattr(amqp, "TIMEOUT_SECONDS", 0.5)
    await broker.send_message(message())
    await freeze(rabbitmq)
    async with asyncio.timeout(10):
        with pytest.raises(BrokerUnavailable, match="did not confirm"):
            await broker.send_message(message())
    rabbitmq.thaw()
    monkeypatch.setattr(amqp, "TIMEOUT_SECONDS", 20.0)

    await broker.send_message(message())


async def test_a_relay_trusts_its_lease_for_as_long_as_its_broker_may_take() -> None:
    """
    I5. The deadline of the producer's own options, not another one's default: else two relays could
    publish a batch that one of them still waits for.
    """
    options = KafkaOptions(bootstrap_servers="localhost:1", publish_deadline_seconds=20.0)
    relay = EventProducer(
        None,  # type: ignore[arg-type]
        KafkaMessageBroker(KafkaProducer(options)),
        database=DatabaseOptions(url="sqlite+aiosqlite:///nowhere.db"),
    )

    with pytest.raises(ConfigError, match="publish_deadline_seconds = 20"):
        await relay.produce_all()
