"""
What a consumer reads: each envelope that is on the wire somewhere.
"""

from __future__ import annotations

import gzip
import json
import uuid
import zlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ConfigDict
from pydantic.alias_generators import to_camel

from outbox_relay import NotificationEvent
from outbox_relay.consumer import Delivery, Envelope, decode
from outbox_relay.errors import WrongEvent
from tests.unit.consumed import ID, NESTED, SHAPES, RoomClosed, kafka, relayed


def test_what_the_relay_writes_is_read() -> None:
    """
    CloudEvents in binary mode: the same id, name, source, time and number that the row had.
    """
    record = decode(relayed(b'{"room_id": 1, "note": "foo"}'))

    assert record.envelope is Envelope.CLOUDEVENTS_BINARY
    assert (record.event_id, record.event_name, record.source) == (
        ID,
        "MeetingRoomClosed",
        "/meetings",
    )
    assert (record.sequence, record.key) == (41, b"7")
    assert record.time == datetime(2026, 1, 2, 3, 3, 5, 678901, tzinfo=UTC)
    assert record.payload == {"room_id": 1, "note": "foo"}
    assert record.requeued_at is None


def test_a_requeued_event_says_so() -> None:
    """
    A dead letter that comes late carries when it was requeued.
    """
    record = decode(relayed(b"{}", requeued_us=1_767_322_985_000_000))

    assert record.requeued_at == datetime(2026, 1, 2, 3, 3, 5, tzinfo=UTC)


def test_what_the_relay_passed_through_is_inflated() -> None:
    """
    With `compressed_payloads = "pass_through"` the value is a zlib stream.
    """
    stored = zlib.compress(b'{"room_id": 1}')

    assert decode(relayed(stored, pass_through=True, codec=1)).payload == {"room_id": 1}


def test_the_last_encoding_is_undone_first() -> None:
    """
    As they were applied one after the other (RFC 9110, 8.4).
    """
    value = zlib.compress(gzip.compress(b'{"room_id": 1}'))

    record = decode(kafka(value, ce_id="1", content_encoding="gzip, deflate"))

    assert record.payload == {"room_id": 1}


def test_of_two_headers_with_one_name_the_first_counts() -> None:
    """
    What comes after it was added on the way: an id that could be replaced would be no identity.
    """
    headers = (("ce_id", str(ID).encode()), ("ce_type", b"n"), ("ce_id", b"another"))

    assert decode(Delivery(topic="rooms", value=b"{}", headers=headers)).event_id == ID


def test_a_tombstone_has_no_payload() -> None:
    """
    It keeps its name and id, and no class can be made of it.
    """
    record = decode(relayed(b"", codec=3))

    assert record.is_tombstone
    assert record.payload is record.data is None
    with pytest.raises(WrongEvent, match=r"rooms\[2\]@1754: a tombstone"):
        RoomClosed.from_record(record)


@pytest.mark.parametrize("shape", SHAPES)
def test_each_envelope_is_told_by_its_members(shape: str) -> None:
    """
    Without any header: the value's own members say which of the known envelopes it is.
    """
    record = decode(kafka(json.dumps(SHAPES[shape]).encode()))

    assert record.envelope == shape.partition("-")[0]
    assert (record.event_id, record.event_name) == (ID, "MeetingRoomClosed")
    assert record.payload == NESTED
    event = RoomClosed.from_record(record)
    assert event.model_dump() == {"room_id": 1, "note": "foo"}
    assert event.event_id == ID


def test_a_time_without_a_zone_is_no_time() -> None:
    """
    python-cqrs writes local time without its zone: nobody can say which instant that is.
    """
    naive, aware = SHAPES["python_cqrs-4.9"], SHAPES["cloudevents_structured"]

    assert decode(kafka(json.dumps(naive).encode())).time is None
    assert decode(kafka(json.dumps(aware).encode())).time == datetime(
        2026, 1, 2, 3, 4, 5, tzinfo=UTC
    )


def test_camel_case_fields_need_a_class_that_has_them() -> None:
    """
    python-cqrs 5.x writes the fields of a dataclass in camel case. They are given as they are.
    """

    class Camel(NotificationEvent, name="MeetingRoomClosed", topic="rooms", key=None):
        model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)
        meeting_room_id: int

    shape = {**SHAPES["python_cqrs_camel-5.3"], "payload": {"meetingRoomId": 7}}

    assert Camel.from_record(decode(kafka(json.dumps(shape).encode()))).meeting_room_id == 7


def test_a_typed_codec_of_python_cqrs_names_itself_in_headers() -> None:
    """
    Its value is no JSON; its headers have the name and the id.
    """
    record = decode(kafka(b"\x08\x01", event_name="MeetingRoomClosed", message_id=str(ID)))

    assert (record.event_name, record.event_id, record.data) == (
        "MeetingRoomClosed",
        ID,
        b"\x08\x01",
    )


def test_binary_data_in_a_structured_event() -> None:
    """
    data_base64 becomes bytes, with the media type that is said.
    """
    shape = {**SHAPES["cloudevents_structured"], "datacontenttype": "application/octet-stream"}
    del shape["data"]

    record = decode(kafka(json.dumps({**shape, "data_base64": "AAEC"}).encode()))

    assert record.payload == b"\x00\x01\x02"


def test_a_value_in_no_envelope_has_neither_name_nor_id() -> None:
    """
    It is no error: who knows the topic may handle it.
    """
    record = decode(kafka(b'{"room_id": 1}'))

    assert (record.envelope, record.event_name, record.event_id) == (Envelope.NONE, None, None)
    assert record.payload == {"room_id": 1}


def test_an_id_that_is_no_uuid_becomes_one_of_its_source() -> None:
    """
    CloudEvents: source and id together are unique. The same pair gives the same id, another does not.
    """

    def id_of(source: str, text: str) -> uuid.UUID | None:
        return decode(kafka(b"{}", ce_specversion="1.0", ce_id=text, ce_source=source)).event_id

    assert id_of("/a", "7") == id_of("/a", "7")
    assert len({id_of("/a", "7"), id_of("/b", "7"), id_of("/a", "8")}) == 3
    assert id_of("/a", str(ID)) == id_of("/b", ID.hex) == ID


def test_an_instant_of_another_zone_is_utc() -> None:
    """
    ce_time may come with any offset.
    """
    record = decode(kafka(b"{}", ce_id="1", ce_time="2026-01-02T04:04:05+01:00"))

    assert record.time == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert record.time is not None
    assert record.time.utcoffset() == timedelta(0)


@pytest.mark.parametrize(("members", "is_tombstone"), [({"data": None}, False), ({}, True)])
def test_a_payload_that_is_null_is_no_tombstone(
    members: dict[str, Any], is_tombstone: bool
) -> None:
    """
    Structured: without data there is no value; null is one.
    """
    event = {"specversion": "1.0", "id": "1", "type": "n", "source": "/s", **members}

    record = decode(kafka(json.dumps(event).encode()))

    assert record.is_tombstone is is_tombstone
    assert record.payload is None
