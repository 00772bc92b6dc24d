"""
Straight to a broker: after the handler, with one warning, all or none.
"""

from __future__ import annotations

import warnings

import pytest

import outbox_relay.cqrs as cqrs
from outbox_relay import NotSerializable
from tests.unit.cqrs.handlers import Broken, RecordingBroker, Tells
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
