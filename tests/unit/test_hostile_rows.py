"""
Rows that no writer of ours would write: inserted by SQL, with whatever the columns take.
"""

from __future__ import annotations

import asyncio
import json
import zlib
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from outbox_relay.relay.outcomes import RejectReason
from outbox_relay.relay.ports import Row
from outbox_relay.schema import Codec, Status
from outbox_relay.testing import FakeClock, InMemoryStore, RecordingBroker
from tests.unit.conftest import Running
from tests.unit.loops import loops  # noqa: F401 - every test runs over both

BOMB = zlib.compress(bytes(40_000_000))

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
headers = st.one_of(
    st.none(),
    st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=3).map(json.dumps),
    json_values.map(json.dumps),
    st.text(max_size=12),
    st.sampled_from(
        ["[" * 100_000, '{"a": "\\ud800"}', '{"\\u0000": "\\u0000"}', "9" * 5000, "\0"]
    ),
)
hostile = st.fixed_dictionaries(
    {
        "key": st.none() | st.binary(max_size=8) | st.just(b"\0" * 1024),
        "payload": st.sampled_from([b"", b"\0", BOMB, BOMB[:-1], b"{}", zlib.compress(b"{}")])
        | st.binary(max_size=20),
        "codec": st.sampled_from([*Codec, 4, 9, 255, -1, 32_767]),
        "headers": headers,
        "event_name": st.text(max_size=8) | st.just("x" * 255) | st.just("\0"),
        "content_type": st.text(max_size=8) | st.just("\r\nx: y"),
        "created_us": st.sampled_from([0, -1, -(10**15), 253_402_300_799_999_999])
        | st.integers(0, 2**51),
        "requeued_us": st.none() | st.integers(-(10**15), 2**51),
    }
)


def insert(store: InMemoryStore, **columns: Any) -> int:
    row_id = store.insert("orders", key=columns["key"], payload=columns["payload"])
    stored = store.rows[row_id]
    stored.row = stored.row._replace(**columns)
    return row_id


async def relay(rows: list[dict[str, Any]]) -> tuple[InMemoryStore, RecordingBroker, list[int]]:
    """A relay's work on *rows* with a good row behind each."""
    clock = FakeClock()
    store, broker = InMemoryStore(clock), RecordingBroker(clock, {"orders": 1})
    good = []
    for number, columns in enumerate(rows):
        insert(store, **columns)
        good.append(store.insert("orders", key=b"good%d" % number))
    running = Running(clock, store, broker)
    await clock.advance(3)
    await running.stop()
    await running.task
    return store, broker, good


@settings(deadline=None)
@given(rows=st.lists(hostile, max_size=4))
def test_any_row_is_published_or_a_dead_letter_and_good_ones_arrive(
    rows: list[dict[str, Any]],
) -> None:
    """
    I2, I7. Nothing that a row holds ends the relay, holds up other keys, or is left pending.
    """
    store, broker, good = asyncio.run(relay(rows))

    assert [store.status(row_id) for row_id in good] == [Status.PRODUCED] * len(good)
    for row_id, stored in store.rows.items():
        assert stored.status is Status.PRODUCED or (store.error(row_id) or "").startswith(
            RejectReason.UNREADABLE
        )
        assert (stored.status is Status.PRODUCED) == (row_id in broker.seqs())


def test_no_codec_lets_a_small_row_fill_the_memory() -> None:
    """
    I10. 40 MB in 40 kB: the row is a dead letter, under each codec that inflates; others stay as small
    as they are.
    """
    rows: list[dict[str, Any]] = [
        {
            "key": b"k%d" % codec,
            "payload": BOMB,
            "codec": codec,
            "headers": None,
            "event_name": "e",
            "content_type": "c",
            "created_us": 1,
            "requeued_us": None,
        }
        for codec in Codec
    ]
    store, broker, _ = asyncio.run(relay(rows))
    by_codec = {
        stored.row.codec: stored for stored in store.rows.values() if stored.row.payload == BOMB
    }
    biggest = max(len(published.record.value or b"") for published in broker.published)

    assert by_codec[Codec.ZLIB].last_error == (
        f"{RejectReason.UNREADABLE}: the payload inflates to more than 16777215 bytes"
    )
    assert by_codec[Codec.ZSTD].status is Status.DEAD
    assert biggest == len(BOMB)


def test_fields_of_a_row_are_those_that_are_tried() -> None:
    """
    A new column of a row has hostile values here too.
    """
    tried = {"id", "topic", "payload_bytes", "event_id", "lane"} | {
        "key",
        "payload",
        "codec",
        "headers",
        "event_name",
        "content_type",
        "created_us",
        "requeued_us",
    }

    assert set(Row._fields) == tried
