"""
The hot loops in C: the same records and bytes as in Python, and Python for all that is not usual.

`test_wire.py` and `test_record_batch.py` state what those are; they run over both.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zlib
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from outbox_relay.brokers.record_batch import encode, encode_in_python
from outbox_relay.native import native
from outbox_relay.relay.ports import HeaderBlock, Record, Row
from outbox_relay.relay.wire import Encoder, UnreadableRow
from outbox_relay.schema import Codec
from tests.unit.loops import IN_C, in_python

pytestmark = pytest.mark.skipif(native is None, reason="built without a C compiler")

LIMIT = 1000

contents = st.binary(max_size=60) | st.integers(min_value=0, max_value=LIMIT + 50).map(bytes)
streams = contents.map(zlib.compress)
damaged = st.builds(
    lambda stream, at, byte: stream[:at] + bytes([byte]) + stream[at + 1 :],
    streams,
    st.integers(min_value=0, max_value=40),
    st.integers(min_value=0, max_value=255),
)
payloads = st.one_of(
    streams,
    damaged,
    streams.map(lambda stream: stream[:-1]),
    streams.map(lambda stream: stream + b"more"),
    st.binary(max_size=50),
)
rows = st.builds(
    Row,
    id=st.integers(min_value=-1, max_value=2**64),
    topic=st.just("orders"),
    key=st.none() | st.binary(max_size=300) | st.just(bytearray(b"k")),
    payload=payloads,
    payload_bytes=st.just(0),
    codec=st.sampled_from([1, 1, 1, 0, 2, 3, Codec.ZLIB, 7, 2**70]),
    headers=st.sampled_from([None, None, '{"ce_source": "/shop"}', "{}", "[]", "{"]),
    event_id=st.binary(min_size=16, max_size=16) | st.just(b"short") | st.just("text"),
    event_name=st.sampled_from(["order.placed", "order.placed", "é", "\ud800"]),
    content_type=st.sampled_from(["application/json", ""]),
    created_us=st.sampled_from([0, 999_999, 1_700_000_000_123_456, 253402300799999999, -1, 2**62]),
    requeued_us=st.sampled_from([None, None, 1_700_000_000_000_000]),
)


def outcome(encoder: Encoder, row: Row) -> object:
    """The record's fields and headers, or why there is none."""
    try:
        record = encoder.record(row)
    except UnreadableRow as error:
        return str(error)
    return type(record), record[:6], record.headers, record.byte_count


@given(rows=st.lists(rows, min_size=1, max_size=6), pass_through=st.booleans())
def test_a_row_becomes_the_same_record_in_c_as_in_python(rows, pass_through):
    """
    Or it is refused with the same words: damaged, truncated, too large, of an unknown kind.
    """
    options = {"source": "/relay", "max_payload_bytes": LIMIT, "pass_through": pass_through}
    in_c, other = Encoder(**options), Encoder(**options)

    for row in rows:
        expected = in_python(lambda row=row: outcome(other, row))

        assert outcome(in_c, row) == expected


def test_a_large_payload_is_inflated_in_python():
    """
    Which lets other threads run meanwhile, and needs no buffer of a fixed size.
    """
    for content in (bytes(LIMIT), bytes(200_000), Random(1).randbytes(40_000)):
        row = Row(1, "t", None, zlib.compress(content), 0, 1, None, bytes(16), "e", "c", 0, None)

        assert Encoder(source="/relay", max_payload_bytes=10**6).record(row).value == content


records = st.builds(
    Record,
    key=st.none() | st.binary(max_size=200),
    value=st.none() | st.binary(max_size=3000),
    timestamp_ms=st.integers(min_value=0, max_value=2**55),
    event_id=st.binary(max_size=40),
    time=st.binary(max_size=30),
    seq=st.binary(max_size=20),
    shared=st.sampled_from([HeaderBlock(()), HeaderBlock((("ce_type", b"x"), ("é", b"")))]),
    own=st.builds(
        HeaderBlock,
        st.lists(st.tuples(st.text(max_size=70), st.binary(max_size=200)), max_size=70).map(tuple),
    ),
    byte_count=st.just(0),
)


@given(records=st.lists(records, min_size=1, max_size=20))
def test_records_become_the_same_bytes_in_c_as_in_python(records):
    """
    Record format v2 (kafka.apache.org/documentation/#record), whatever the lengths.
    """
    assert encode(records) == encode_in_python(records)


def test_large_batches_become_the_same_bytes():
    """
    Where the buffer must grow, more than once.
    """
    block = HeaderBlock(())
    made = [
        Record(b"k", bytes(size), 1, b"i", b"t", b"s", block, block, 0)
        for size in (0, 200_000, 1, 3_000_000, 70_000)
    ]

    assert encode(made) == encode_in_python(made)


@pytest.mark.parametrize(
    "changes",
    [{"key": "text"}, {"value": bytearray(b"v")}, {"timestamp_ms": -1}, {"seq": None}],
    ids=lambda changes: next(iter(changes)),
)
def test_what_is_not_usual_is_left_to_python(changes):
    """
    C answers None and touches nothing; so no wrong type can reach its pointers.
    """
    block = HeaderBlock(())
    made = Record(b"k", b"v", 1, b"i", b"t", b"s", block, block, 0)._replace(**changes)

    assert native.encode([made], lambda block: b"") is None


@given(anything=st.lists(st.none() | st.integers() | st.binary() | st.text(), max_size=14))
@example(anything=[])
def test_nothing_that_is_no_row_or_record_is_touched(anything):
    """
    Tuples of any shape get None or a TypeError.
    """
    row = tuple(anything)

    assert native.record(Record, row, row, 10, False) is None
    assert native.encode([row], lambda block: b"") is None


def test_c_is_left_out_on_request():
    """
    OUTBOX_RELAY_PURE_PYTHON=1, to find out whether a difference comes from there.
    """
    program = "from outbox_relay.native import native; print(native)"
    environment = os.environ | {"OUTBOX_RELAY_PURE_PYTHON": "1"}
    said = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )

    assert said.stdout.strip() == "None"
    assert IN_C
