"""
What goes on the wire: CloudEvents in binary mode, and the row's own headers.
"""

from __future__ import annotations

import json
import uuid
import zlib

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from hypothesis import given
from hypothesis import strategies as st

from outbox_relay.relay import wire
from outbox_relay.relay.ports import Row
from outbox_relay.relay.wire import Encoder, UnreadableRow
from outbox_relay.schema import Codec
from tests.unit.loops import loops  # noqa: F401 - every test runs over both

EVENT_ID = uuid.UUID("018f4e5a-1b2c-7d3e-8f40-112233445566")


def row(**changes) -> Row:
    fields = {
        "id": 7,
        "topic": "orders",
        "key": b"k",
        "payload": b'{"a":1}',
        "payload_bytes": 7,
        "codec": Codec.RAW,
        "headers": None,
        "event_id": EVENT_ID.bytes,
        "event_name": "order.placed",
        "content_type": "application/json",
        "created_us": 1_700_000_000_123_456,
        "requeued_us": None,
    }
    return Row(**(fields | changes))


def encode(**changes):
    return Encoder(source="/relay", max_payload_bytes=1000).record(row(**changes))


def test_a_record_is_a_cloud_event_in_binary_mode():
    """
    cloudevents/spec, Kafka protocol binding 1.0.2: attributes are headers, the value is the data.
    """
    record = encode()

    assert dict(record.headers) == {
        "ce_specversion": b"1.0",
        "ce_id": b"018f4e5a-1b2c-7d3e-8f40-112233445566",
        "ce_type": b"order.placed",
        "ce_source": b"/relay",
        "ce_time": b"2023-11-14T22:13:20.123456Z",
        "content-type": b"application/json",
        "outbox-seq": b"7",
    }
    assert len(record.headers) == 7
    assert (record.key, record.value, record.timestamp_ms) == (b"k", b'{"a":1}', 1_700_000_000_123)


def test_the_writers_headers_travel_and_its_source_wins():
    """
    `Outbox(source=...)` stores ce_source with the event; the relay's is for rows without one.
    """
    headers = dict(encode(headers='{"ce_source": "/shop", "traceparent": "00-a-b-01"}').headers)

    assert headers["ce_source"] == b"/shop"
    assert headers["traceparent"] == b"00-a-b-01"


def test_the_relays_own_headers_cannot_be_overwritten():
    """
    A consumer may rely on ce_id and outbox-seq, whoever inserted the row.
    """
    record = encode(headers='{"ce_id": "x", "outbox-seq": "x", "requeued-at": "x"}')

    names = [name for name, _ in record.headers]
    assert sorted(names) == sorted(set(names))
    assert dict(record.headers)["outbox-seq"] == b"7"
    assert "requeued-at" not in names


def test_a_requeued_event_says_when():
    """
    I4. One of the two exceptions to order, said aloud.
    """
    headers = dict(encode(requeued_us=1_700_000_001_000_000).headers)

    assert headers["requeued-at"] == b"2023-11-14T22:13:21.000000Z"


@pytest.mark.parametrize(
    ("changes", "value"),
    [
        ({"codec": Codec.ZLIB, "payload": zlib.compress(b"x" * 900)}, b"x" * 900),
        ({"codec": Codec.TOMBSTONE, "payload": b""}, None),
        ({"payload": b""}, b""),
        ({"key": None}, b'{"a":1}'),
    ],
)
def test_the_value_is_the_payload_as_it_was_before_it_was_stored(changes, value):
    """
    Inflated and never parsed; a tombstone is Kafka's null.
    """
    assert encode(**changes).value == value


def test_a_compressed_payload_may_pass_through():
    """
    wire.compressed_payloads = "pass_through": the stored bytes, and a header that says what they
    are (RFC 9110: deflate is the zlib format). Other rows travel as ever.
    """
    encoder = Encoder(source="/relay", max_payload_bytes=10, pass_through=True)
    stored = zlib.compress(b"x" * 900)

    packed = encoder.record(row(codec=Codec.ZLIB, payload=stored))
    plain = encoder.record(row())
    tombstone = encoder.record(row(codec=Codec.TOMBSTONE, payload=b""))

    assert packed.value == stored
    assert dict(packed.headers)["content-encoding"] == b"deflate"
    assert (plain.value, tombstone.value) == (b'{"a":1}', None)
    assert "content-encoding" not in dict(plain.headers) | dict(tombstone.headers)


