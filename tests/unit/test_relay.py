"""
The relay over the in-memory store and broker: promises I2 to I9, each in the time it takes.
"""

from __future__ import annotations

import asyncio

import pytest

from outbox_relay.errors import ConfigError, StoreUnavailable
from outbox_relay.relay.options import RelayOptions
from outbox_relay.relay.producer import EventProducer
from outbox_relay.schema import Status
from outbox_relay.testing import InMemoryStore, RecordingBroker
from tests.unit.faults import unavailable


async def test_committed_events_are_published_and_marked(start, store, broker, clock):
    """
    I2, I3. Every committed event is acked, and then marked.
    """
    ids = [store.insert("wide", key=b"%d" % n) for n in range(100)]
    start()

    await clock.advance(1)

    assert sorted(broker.seqs()) == ids
    assert store.pending() == []


async def test_rolled_back_and_uncommitted_events_are_not_published(start, store, broker, clock):
    """
    I1. An event exists if and only if its transaction committed.
    """
    open_transaction = store.begin()
    open_transaction.insert("orders")
    rolled_back = store.begin()
    rolled_back.insert("orders")
    start()
    await clock.advance(1)
    rolled_back.rollback()

    await clock.advance(5)

    assert broker.published == []


async def test_a_batch_without_an_answer_marks_nothing(start, store, broker, clock):
    """
    I3. Only an ack marks.
    """
    row_id = store.insert("orders", key=b"k")
    broker.hold("orders")
    start()

    await clock.advance(5)

    assert store.status(row_id) is Status.PENDING

    broker.let_go("orders")
    await clock.advance(1)

    assert store.status(row_id) is Status.PRODUCED


async def test_later_rows_of_a_partition_wait_for_the_batch_under_way(start, store, broker, clock):
    """
    I4. Batch n+1 is not published before batch n is acked.
    """
    first = store.insert("orders", key=b"k")
    broker.hold("orders")
    start()
    await clock.advance(1)
    second = store.insert("orders", key=b"k")
    await clock.advance(1)

    assert broker.published == []

    broker.let_go("orders")
    await clock.advance(1)

    assert broker.seqs() == [first, second]


async def test_a_crash_between_ack_and_mark_repeats_the_events(start, store, broker, clock):
    """
    I3, I6. If the relay dies after the ack and before the mark, the next one publishes again.
    """
    ids = [store.insert("orders", key=b"k") for _ in range(3)]
    running = start()
    store.fail("mark_produced", *[StoreUnavailable("away")] * 1000)
    await clock.advance(1)
    await running.crash()
    store._failures.clear()

    start()
    await clock.advance(14)
    assert broker.seqs() == ids

    await clock.advance(3)

    assert broker.seqs() == ids + ids
    assert store.pending() == []


async def test_a_relay_that_stops_hands_its_lanes_back_at_once(start, store, broker, clock):
    """
    I9. The next relay takes over within its standby interval, not after the lease.
    """
    first = start()
    await clock.advance(1)
    start()
    await first.stop()
    assert first.task.done()

    row_id = store.insert("orders")
    await clock.advance(2)

    assert broker.seqs() == [row_id]


async def test_one_relay_is_active_and_the_others_stand_by(start, store, broker, clock):
    """
    I6. Two relays publish nothing twice.
    """
    one, other = start(owner="pod-1"), start(owner="pod-2")

    for n in range(50):
        store.insert("wide", key=b"%d" % n)
        await clock.advance(0.1)

    assert len(broker.seqs()) == 50
    assert sum(call == "acquire" for call in store.calls) > 2
    assert [running.producer.owner for running in (one, other)] == ["pod-1", "pod-2"]


