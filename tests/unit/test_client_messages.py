"""
Messages of the clients that are read as they are: aiokafka, kafka-python, confluent-kafka, aio-pika.
"""

from __future__ import annotations

import zlib
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from outbox_relay.brokers.amqp_message import message_of
from outbox_relay.consumer import ConsumedRecord, read_record
from tests.unit.consumed import ID, relay_record


def aiokafka_message(**changed: Any) -> SimpleNamespace:
    """As aiokafka and kafka-python give it."""
    headers = (("ce_id", str(ID).encode()), ("ce_type", b"n"), ("empty", None))
    given = {"topic": "t", "partition": 1, "offset": 2, "key": b"k", "value": b"{}"}
    return SimpleNamespace(**{**given, "headers": headers, "timestamp": 1000, **changed})


def confluent_message() -> SimpleNamespace:
    """As confluent-kafka gives it."""
    plain = aiokafka_message()
    methods = {name: (lambda found=found: found) for name, found in vars(plain).items()}
    return SimpleNamespace(**{**methods, "timestamp": lambda: (1, 1000)})


def amqp_message(**changed: Any) -> SimpleNamespace:
    """As aio-pika gives it."""
    given: dict[str, Any] = {
        "body": b"{}",
        "routing_key": "t",
        "headers": {"cloudEvents:id": str(ID), "cloudEvents:type": "n", "retries": 3},
        "content_type": "application/json",
        "content_encoding": None,
        "timestamp": datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC),
        "message_id": None,
        "type": None,
    }
    return SimpleNamespace(**{**given, **changed})


@pytest.mark.parametrize(
    "message",
    [
        aiokafka_message(),
        confluent_message(),
        amqp_message(),
        SimpleNamespace(raw_message=aiokafka_message()),
    ],
    ids=["aiokafka", "confluent-kafka", "aio-pika", "faststream"],
)
def test_a_clients_own_message_is_read(message: object) -> None:
    """
    No client has to be installed for it: the message's attributes say what it is.
    """
    record = read_record(message)

    assert (record.event_id, record.event_name, record.topic) == (ID, "n", "t")
    assert record.delivery.timestamp == datetime.fromtimestamp(1, UTC)
    assert read_record(record) is record


@pytest.mark.parametrize("codec", [0, 3])
def test_what_the_relay_writes_to_amqp_is_read_like_that_of_kafka(codec: int) -> None:
    """
    The key and a tombstone travel in headers there.
    """
    found = relay_record(b'{"room_id": 1}' if codec == 0 else b"", codec=codec)
    message = message_of(found)
    names = (
        "body",
        "headers",
        "content_type",
        "content_encoding",
        "timestamp",
        "message_id",
        "type",
    )
    record = read_record(
        SimpleNamespace(**{name: getattr(message, name) for name in names}, routing_key="rooms")
    )

    assert (record.event_id, record.event_name, record.key) == (ID, "MeetingRoomClosed", b"7")
    assert record.is_tombstone == (codec == 3)
    assert record.sequence == 41


def test_amqp_properties_say_id_and_name_where_no_envelope_does() -> None:
    """
    message_id and type, as AMQP has them; compressed bodies by content_encoding.
    """
    record = read_record(
        amqp_message(
            headers=None,
            message_id=str(ID),
            type="n",
            body=zlib.compress(b'{"a": 1}'),
            content_encoding="deflate",
        )
    )

    assert (record.event_id, record.event_name, record.payload) == (ID, "n", {"a": 1})


def test_anything_else_is_refused() -> None:
    """
    The error says what is taken.
    """
    with pytest.raises(TypeError, match="int is not a message of aiokafka"):
        read_record(7)
    assert isinstance(read_record(aiokafka_message(headers=None, timestamp=None)), ConsumedRecord)
