"""What a record says of its event: id, row, age, and why it comes late. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import IntFlag
from typing import NamedTuple

from outbox_relay.audit.ports import Message
from outbox_relay.consumer.decoding import decode
from outbox_relay.consumer.record import ConsumedRecord, Delivery, instant_of
from outbox_relay.errors import UnreadableRecord

_CREATE_TIME = 0


class Flag(IntFlag):
    """What else is known of a record."""

    REQUEUED = 1
    REPLAY = 2
    OURS = 4
    """A relay of this package wrote it."""


class Told(NamedTuple):
    """What a record says. `created` in microseconds; `sequence` is the row's id, where it is told."""

    sequence: int | None
    event: bytes
    created: int
    flags: int
    source: bytes


def told(message: Message, *, bare: bool) -> Told | None:
    """
    What *message* says; None if nothing in it says which event it is.

    With *bare*, records of ours have no headers: what has the id in its value is taken for one.
    """
    header = dict(message.headers)
    number, event_id = header.get("outbox-seq"), header.get("ce_id")
    if number is None or event_id is None or len(event_id) != 36 or not number.isdigit():
        return _decoded(message, header, bare=bare)
    try:
        event = bytes.fromhex(event_id.replace(b"-", b"").decode())
        sequence = int(number)
    except ValueError:
        return _decoded(message, header, bare=bare)
    if len(event) != 16 or sequence >= 2**63:
        return _decoded(message, header, bare=bare)
    flags = int(Flag.OURS)
    if "requeued-at" in header:
        flags |= Flag.REQUEUED
    if "replay-of" in header:
        flags |= Flag.REPLAY
    if message.timestamp_type == _CREATE_TIME:
        created = message.timestamp * 1000
    else:
        created = _microseconds(instant_of(header.get("ce_time", b"").decode()), message)
    return Told(sequence, event, created, flags, header.get("ce_source", b""))


def _decoded(message: Message, header: dict[str, bytes], *, bare: bool) -> Told | None:
    """The same by whatever envelope it is."""
    try:
        record: ConsumedRecord = decode(
            Delivery(
                topic=message.topic,
                partition=message.partition,
                offset=message.offset,
                key=message.key,
                value=message.value,
                headers=tuple(message.headers),
            )
        )
    except UnreadableRecord:
        return None
    if record.event_id is None:
        return None
    flags = 0
    if record.sequence is not None or (bare and not header):
        flags |= Flag.OURS
    if record.requeued_at is not None:
        flags |= Flag.REQUEUED
    if record.replay_of is not None:
        flags |= Flag.REPLAY
    if message.timestamp_type == _CREATE_TIME:
        created = message.timestamp * 1000
    else:
        created = _microseconds(record.time, message)
    return Told(record.sequence, record.event_id.bytes, created, flags, record.source.encode())


def _microseconds(instant: datetime | None, message: Message) -> int:
    """*instant*; without one, when the broker took the record, which is later."""
    if instant is None:
        return message.timestamp * 1000
    since = instant - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