@pytest.mark.parametrize("trouble", ["none", "broker down", "batch held", "database away"])
async def test_a_stop_fits_its_budget(start, store, broker, clock, trouble):
    """
    I9. Whatever broker and database do.
    """
    running = start(stop_seconds=10)
    await clock.advance(1)
    if trouble == "broker down":
        broker.down = True
    if trouble == "batch held":
        broker.hold("orders")
    if trouble == "database away":
        store.before = dict.fromkeys(["read", "mark_produced", "renew", "release"], unavailable)
    store.insert("orders")
    await clock.advance(1)

    running.producer.stop()
    for _ in range(100):
        if running.task.done():
            break
        await clock.advance(0.1)

    assert running.task.done()
    assert running.task.exception() is None


async def test_a_stop_settles_and_marks_what_is_under_way(start, store, broker, clock):
    """
    I6. No duplicates without a fault.
    """
    ids = [store.insert("wide", key=b"%d" % n) for n in range(100)]
    running = start()
    await clock.advance(0)

    running.producer.stop()
    await clock.advance(1)
    start()
    await clock.advance(2)

    assert sorted(broker.seqs()) == ids


async def test_until_empty_returns_when_nothing_is_left(store, broker, clock):
    """
    `run --until-empty` drains what is there.
    """
    ids = [store.insert("wide", key=b"%d" % n) for n in range(100)]

    task = asyncio.create_task(EventProducer(store, broker, clock=clock).run(until_empty=True))
    await clock.advance(5)

    assert task.done()
    assert sorted(broker.seqs()) == ids


async def test_rows_in_flight_are_bounded(start, store, broker, clock):
    """
    I6, I10. No more than in_flight_rows are read and not yet marked.
    """
    for n in range(500):
        store.insert("wide", key=b"%d" % n)
    for partition in range(8):
        broker.hold("wide", partition)
    start(in_flight_rows=40, chunk_rows=10)

    await clock.advance(5)
    for partition in range(8):
        broker.let_go("wide", partition)
    await clock.advance(0)

    assert 0 < len(broker.published) <= 40


def test_settings_that_break_a_promise_are_refused_with_the_reason():
    """
    A lease shorter than the deadline would let two relays publish at once.
    """
    clock = None
    with pytest.raises(ConfigError) as refused:
        EventProducer(
            InMemoryStore(clock),
            RecordingBroker(clock, {}),
            options=RelayOptions(lease_seconds=5, chunk_rows=3001),
        )

    assert [problem.split(" = ")[0] for problem in refused.value.problems] == [
        "relay.chunk_rows",
        "relay.lease_seconds",
    ]


def test_a_word_that_is_none_of_a_settings_words_is_refused():
    """
    Also where no file is read, and nobody has checked it before.
    """
    options = RelayOptions(on_dead_letter="hold")

    assert options.problems() == ['relay.on_dead_letter must be one of "skip", "hold_key"']


async def test_large_payloads_are_fetched_in_their_place(start, store, broker, clock):
    """
    I4, I10. A row whose payload was left behind neither overtakes nor is overtaken.
    """
    ids = [store.insert("orders", key=b"k", payload=b"%d" % n) for n in range(9)]
    original = store.read

    async def read(plan):
        rows = await original(plan)
        return [row._replace(payload=None) if row.id % 3 == 0 else row for row in rows]

    store.read = read
    start()
    await clock.advance(1)

    assert broker.seqs() == ids
    assert broker.values("orders") == [b"%d" % n for n in range(9)]


async def test_bytes_in_flight_are_bounded(start, store, broker, clock):
    """
    I10. Large payloads wait in the database until there is room.
    """
    for n in range(20):
        store.insert("wide", key=b"%d" % n, payload=b"x" * 1000)
    original = store.read

    async def read(plan):
        return [row._replace(payload=None) for row in await original(plan)]

    store.read = read
    for partition in range(8):
        broker.hold("wide", partition)
    running = start(in_flight_bytes=5000)
    await clock.advance(3)

    assert running.producer._term.reading.bytes_in_flight <= 5000

    for partition in range(8):
        broker.let_go("wide", partition)
    await clock.advance(5)

    assert len(broker.published) == 20
