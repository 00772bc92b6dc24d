"""
What a consumer is sent and cannot read: an error that names its place, and nothing that it holds.
"""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from outbox_relay.consumer import Delivery, decode
from outbox_relay.consumer.decoding import MAX_BYTES
from outbox_relay.errors import UnreadableRecord, WrongEvent
from tests.unit.consumed import ID, SHAPES, RoomClosed, kafka, relayed

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
    "gzip stream is truncated": kafka(
        gzip.compress(b"x" * 100)[:-4], ce_id="1", content_encoding="gzip"
    ),
    "or followed by bytes": kafka(
        gzip.compress(b"x" * 100) + b"more", ce_id="1", content_encoding="gzip"
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


@pytest.mark.parametrize("text", ["9223372036854775808", "1" * 5000, "1.0", "", "٣"])
def test_a_number_that_no_outbox_gives_is_an_error(text: str) -> None:
    """
    In the inbox' column it would fail at each attempt, as if the database were to blame.
    """
    with pytest.raises(UnreadableRecord, match="outbox-seq is not a number"):
        decode(kafka(b"{}", ce_id="1", outbox_seq=text))


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_a_small_value_cannot_fill_the_memory(pack: Callable[[bytes], bytes]) -> None:
    """
    I10. A hundred megabytes of nothing, compressed: it is refused when the limit is reached, not after.
    """
    encoding = "gzip" if pack is gzip.compress else "deflate"
    bomb = kafka(pack(bytes(100_000_000)), ce_id="1", content_encoding=encoding)
    tracemalloc.start()
    try:
        with pytest.raises(UnreadableRecord, match="inflates to more than 1000000 bytes"):
            decode(bomb, max_bytes=1_000_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 10_000_000


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
