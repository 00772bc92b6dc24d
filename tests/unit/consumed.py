"""
Deliveries for tests: of this relay, and in each envelope that is on the wire somewhere.
"""

from __future__ import annotations

import uuid
from typing import Any

from outbox_relay import NotificationEvent
from outbox_relay.consumer import Delivery
from outbox_relay.relay.ports import Record, Row
from outbox_relay.relay.wire import Encoder

ID = uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")


class RoomClosed(NotificationEvent, name="MeetingRoomClosed", topic="rooms", key="room_id"):
    """An event of the tests."""

    room_id: int
    note: str = ""


def kafka(value: bytes | None, *, key: bytes | None = None, **headers: str) -> Delivery:
    """A delivery from Kafka; `_` in a header's name stands for `-`, unless it begins with ce_."""
    named = [
        (
            name if name.startswith(("ce_", "event_", "message_")) else name.replace("_", "-"),
            text.encode(),
        )
        for name, text in headers.items()
    ]
    return Delivery(
        topic="rooms", partition=2, offset=1754, key=key, value=value, headers=(*named,)
    )


def relayed(
    payload: bytes, *, pass_through: bool = False, codec: int = 0, **changed: Any
) -> Delivery:
    """What this relay writes for a row."""
    record = relay_record(payload, pass_through=pass_through, codec=codec, **changed)
    return Delivery(
        topic="rooms",
        partition=2,
        offset=1754,
        key=record.key,
        value=record.value,
        headers=tuple(record.headers),
    )


def relay_record(
    payload: bytes, *, pass_through: bool = False, codec: int = 0, **changed: Any
) -> Record:
    """The record of a row."""
    row = Row(
        id=41,
        lane=0,
        key=b"7",
        topic="rooms",
        payload=payload,
        codec=codec,
        headers='{"ce_source": "/meetings"}',
        event_id=ID.bytes,
        event_name="MeetingRoomClosed",
        content_type="application/json",
        created_us=1_767_322_985_678_901,
        requeued_us=None,
        payload_bytes=len(payload),
    )
    encoder = Encoder(source="/r", max_payload_bytes=10_000, pass_through=pass_through)
    return encoder.record(row._replace(**changed))


NESTED = {"room_id": 1, "note": "foo"}
SHAPES = {
    "cloudevents_structured": {
        "specversion": "1.0",
        "id": str(ID),
        "source": "/meetings",
        "type": "MeetingRoomClosed",
        "time": "2026-01-02T03:04:05Z",
        "data": NESTED,
    },
    "documents-000": {
        "message_type": "notification_event",
        "message_name": "MeetingRoomClosed",
        "message_id": str(ID),
        "payload": {"event_id": str(ID), "event_timestamp": "2026-01-02T03:04:05", **NESTED},
    },
    "documents-0.0.15": {
        "message_type": "ecst_event",
        "message_name": "MeetingRoomClosed",
        "message_id": str(ID),
        "payload": {
            "event_id": str(ID),
            "event_timestamp": "2026-11-21T02:20:18.446983",
            "event_name": "MeetingRoomClosed",
            "payload": NESTED,
        },
    },
    "python_cqrs-1.0": {
        "event_id": str(ID),
        "event_timestamp": "2026-01-02T03:04:05.678901",
        "event_name": "MeetingRoomClosed",
        "topic": "t",
        "payload": NESTED,
    },
    "python_cqrs-4.9": {
        "payload": NESTED,
        "event_id": str(ID),
        "event_timestamp": "2026-01-02T03:04:05.678901",
        "event_name": "MeetingRoomClosed",
        "topic": "t",
    },
    "python_cqrs-5.3-pydantic": {
        "payload": NESTED,
        "event_id": str(ID),
        "event_timestamp": "2026-01-02T03:04:05.678901",
        "event_name": "MeetingRoomClosed",
        "topic": "t",
    },
    "python_cqrs_camel-5.3": {
        "eventName": "MeetingRoomClosed",
        "payload": NESTED,
        "eventId": ID.hex,
        "eventTimestamp": "2026-11-21T02:00:10.678352",
        "topic": "t",
    },
}
