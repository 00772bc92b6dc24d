"""
Deliveries of the clients' own messages: aiokafka, kafka-python, confluent-kafka, aio-pika, FastStream.

By the attributes that they have, so that none of these packages has to be installed.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

from outbox_relay.consumer.decoding import MAX_BYTES, decode
from outbox_relay.consumer.record import ConsumedRecord, Delivery

_CLOUDEVENTS: Final = ("cloudEvents:", "cloudEvents_", "ce-")


def read_record(message: Any, *, max_bytes: int = MAX_BYTES) -> ConsumedRecord:
    """
    The record in *message*: a ConsumedRecord, a message of aiokafka, kafka-python, confluent-kafka or
    aio-pika, or FastStream's around one of them.

    Raises UnreadableRecord as `decode` does, TypeError for anything else.
    """
    if isinstance(message, ConsumedRecord):
        return message
    return decode(delivery_of(message), max_bytes=max_bytes)


def delivery_of(message: Any) -> Delivery:
    """What the client's *message* says. Raises TypeError if it is none that is known."""
    if isinstance(message, Delivery):
        return message
    raw = getattr(message, "raw_message", None)
    if raw is not None:
        return delivery_of(raw)
    if hasattr(message, "offset") and hasattr(message, "topic"):
        return _of_confluent(message) if callable(message.offset) else _of_kafka(message)
    if hasattr(message, "body") and hasattr(message, "routing_key"):
        return _of_amqp(message)
    raise TypeError(
        f"{type(message).__name__} is not a message of aiokafka, kafka-python, confluent-kafka or "
        "aio-pika, nor a ConsumedRecord"
    )


def _of_kafka(message: Any) -> Delivery:
    return Delivery(
        topic=message.topic,
        partition=message.partition,
        offset=message.offset,
        key=message.key,
        value=message.value,
        headers=_headers(message.headers or ()),
        timestamp=_instant(message.timestamp),
    )


def _of_confluent(message: Any) -> Delivery:
    kind, milliseconds = message.timestamp()
    return Delivery(
        topic=message.topic(),
        partition=message.partition(),
        offset=message.offset(),
        key=message.key(),
        value=message.value(),
        headers=_headers(message.headers() or ()),
        timestamp=_instant(milliseconds if kind else None),
    )


def _of_amqp(message: Any) -> Delivery:
    given = _headers(dict(message.headers or {}).items())
    named = {name for name, _ in given}
    properties = (
        ("content-type", message.content_type),
        ("content-encoding", message.content_encoding),
    )
    said = [(name, text.encode()) for name, text in properties if text and name not in named]
    at = message.timestamp
    # What this relay adds, since AMQP has no key, and a body is never absent.
    key = next((value for name, value in given if name == "outbox-key"), None)
    return Delivery(
        topic=message.routing_key or "",
        key=key,
        value=None if "outbox-tombstone" in named else bytes(message.body),
        headers=(*given, *said),
        timestamp=at.replace(tzinfo=at.tzinfo or UTC) if isinstance(at, datetime) else None,
        message_id=message.message_id or None,
        message_type=message.type or None,
    )


def _headers(items: Iterable[tuple[str, Any]]) -> tuple[tuple[str, bytes], ...]:
    return tuple((_name(name), _bytes(value)) for name, value in items if value is not None)


def _name(name: str) -> str:
    # The AMQP binding of CloudEvents has names of its own for the same attributes.
    for prefix in _CLOUDEVENTS:
        if name.startswith(prefix):
            return f"ce_{name.removeprefix(prefix)}"
    return name


def _bytes(value: Any) -> bytes:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, datetime):
        return value.replace(tzinfo=value.tzinfo or UTC).isoformat().encode()
    return str(value).encode(errors="surrogateescape")


def _instant(milliseconds: Any) -> datetime | None:
    if not isinstance(milliseconds, int) or milliseconds < 0:
        return None
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return None
