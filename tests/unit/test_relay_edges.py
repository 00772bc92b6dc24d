"""
Corners of the relay where an event was once lost, out of order or left to wait.
"""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from outbox_relay.errors import StoreUnavailable
from outbox_relay.relay.options import RelayOptions
from outbox_relay.relay.outcomes import Fault, Rejected, RejectReason, Unknown
from outbox_relay.relay.producer import EventProducer
from outbox_relay.schema import Status
from outbox_relay.testing import InMemoryStore, RecordingBroker

LARGE_BYTES = 16_384


class LargeByLarge(InMemoryStore):
    """Leaves large payloads out of what it reads, as the SQL stores do."""

    async def read(self, plan):
        rows = await super().read(plan)
        return [r._replace(payload=None) if r.payload_bytes > LARGE_BYTES else r for r in rows]


async def test_a_full_byte_budget_is_freed_again(start, store, broker, clock):
    """
    I7, I10. Reading goes on once what filled the budget is marked.
    """
    ids = [store.insert("orders", key=b"k", payload=b"x" * 16_000) for _ in range(40)]
    start(in_flight_rows=40, chunk_rows=20, in_flight_bytes=200_000)

    await clock.advance(60)

    assert broker.seqs() == ids


async def test_a_payload_that_cannot_be_fetched_keeps_its_place(start, broker, clock):
    """
    I4. A row whose transaction was open long, and whose payload fails to come, goes before the row
    that its transaction held up.
    """
    store = LargeByLarge(clock)
    running = start(store=store)
    await clock.advance(1)
    slow = store.begin()
    first = slow.insert("orders", key=b"k", payload=b"x" * 20_000)
    store.insert("orders", key=b"other")
    await clock.advance(5)
    store.fail("payload", StoreUnavailable("hiccup"))
    slow.commit()
    while "read_failed" not in running.watcher.names():
        await clock.advance(0.005)

    second = store.insert("orders", key=b"k")
    await clock.advance(5)

    assert [seq for seq in broker.seqs() if seq in (first, second)] == [first, second]


@pytest.mark.parametrize("others", [0, 5])
async def test_a_partition_without_an_answer_leaves_room_to_others(
    start, store, broker, clock, others
):
    """
    I7. It lets go of what waits behind its batch, however little room is left.
    """
    broker.hold("orders")
    for n in range(40 - others):
        store.insert("orders", key=b"%d" % n)
    for _ in range(others):
        store.insert("users", key=b"u")
    start(in_flight_rows=40, chunk_rows=20, batch_bytes=300)
    await clock.advance(1)

    late = store.insert("users", key=b"u")
    await clock.advance(5)

    assert late in broker.seqs("users")


async def test_many_sick_partitions_do_not_keep_the_cursor_from_the_tail(start, store, clock):
    """
    I7. Each that goes on again means a pass from the first pending row: one pass at a time.
    """
    broker = RecordingBroker(clock, {"sick": 100, "well": 1})
    broker.answer = lambda topic, *_: (
        Unknown(fault=Fault.PARTITION, detail="leader gone") if topic == "sick" else None
    )
    for n in range(2_000):
        store.insert("sick", key=b"%d" % n)
    store.before["read"] = lambda: clock.sleep(0.02)
    start(broker=broker, in_flight_rows=40, chunk_rows=20)
    await clock.advance(12)

    late = store.insert("well", key=b"w")
    await clock.advance(15)

    assert late in broker.seqs("well")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"headers": '{"a":"\\ud800"}'}, id="header-value"),
        pytest.param({"headers": '{"\\ud800":"a"}'}, id="header-name"),
        pytest.param({"headers": "[" * 100_000}, id="nesting"),
        pytest.param({"headers": '{"a": 1}'}, id="not-strings"),
        pytest.param({"created_us": None}, id="created-at"),
        pytest.param({"event_id": None}, id="event-id"),
    ],
)
async def test_a_row_that_breaks_the_rules_of_the_table_is_a_dead_letter_alone(
    start, store, broker, clock, change
):
    """
    I7. Any program may insert: what no relay can read ends neither the relay nor its neighbours.
    """
    before = store.insert("orders", key=b"k")
    bad = store.insert("orders", key=b"k")
    store.rows[bad].row = store.rows[bad].row._replace(**change)
    after = store.insert("orders", key=b"k")
    running = start()

    await clock.advance(5)

    assert broker.seqs() == [before, after]
    assert store.status(bad) is Status.DEAD
    assert not running.task.done()


async def test_rejected_rows_without_a_key_pause_the_topic_too(start, store, broker, clock):
    """
    I8. A topic that refuses every row is at fault itself, also when the rows have no key.
    """
    broker.answer = lambda *_: Rejected(reason=RejectReason.INVALID_RECORD, detail="no key")
    for _ in range(300):
        store.insert("orders")
    running = start()

    await clock.advance(60)

    assert "topic_paused" in running.watcher.names()
    assert running.watcher.names().count("dead_letter") < 30


@pytest.mark.parametrize("trouble", ["slow", "failing"])
async def test_nothing_is_published_before_the_pauses_are_known(
    start, store, broker, clock, trouble
):
    """
    A topic that an operator paused stays paused over a restart.
    """
    store.paused.add("orders")
    if trouble == "slow":
        store.before["paused_topics"] = lambda: clock.sleep(0.05)
    else:
        store.fail("paused_topics", StoreUnavailable("away"))
    store.insert("orders")
    well = store.insert("users")
    start()

    await clock.advance(5)

    assert broker.seqs() == [well]


async def test_a_stop_leaves_large_payloads_where_they_are(start, broker, clock):
    """
    I9. What waits for room is not fetched any more.
    """
    store = LargeByLarge(clock)
    for _ in range(300):
        store.insert("orders", key=b"k", payload=b"x" * 50_000)
    broker.hold("orders")
    running = start(store=store, in_flight_bytes=200_000)
    await clock.advance(1)
    fetched = store.calls.count("payload")

    running.producer.stop()
    await clock.advance(1)

    assert store.calls.count("payload") == fetched


async def test_a_reader_that_waits_for_room_is_alive(start, broker, clock):
    """
    Liveness is the loop going round; a long outage with large payloads is no reason for a restart.
    """
    store = LargeByLarge(clock)
    for _ in range(300):
        store.insert("orders", key=b"k", payload=b"x" * 50_000)
    running = start(store=store, in_flight_bytes=200_000)
    cycles: list[float] = []
    running.watcher.cycle = lambda: cycles.append(clock.now())
    await clock.advance(0.001)
    broker.down = True

    await clock.advance(300)

    assert max(b - a for a, b in zip(cycles, [*cycles[1:], clock.now()], strict=True)) < 5


async def test_until_empty_waits_for_what_is_only_parked(store, broker, clock):
    """
    A drain gives up on what failed many times, not on a partition whose leader just moved.
    """
    answers = [None, *[Unknown(fault=Fault.PARTITION, detail="not leader")] * 2]
    broker.answer = lambda *_: answers.pop(0) if answers else None
    broker.hold("orders")
    ids = [store.insert("orders", key=b"k") for _ in range(10)]
    options = RelayOptions(batch_bytes=300)
    producer = EventProducer(store, broker, clock=clock, random=Random(1), options=options)
    run = asyncio.create_task(producer.run(until_empty=True))
    await clock.advance(5)
    broker.let_go("orders")

    await clock.advance(30)

    assert run.done()
    assert broker.seqs() == ids
