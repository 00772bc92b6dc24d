"""
What consumers of python-cqrs read, made from our rows; and records without headers.

The expected bytes are what its releases sent, with a payload of their own.
"""

from __future__ import annotations

import json
import zlib

import pytest

from outbox_relay.brokers.record_batch import RecordBatch
from outbox_relay.relay.envelope import make_encoder, naive_time
from outbox_relay.relay.ports import Row
from outbox_relay.relay.wire import UnreadableRow, WireOptions
from outbox_relay.schema import Codec
from tests.unit.loops import loops  # noqa: F401 - every test runs over both
from tests.unit.test_record_batch import as_aiokafka_builds, built

ID = "00112233-4455-6677-8899-aabbccddeeff"
SENT = {
    "python-cqrs-0": (
        '{"message_type":"notification_event","message_name":"MeetingRoomClosed",'
        f'"message_id":"{ID}","payload":{{"event_id":"{ID}",'
        '"event_timestamp":"2026-01-02T03:04:05.678901","event_name":"MeetingRoomClosed",'
        '"payload":{"message":"foo"}}}'
    ),
    "python-cqrs-3": (
        f'{{"event_id":"{ID}","event_timestamp":"2026-01-02T03:04:05.678901",'
        '"event_name":"MeetingRoomClosed","topic":"rooms","payload":{"message":"foo"}}'
    ),
    "python-cqrs-4": (
        f'{{"payload":{{"message":"foo"}},"event_id":"{ID}",'
        '"event_timestamp":"2026-01-02T03:04:05.678901","event_name":"MeetingRoomClosed",'
        '"topic":"rooms"}'
    ),
    "python-cqrs-5": (
        '{"eventName":"MeetingRoomClosed","payload":{"message":"foo"},'
        '"eventId":"00112233445566778899aabbccddeeff",'
        '"eventTimestamp":"2026-01-02T03:04:05.678901","topic":"rooms"}'
    ),
}


def row(**changes) -> Row:
    columns = dict(
        id=1,
        topic="rooms",
        key=b"7",
        payload=b'{"message":"foo"}',
        payload_bytes=17,
        codec=int(Codec.RAW),
        headers=None,
        event_id=bytes.fromhex(ID.replace("-", "")),
        event_name="MeetingRoomClosed",
        content_type="application/json",
        created_us=1_767_323_045_678_901,
        requeued_us=None,
    )
    return Row(**(columns | changes))


def encoder(**wire):
    return make_encoder(WireOptions(**wire), max_payload_bytes=1000)


@pytest.mark.parametrize("shape", SENT)
@pytest.mark.parametrize("is_zlib", [False, True])
def test_a_value_has_the_bytes_that_its_release_sends(shape, is_zlib):
    """
    Whether the payload is compressed or not. The key and the headers are ours all the same.
    """
    stored = row()
    if is_zlib:
        stored = row(payload=zlib.compress(b'{"message":"foo"}'), codec=int(Codec.ZLIB))

    made = encoder(envelope=shape).record(stored)

    assert made.value == SENT[shape].encode()
    assert made.key == b"7"
    assert ("ce_type", b"MeetingRoomClosed") in made.headers


@pytest.mark.parametrize("shape", SENT)
def test_names_that_need_escaping_make_no_other_document(shape):
    """
    As orjson writes them: UTF-8, with quotes and control characters escaped.
    """
    name = 'a "quoted"\n\\ name ä \x1f'
    made = encoder(envelope=shape).record(row(event_name=name, topic="t\"'"))
    document = json.loads(made.value)

    assert name in (
        document.get("event_name"),
        document.get("eventName"),
        document.get("message_name"),
    )
    assert "ä".encode() in made.value


def test_the_seed_envelope_tells_state_transfer_from_notification():
    """
    A header of the row says what python-cqrs calls the event's type.
    """
    shaped = encoder(envelope="python-cqrs-0")
    stored = row(headers='{"message_type": "ecst_event"}')
    first, again = shaped.record(stored), shaped.record(stored)

    assert json.loads(first.value)["message_type"] == "ecst_event"
    assert again.value == first.value


def test_the_type_is_right_for_any_number_of_different_headers():
    """
    I10. What was read of them is remembered for some, and their number fills no memory.
    """
    made = encoder(envelope="python-cqrs-0")
    kinds = [f"kind-{number}" for number in range(1002)]
    texts = [json.dumps({"message_type": kind}) for kind in kinds]
    said = [json.loads(made.record(row(headers=text)).value)["message_type"] for text in texts * 2]

    assert said == kinds * 2
    assert len(made._types) <= 1001


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (dict(content_type="application/x-protobuf"), "holds JSON"),
        (dict(codec=9), "codec 9"),
        (dict(codec=int(Codec.ZLIB)), "not a zlib stream"),
        (dict(payload=zlib.compress(b"1" * 2000), codec=int(Codec.ZLIB)), "more than 1000 bytes"),
        (dict(headers="["), "rules"),
        (dict(event_id=b"short"), "rules"),
        (dict(created_us=2**62), "rules"),
    ],
)
def test_what_fits_no_document_is_unreadable(changes, said):
    """
    I2. It becomes a dead letter with the reason.
    """
    with pytest.raises(UnreadableRow, match=said):
        encoder(envelope="python-cqrs-4").record(row(**changes))


def test_a_tombstone_stays_one():
    """
    Kafka's null has no document.
    """
    made = encoder(envelope="python-cqrs-4").record(row(codec=int(Codec.TOMBSTONE)))

    assert made.value is None


def test_a_time_without_a_fraction_is_written_without_one():
    """
    As pydantic does.
    """
    assert naive_time(1_767_323_045_000_000) == "2026-01-02T03:04:05"


@pytest.mark.parametrize("others", [0, 1])
def test_a_record_without_headers_has_none_on_the_wire(others):
    """
    As python-cqrs sends them; also in a batch with records that have some.
    """
    bare = encoder(headers="none").record(row())
    records = [bare, *[encoder().record(row(id=2))] * others, bare]

    assert bare.headers == []
    assert built(records) == as_aiokafka_builds(records)
    assert bare.byte_count >= len(RecordBatch([bare], compression="none")._data)
