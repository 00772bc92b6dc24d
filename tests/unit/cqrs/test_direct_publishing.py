"""
Straight to a broker: after the handler, with one warning, all or none.
"""

from __future__ import annotations

import asyncio
import json
import warnings
from decimal import Decimal

import pytest
from pydantic import field_serializer

import outbox_relay.cqrs as cqrs
from outbox_relay import NotificationEvent, NotSerializable
from outbox_relay.cqrs.message_brokers import amqp
from outbox_relay.cqrs.message_brokers.protocol import message_of
from outbox_relay.errors import BrokerUnavailable
from tests.unit.cqrs.handlers import FORMS, Broken, RecordingBroker, Tells
from tests.unit.cqrs.world import OpenAccount, World


async def test_a_broker_is_told_directly_with_one_warning() -> None:
    """
    Once for a mediator, however many events; nothing is sent after an error of the handler.
    """
    broker = RecordingBroker()
    sends = cqrs.bootstrap(
        commands_mapper=lambda mapper: mapper.bind(OpenAccount, Tells), message_broker=broker
    )
    with pytest.warns(cqrs.DirectPublishWarning, match="unit_of_work") as warned:  # noqa: PT031
        await sends.send(OpenAccount(owner="ann"))
        await sends.send(OpenAccount(owner="bob"))
    with pytest.raises(Broken):
        await sends.send(OpenAccount(owner="broken"))

    assert len(warned) == 1
    assert len(broker.messages) == 8


async def test_a_broker_is_told_nothing_if_one_event_cannot_be_encoded() -> None:
    """
    All are encoded before the first is sent.
    """
    broker = RecordingBroker()
    sends = cqrs.bootstrap(
        commands_mapper=lambda mapper: mapper.bind(OpenAccount, Tells), message_broker=broker
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cqrs.DirectPublishWarning)
        with pytest.raises(NotSerializable, match="event 'n'"):
            await sends.send(OpenAccount(owner="object"))

    assert broker.messages == []


async def test_outbox_and_broker_are_one_too_many(shop: World) -> None:
    """
    The relay publishes what the outbox has.
    """
    with pytest.raises(TypeError, match="unit_of_work or message_broker"):
        cqrs.bootstrap(unit_of_work=shop.units, message_broker=RecordingBroker())


async def test_a_server_that_stands_still_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Neither the message nor the goodbye to its connection waits for longer than the deadline.
    """

    class Still:
        async def channel(self, **_: object) -> object:
            await asyncio.Event().wait()
            raise AssertionError

        close = channel

    async def connect(_: str) -> Still:
        return Still()

    monkeypatch.setattr(amqp.aio_pika, "connect", connect)
    monkeypatch.setattr(amqp, "TIMEOUT_SECONDS", 0.01)
    broker = amqp.AMQPMessageBroker("amqp://nowhere", "queue", "exchange")
    message = message_of(FORMS["named"]("ann"))
    with pytest.raises(BrokerUnavailable, match="did not confirm event 'AccountOpened'"):
        await asyncio.wait_for(broker.send_message(message), 20)


async def test_within_somebodys_transaction_a_broker_waits_for_the_commit(shop: World) -> None:
    """
    And hears nothing of what is rolled back.
    """
    broker = RecordingBroker()
    sends = cqrs.bootstrap(
        commands_mapper=lambda mapper: mapper.bind(OpenAccount, Tells), message_broker=broker
    )
    heard: list[int] = []
    with pytest.warns(cqrs.DirectPublishWarning):  # noqa: PT031 - the block's end counts
        async with shop.units.begin():
            await sends.send(OpenAccount(owner="ann"))
            heard.append(len(broker.messages))
    heard.append(len(broker.messages))
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the block's end counts
        async with shop.units.begin():
            await sends.send(OpenAccount(owner="bob"))
            raise ZeroDivisionError

    assert heard == [0, 4]
    assert len(broker.messages) == 4


async def test_a_message_is_the_json_that_the_outbox_would_write() -> None:
    """
    What a field says of its JSON form holds, and NaN, which JSON does not have, is refused.
    """

    class Weighed(NotificationEvent, topic="t", key=None):
        weight: Decimal

        @field_serializer("weight", when_used="json")
        def _in_grams(self, weight: Decimal) -> int:
            return int(weight * 1000)

    sent = json.loads(message_of(Weighed(weight=Decimal("1.5"))).to_json())
    wrong = cqrs.NotificationEvent(event_name="n", event_topic="t", payload={"x": float("nan")})

    assert sent["payload"]["weight"] == 1500
    with pytest.raises(NotSerializable, match=r"event 'n'.*NaN"):
        message_of(wrong).to_json()
