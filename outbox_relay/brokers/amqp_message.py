"""A record as an AMQP message."""

from __future__ import annotations

import struct
from typing import Any

import aio_pika
from pamqp import frame, header

from outbox_relay.relay.ports import Record

NEVER_ERRORS = (TypeError, ValueError, LookupError, ArithmeticError, struct.error)
"""What aio-pika raises where a message cannot be put into frames."""

MOST_NAME_BYTES = 128
"""Longest name of a header (AMQP 0-9-1, field table)."""


def message_of(record: Record) -> aio_pika.Message:
    """
    *record* as a message: the headers as on Kafka, and what AMQP has a place of its own for.

    Without a value there is a header ``outbox-tombstone``, since a body cannot be absent; the key is
    the header ``outbox-key``, bytes where it is not text. Raises ValueError for what AMQP has no room for.
    """
    headers: dict[str, Any] = {name: value.decode() for name, value in record.headers}
    if any(len(name.encode()) > MOST_NAME_BYTES for name in headers):
        # The client would cut them off.
        raise ValueError("a header's name is too long")
    if record.key is not None:
        headers["outbox-key"] = _text(record.key)
    if record.value is None:
        headers["outbox-tombstone"] = "true"
    return aio_pika.Message(
        record.value or b"",
        headers=headers,
        content_type=headers.get("content-type"),
        content_encoding=headers.get("content-encoding"),
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        message_id=record.event_id.decode(),
        timestamp=record.timestamp_ms / 1000,
        type=headers.get("ce_type"),
        app_id="outbox-relay",
    )


def can_travel(message: aio_pika.Message) -> bool:
    """
    Whether *message* can be put into frames. What the client raises says so only where it cannot: of an
    answer that makes no sense it raises the same classes, at whoever waits on the channel.
    """
    try:
        frame.marshal(header.ContentHeader(0, message.body_size, message.properties), 1)
    except NEVER_ERRORS:
        return False
    return True


def _text(key: bytes) -> str | bytearray:
    try:
        return key.decode()
    except UnicodeDecodeError:
        return bytearray(key)  # which travels as bytes
