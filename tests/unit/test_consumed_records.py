"""
What a consumer reads: each envelope that is on the wire somewhere, and what is broken.
"""

from __future__ import annotations

import json
import uuid
import zlib
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from outbox_relay import NotificationEvent
from outbox_relay.brokers.amqp_message import message_of
from outbox_relay.consumer import ConsumedRecord, Delivery, Envelope, decode, read_record
from outbox_relay.consumer.decoding import MAX_BYTES
from outbox_relay.errors import UnreadableRecord, WrongEvent
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


def test_a_tombstone_has_no_payload() -> None:
    """
    It keeps its name and id, and no class can be made of it.
    """
    record = decode(relayed(b"", codec=3))

    assert record.is_tombstone
    assert record.payload is record.data is None
    with pytest.raises(WrongEvent, match=r"rooms\[2\]@1754: a tombstone"):
        RoomClosed.from_record(record)


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


BROKEN = {
    "outbox-seq is not a number": kafka(b"{}", ce_id="1", outbox_seq="-1"),
    "is not UTF-8": Delivery(
        topic="rooms", partition=2, offset=1754, headers=(("ce_id", b"\xff"),)
    ),
    "not a zlib stream": kafka(b"no", ce_id="1", content_encoding="deflate"),
    "inflates to more than": kafka(
        zlib.compress(bytes(MAX_BYTES + 1)), ce_id="1", content_encoding="deflate"
    ),
    "stream is truncated": kafka(
        zlib.compress(b"x" * 100)[:-4], ce_id="1", content_encoding="deflate"
    ),
    "not a gzip stream": kafka(b"no", ce_id="1", content_encoding="gzip"),
    "none of deflate, gzip": kafka(b"no", ce_id="1", content_encoding="br"),
    "is not a JSON object": kafka(b"[", content_type="application/cloudevents+json"),
    "a batch of CloudEvents": kafka(b"[]", content_type="application/cloudevents-batch+json"),
    "not base64": kafka(
        b'{"id": "1", "data_base64": "?"}', content_type="application/cloudevents+json"
    ),
    "event_id is not text": kafka(b'{"event_name": "n", "event_id": 1, "payload": {}}'),
}


@pytest.mark.parametrize("why", BROKEN)
def test_broken_bytes_are_an_error_that_names_their_place(why: str) -> None:
    """
    Topic, partition and offset, and what is wrong; never what the record holds.
    """
    with pytest.raises(UnreadableRecord, match=r"^rooms\[2\]@1754: ") as caught:
        decode(BROKEN[why])

    assert why in str(caught.value)


def test_a_payload_that_is_not_json_is_an_error_when_it_is_read() -> None:
    """
    A handler that forwards bytes need not care.
    """
    record = decode(kafka(b"{secret", ce_specversion="1.0", ce_id="1", ce_type="n"))

    assert record.data == b"{secret"
    with pytest.raises(UnreadableRecord, match="not JSON") as caught:
        _ = record.payload
    assert "secret" not in str(caught.value)
    assert "secret" not in repr(record)


def test_the_wrong_class_is_refused() -> None:
    """
    An event of another name may fit a class by chance.
    """
    record = decode(kafka(b'{"room_id": 1}', ce_specversion="1.0", ce_id="1", ce_type="RoomOpened"))

    with pytest.raises(WrongEvent, match="it is 'RoomOpened', not 'MeetingRoomClosed'"):
        RoomClosed.from_record(record)


def test_an_event_whose_record_says_no_id_has_one_of_its_own() -> None:
    """
    Each time another: nobody can tell by it that the event came before.
    """
    record = decode(kafka(b'{"room_id": 1, "note": "foo"}'))
    first, again = RoomClosed.from_record(record), RoomClosed.from_record(record)

    assert record.event_id is None
    assert first.room_id == 1
    assert first.event_id != again.event_id


def test_a_payload_that_does_not_fit_the_class_is_pydantics_error() -> None:
    """
    The payload is validated as JSON.
    """
    with pytest.raises(ValidationError, match="room_id"):
        RoomClosed.from_record(decode(relayed(b'{"room_id": "many"}')))


json_values = st.sampled_from(
    [
        None,
        True,
        7,
        -1.5,
        "text",
        "\ud800",
        str(ID),
        "AAEC",
        [],
        [1],
        {},
        {"payload": 1},
        {"event_id": 7},
    ]
)
members = st.sampled_from(
    sorted(
        {name for shape in SHAPES.values() for name in shape} | {"data_base64", "datacontenttype"}
    )
)
header_names = st.sampled_from(
    [
        "ce_id",
        "ce_type",
        "ce_specversion",
        "ce_source",
        "ce_time",
        "content-type",
        "outbox-seq",
        "content-encoding",
        "replay-of",
        "requeued-at",
        "event_name",
        "message_id",
    ]
)
header_values = st.binary(max_size=20) | st.sampled_from(
    [
        b"deflate",
        b"gzip",
        b"application/cloudevents+json",
        b"1.0",
        b"9" * 30,
        b"0001-01-01T00:00:00+23:59",
    ]
)
values = (
    st.none()
    | st.binary(max_size=60)
    | st.dictionaries(members, json_values, max_size=8).map(
        lambda found: json.dumps(found).encode()
    )
    | st.binary(max_size=30).map(zlib.compress)
)


@given(values, st.lists(st.tuples(header_names, header_values), max_size=6))
def test_no_bytes_end_the_consumer(value: bytes | None, headers: list[tuple[str, bytes]]) -> None:
    """
    Whatever comes is a record or an UnreadableRecord, and so is its payload.
    """
    delivery = Delivery(topic="t", partition=0, offset=0, value=value, headers=(*headers,))
    with suppress(UnreadableRecord):
        record = decode(delivery)
        assert repr(record)
        assert (record.data is None) == record.is_tombstone
        _ = record.payload


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


def test_an_instant_of_another_zone_is_utc() -> None:
    """
    ce_time may come with any offset.
    """
    record = decode(kafka(b"{}", ce_id="1", ce_time="2026-01-02T04:04:05+01:00"))

    assert record.time == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert record.time is not None
    assert record.time.utcoffset() == timedelta(0)


def test_anything_else_is_refused() -> None:
    """
    The error says what is taken.
    """
    with pytest.raises(TypeError, match="int is not a message of aiokafka"):
        read_record(7)
    assert isinstance(read_record(aiokafka_message(headers=None, timestamp=None)), ConsumedRecord)
