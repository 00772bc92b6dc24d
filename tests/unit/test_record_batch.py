"""
Record batches on the wire: the same bytes as Kafka's own format, whoever builds them.
"""

from __future__ import annotations

from random import Random

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import decode_varint
from hypothesis import given
from hypothesis import strategies as st

from outbox_relay.brokers.record_batch import RecordBatch, varint
from outbox_relay.relay.ports import Record, Row
from outbox_relay.relay.wire import Encoder
from outbox_relay.schema import Codec
from outbox_relay.testing import record
from tests.unit.loops import loops  # noqa: F401 - every test runs over both

CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}


def as_aiokafka_builds(records: list[Record], *, compression: str = "none") -> bytes:
    """The same batch by aiokafka's builder."""
    builder = DefaultRecordBatchBuilder(2, CODECS[compression], 0, -1, -1, 0, 2**31 - 1)
    for offset, one in enumerate(records):
        builder.append(offset, one.timestamp_ms, one.key, one.value, one.headers)
    builder.set_producer_state(4711, 3, 99)
    return bytes(builder.build())


def built(records: list[Record], *, compression: str = "none") -> bytes:
    batch = RecordBatch(records, compression=compression)
    batch._set_producer_state(4711, 3, 99)
    return bytes(batch._build())


rows = st.builds(
    Row,
    id=st.integers(min_value=1, max_value=2**63 - 1),
    topic=st.just("orders"),
    key=st.none() | st.binary(max_size=300),
    payload=st.binary(max_size=900),
    payload_bytes=st.just(0),
    codec=st.just(Codec.RAW),
    headers=st.sampled_from([None, '{"ce_source": "/shop"}', '{"traceparent": "00-a-b-01"}', "{}"]),
    event_id=st.binary(min_size=16, max_size=16),
    event_name=st.sampled_from(["order.placed", "order.cancelled", "é"]),
    content_type=st.just("application/json"),
    created_us=st.integers(min_value=0, max_value=2**57),
    requeued_us=st.none() | st.integers(min_value=0, max_value=2**50),
)


@given(rows=st.lists(rows, min_size=1, max_size=12))
def test_a_batch_has_the_bytes_that_aiokafka_would_write(rows):
    """
    Record format v2, byte for byte: lengths, deltas, headers, producer state and checksum.
    """
    encoder = Encoder(source="/relay", max_payload_bytes=1000)
    records = [encoder.record(row) for row in rows]

    assert built(records) == as_aiokafka_builds(records)


@pytest.mark.parametrize("compression", CODECS)
def test_a_compressed_batch_has_the_same_records(compression):
    """
    Every codec of kafka.compression; the attributes say which one.
    """
    records = [record(b"k%d" % n, b"value %d " % n * 50, seq=n) for n in range(1, 200)]

    batch = built(records, compression=compression)
    read = list(MemoryRecords(batch).next_batch())

    # A gzip stream says when it was made.
    assert compression == "gzip" or batch == as_aiokafka_builds(records, compression=compression)
    assert [(r.key, r.value) for r in read] == [(r.key, r.value) for r in records]
    assert [list(r.headers) for r in read] == [r.headers for r in records]
    assert MemoryRecords(batch).next_batch().validate_crc()


def test_what_does_not_get_smaller_travels_as_it_is():
    """
    A small batch would only grow.
    """
    records = [record(b"k", Random(1).randbytes(5000), seq=1)]

    assert built(records, compression="gzip") == built(records)


def test_a_tombstone_and_no_key_are_null_and_not_empty():
    """
    Kafka tells a null from an empty value.
    """
    records = [record(b"k", None, seq=1), record(None, b"", seq=2), record(b"", b"v", seq=3)]

    read = list(MemoryRecords(built(records)).next_batch())

    assert [(r.key, r.value) for r in read] == [(b"k", None), (None, b""), (b"", b"v")]


def test_a_batch_that_is_sent_again_has_the_same_bytes():
    """
    The sender builds it for every attempt; the broker tells a repetition by producer and sequence.
    """
    batch = RecordBatch([record(b"k", b"v", seq=1)], compression="none")
    batch._set_producer_state(1, 2, 3)
    first = bytes(batch._build())

    assert bytes(batch._build()) == first
    assert (batch.size(), batch.record_count(), batch.closed()) == (len(first), 1, True)


@given(number=st.integers(min_value=-(2**62), max_value=2**62))
def test_a_varint_is_zigzag_in_base_128(number):
    """
    developers.google.com/protocol-buffers/docs/encoding: small numbers of either sign are short.
    """
    assert decode_varint(bytearray(varint(number)))[0] == number