def test_an_encoding_of_the_writers_own_comes_first():
    """
    RFC 9110, 8.4: encodings stand in the order in which they were applied.
    """
    encoder = Encoder(source="/relay", max_payload_bytes=10, pass_through=True)
    stored = zlib.compress(b"x")

    made = encoder.record(
        row(codec=Codec.ZLIB, payload=stored, headers='{"content-encoding": "gzip"}')
    )

    assert [v for k, v in made.headers if k == "content-encoding"] == [b"gzip, deflate"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"codec": Codec.ZLIB, "payload": b"{}"}, "not a zlib stream"),
        ({"codec": Codec.ZLIB, "payload": zlib.compress(b"x" * 500)[:-3]}, "truncated"),
        ({"codec": Codec.ZLIB, "payload": zlib.compress(b"x") + b"y"}, "bytes follow"),
        ({"codec": Codec.ZLIB, "payload": zlib.compress(bytes(10**6))}, "more than 1000 bytes"),
        ({"codec": Codec.ZSTD}, "codec 2"),
        ({"codec": 77}, "codec 77"),
        ({"codec": Codec.TOMBSTONE, "key": None}, "needs a key"),
        ({"headers": "no json"}, "not JSON"),
        ({"headers": "[1]"}, "not a JSON object of strings"),
        ({"headers": '{"a": 1}'}, "not a JSON object of strings"),
    ],
)
def test_what_cannot_become_a_record_says_why(changes, reason):
    """
    I2, I7. The text is the dead letter's reason.
    """
    with pytest.raises(UnreadableRow, match=reason):
        encode(**changes)


@given(
    key=st.none() | st.binary(max_size=300),
    payload=st.binary(max_size=900),
    headers=st.none() | st.dictionaries(st.text(max_size=40), st.text(max_size=40), max_size=9),
    name=st.text(min_size=1, max_size=60),
    number=st.integers(min_value=1, max_value=2**63 - 1),
)
def test_the_size_is_an_upper_bound_of_the_records_bytes(key, payload, headers, name, number):
    """
    Batches are cut by it, and a record over the limit is refused by it: it must never be too small.
    """
    record = encode(
        id=number,
        key=key,
        payload=payload,
        event_name=name,
        headers=None if headers is None else json.dumps(headers),
    )

    actual = DefaultRecordBatchBuilder.estimate_size_in_bytes(
        record.key, record.value, record.headers
    )
    batch = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, 0, 10**7)
    added = batch.append(0, record.timestamp_ms, record.key, record.value, record.headers)

    assert added.size <= record.byte_count
    assert actual <= record.byte_count + 61


@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {
                "event_name": st.sampled_from(["order.placed", "order.cancelled", ""]),
                "content_type": st.sampled_from(["application/json", ""]),
                "headers": st.sampled_from([None, "{}", '{"ce_source": "/shop"}', '{"a": "b"}']),
                "codec": st.sampled_from([Codec.RAW, Codec.TOMBSTONE]),
                "created_us": st.sampled_from([0, 1_700_000_000_123_456, 1_700_000_001_000_000]),
                "requeued_us": st.sampled_from([None, 1_700_000_000_000_000]),
            }
        ),
        min_size=1,
        max_size=8,
    )
)
def test_a_record_does_not_depend_on_the_rows_before_it(rows):
    """
    What the encoder keeps of earlier rows saves work and changes nothing.
    """
    encoder = Encoder(source="/relay", max_payload_bytes=1000)

    for changes in rows:
        seen, alone = encoder.record(row(**changes)), encode(**changes)

        assert (seen.headers, seen.byte_count) == (alone.headers, alone.byte_count)
        assert (seen.time, seen.timestamp_ms) == (alone.time, alone.timestamp_ms)


def test_kinds_of_rows_are_remembered_up_to_a_limit(monkeypatch):
    """
    I10. Names and headers that never come again cost no memory for ever, and change no record.
    """
    monkeypatch.setattr(wire, "_MOST_SHARED", 3)
    monkeypatch.setattr(wire, "_MOST_OWN", 3)
    encoder = Encoder(source="/relay", max_payload_bytes=1000)
    for number in range(20):
        changes = {"event_name": f"name-{number}", "headers": json.dumps({"h": str(number)})}
        kept = encoder.record(row(**changes))

        assert dict(kept.headers) == dict(encode(**changes).headers)
        assert len(encoder._shared) <= 4
        assert len(encoder._own) <= 4


class Loops:
    """The loops in C, which know one kind of rows at a time, as the test sees them."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def record(self, make, row, kind, limit, as_stored):
        self.asked.append(kind[0] if isinstance(kind[0], str) else "")
        if row.event_name != kind[0] or row.event_name == "odd":
            return None
        return f"{row.event_name} in C"


def test_c_is_asked_again_with_what_was_learnt_and_python_does_the_rest(monkeypatch):
    """
    A row of another kind than the last costs one more question; one that C leaves to Python none more.
    """
    loops_in_c = Loops()
    monkeypatch.setattr(wire, "native", loops_in_c)
    encoder = Encoder(source="/relay", max_payload_bytes=1000)
    made = [encoder.record(row(event_name=name)) for name in ("a", "a", "b", "odd", "odd")]

    assert made[:3] == ["a in C", "a in C", "b in C"]
    assert [dict(record.headers)["ce_type"] for record in made[3:]] == [b"odd", b"odd"]
    assert loops_in_c.asked == ["", "a", "a", "a", "b", "b", "odd", "odd"]
