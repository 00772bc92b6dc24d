"""
The relay over the in-memory store and broker: promises I2 to I9, each in the time it takes.
"""

from __future__ import annotations

import asyncio

import pytest

from outbox_relay.errors import ConfigError, StoreUnavailable
from outbox_relay.relay.options import RelayOptions
from outbox_relay.relay.outcomes import Fault, Rejected, RejectReason, Unknown
from outbox_relay.relay.producer import EventProducer
from outbox_relay.schema import Codec, Status
from outbox_relay.testing import InMemoryStore, RecordingBroker


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
    start()
    start()

    for n in range(50):
        store.insert("wide", key=b"%d" % n)
        await clock.advance(0.1)

    assert len(broker.seqs()) == 50
    assert sum(call == "acquire" for call in store.calls) > 2


async def test_an_outage_of_the_broker_costs_no_event(start, store, broker, clock):
    """
    I8. However long it lasts, nothing is given up and nothing needs a restart.
    """
    running = start()
    await clock.advance(1)
    broker.down = True
    ids = [store.insert("wide", key=b"%d" % n) for n in range(20)]
    await clock.advance(900)
    assert broker.published == []

    broker.down = False
    await clock.advance(3)

    assert sorted(broker.seqs()) == ids
    assert not running.task.done()
    assert "dead_letter" not in running.watcher.names()


async def test_nothing_is_read_while_no_broker_answers(start, store, broker, clock):
    """
    I10. An outage does not turn the backlog over and over.
    """
    broker.down = True
    store.insert("orders")
    start()
    await clock.advance(60)
    store.calls.clear()

    await clock.advance(60)

    assert store.calls.count("read") == 0


async def test_an_outage_of_the_database_costs_no_event(start, store, broker, clock):
    """
    I8, I6. A lease that ran out but that nobody took is still ours: nothing is published twice.
    """
    running = start()
    await clock.advance(1)
    ids = [store.insert("orders", key=b"k")]
    for method in ("read", "renew", "mark_produced", "max_id", "sample", "uncommitted_ids"):
        store.before[method] = _unavailable
    await clock.advance(60)

    store.before.clear()
    ids.append(store.insert("orders", key=b"k"))
    await clock.advance(10)

    assert broker.seqs() == ids
    assert store.pending() == []
    assert not running.task.done()


def _unavailable() -> None:
    raise StoreUnavailable("away")


async def test_a_relay_that_cannot_renew_stops_publishing_before_its_lease_can_pass_on(
    start, store, broker, clock
):
    """
    I5. The trust window counts from the start of the renewal.
    """
    start()
    await clock.advance(1)
    store.before["renew"] = _unavailable
    await clock.advance(6)
    store.insert("orders")

    await clock.advance(20)

    assert broker.published == []


async def test_a_stale_relay_marks_nothing_and_begins_anew(start, store, broker, clock):
    """
    I5. Its term is over: another relay took the lanes.
    """
    running = start()
    await clock.advance(1)
    store.before["renew"] = _unavailable
    await clock.advance(16)
    assert await store.acquire("other", wake_address="", lease_seconds=15) is not None
    store.before.clear()

    await clock.advance(3)

    assert "term_over" in running.watcher.names()
    assert not running.producer.active


async def test_an_oversized_event_is_a_dead_letter_and_its_neighbours_arrive(
    start, store, broker, clock
):
    """
    I7. One record too large, among good ones of its key and of others, in one batch.
    """
    broker.max_record_bytes = 1000
    before = [store.insert("orders", key=b"k"), store.insert("orders", key=b"other")]
    large = store.insert("orders", key=b"k", payload=b"x" * 2000)
    after = [store.insert("orders", key=b"k"), store.insert("orders", key=b"other")]
    start()

    await clock.advance(2)

    assert broker.seqs() == before + after
    assert store.status(large) is Status.DEAD
    assert store.error(large).startswith("too_large: ")


async def test_a_key_goes_on_only_when_its_dead_letter_is_durable(start, store, broker, clock):
    """
    I4, I2. A crash in between must not lose the place of the dead letter.
    """
    broker.max_record_bytes = 1000
    large = store.insert("orders", key=b"k", payload=b"x" * 2000)
    store.insert("orders", key=b"k")
    store.before["mark_dead"] = _unavailable
    start()
    await clock.advance(5)
    assert broker.published == []

    store.before.clear()
    await clock.advance(10)

    assert store.status(large) is Status.DEAD
    assert len(broker.seqs()) == 1


@pytest.mark.parametrize(
    ("codec", "payload", "key"),
    [
        (Codec.ZLIB, b"no zlib", b"k"),
        (Codec.ZSTD, b"x", b"k"),
        (9, b"x", b"k"),
        (Codec.TOMBSTONE, b"", None),
    ],
)
async def test_an_unreadable_row_is_a_dead_letter_alone(
    start, store, broker, clock, codec, payload, key
):
    """
    I7. Whatever is wrong with a row, the next one goes on.
    """
    transaction = store.begin()
    bad = transaction.insert("orders", key=key, payload=payload, codec=codec)
    good = transaction.insert("orders", key=b"k")
    transaction.commit()
    start()

    await clock.advance(2)

    assert store.status(bad) is Status.DEAD
    assert store.error(bad).startswith("unreadable: ")
    assert broker.seqs() == [good]


async def test_many_rejections_in_a_row_pause_the_topic(start, store, broker, clock):
    """
    I7. A lowered max.message.bytes cannot fill the dead letters.
    """
    broker.max_record_bytes = 1
    ids = [store.insert("orders", key=b"%d" % n) for n in range(100)]
    running = start()

    await clock.advance(60)

    dead = [row_id for row_id in ids if store.status(row_id) is Status.DEAD]
    assert 5 <= len(dead) <= 15
    assert "topic_paused" in running.watcher.names()


async def test_a_missing_topic_pauses_alone_and_heals_by_itself(start, store, broker, clock):
    """
    I7, I8. Nothing of it is given up, and others go on meanwhile.
    """
    missing = [store.insert("missing", key=b"k") for _ in range(3)]
    good = store.insert("orders", key=b"k")
    start()
    await clock.advance(5)
    assert broker.seqs() == [good]

    broker.topics["missing"] = 2
    missing.append(store.insert("missing", key=b"k"))
    await clock.advance(120)

    assert broker.seqs("missing") == missing
    assert store.pending() == []


async def test_a_sick_partition_does_not_hold_up_the_others(start, store, broker, clock):
    """
    I7. What it holds is let go, so that there is room for others, and found again in order.
    """
    sick = [store.insert("orders", key=b"k") for _ in range(60)]
    broker.hold("orders")
    start(in_flight_rows=40, chunk_rows=10)
    healthy = []
    for n in range(100):
        healthy.append(store.insert("users", key=b"%d" % n))
        await clock.advance(0.1)
    await clock.advance(1)
    assert sorted(broker.seqs("users")) == healthy

    broker.let_go("orders")
    await clock.advance(90)

    assert broker.seqs("orders") == sick
    assert store.pending() == []


async def test_a_slow_broker_parks_nothing(start, store, broker, clock):
    """
    I10. Where all wait alike for a broker that is slow and alive, nothing is let go to be read again.
    """
    broker.topics["many"] = 100
    ids = [store.insert("many", key=b"%d" % (n % 300)) for n in range(1000)]
    for partition in range(100):
        broker.hold("many", partition)
    running = start(in_flight_rows=400, chunk_rows=100)
    for _ in range(50):
        await clock.advance(0.1)
    for partition in range(100):
        broker.let_go("many", partition)
    await clock.advance(5)

    assert sorted(broker.seqs("many")) == ids
    assert "partition_parked" not in running.watcher.names()


async def test_an_unknown_outcome_is_published_again_in_order(start, store, broker, clock):
    """
    I4. What follows waits until the same records are acked.
    """
    failures = [Unknown(fault=Fault.PARTITION, detail="lost")] * 3
    broker.answer = lambda *_: failures.pop() if failures else None
    ids = [store.insert("orders", key=b"k") for _ in range(5)]
    start()

    await clock.advance(30)

    assert broker.seqs() == ids
    assert failures == []


async def test_an_invalid_record_is_found_among_good_ones(start, store, broker, clock):
    """
    I7. A refusal of a batch is never repeated for ever: it is split until the record stands alone.
    """

    def refuse(topic, partition, records):
        if any(record.value == b"bad" for record in records):
            return Rejected(reason=RejectReason.INVALID_RECORD, detail="no key")
        return None

    broker.answer = refuse
    good = [store.insert("orders", key=b"%d" % n) for n in range(7)]
    bad = store.insert("orders", payload=b"bad")
    good += [store.insert("orders", key=b"%d" % n) for n in range(7)]
    start()

    await clock.advance(2)

    assert broker.seqs() == good
    assert store.error(bad) == "invalid_record: no key"


async def test_a_paused_topic_waits_and_goes_on_in_order(start, store, broker, clock):
    """
    An operator's pause keeps every event, and costs the other topics nothing.
    """
    store.paused.add("orders")
    start()
    await clock.advance(2)
    ids = [store.insert("orders", key=b"k") for _ in range(3)]
    other = store.insert("users")
    await clock.advance(5)
    assert broker.seqs() == [other]

    store.paused.clear()
    ids.append(store.insert("orders", key=b"k"))
    await clock.advance(3)

    assert broker.seqs("orders") == ids


async def test_a_pause_of_everything_publishes_nothing(start, store, broker, clock):
    """
    The star stands for all topics.
    """
    store.paused.add("*")
    start()
    await clock.advance(2)
    row_id = store.insert("orders")
    await clock.advance(5)
    assert broker.published == []

    store.paused.clear()
    await clock.advance(3)

    assert broker.seqs() == [row_id]


async def test_more_partitions_are_used_only_when_the_topic_is_drained(start, store, broker, clock):
    """
    I4. A key may belong to another partition then: what is under way is settled first.
    """
    first = [store.insert("orders", key=b"%d" % n) for n in range(10)]
    broker.hold("orders")
    start()
    await clock.advance(1)
    broker.topics["orders"] = 4
    second = [store.insert("orders", key=b"%d" % n) for n in range(10)]
    await clock.advance(1)
    assert broker.published == []

    broker.let_go("orders")
    await clock.advance(3)

    assert broker.seqs()[:10] == first
    assert sorted(broker.seqs()) == first + second
    assert {p.partition for p in broker.published[10:]} != {0}


async def test_a_table_that_does_not_fit_is_waited_for(start, store, broker, clock):
    """
    The relay stays alive, says which command mends it, and goes on by itself.
    """
    store.schema_problem = "run `outbox-relay migrate`"
    row_id = store.insert("orders")
    running = start()
    await clock.advance(20)
    assert broker.published == []
    assert ("schema_mismatch", {"error": "run `outbox-relay migrate`"}) in running.watcher.events

    store.schema_problem = None
    await clock.advance(6)

    assert broker.seqs() == [row_id]


async def test_a_table_that_becomes_too_new_ends_the_term(start, store, broker, clock):
    """
    A migration under a running relay is noticed, and the lanes go to a relay that fits.
    """
    running = start()
    await clock.advance(2)

    store.schema_problem = "upgrade outbox-relay"
    await clock.advance(15)

    assert not running.producer.active
    assert "schema_mismatch" in running.watcher.names()


async def test_another_server_begins_a_new_term(start, store, broker, clock):
    """
    I1. After a failover ids may be given out again: cursors and queued marks are void.
    """
    running = start()
    await clock.advance(3)
    store.server = "memory:2"
    await clock.advance(20)

    row_id = store.insert("orders")
    await clock.advance(2)

    assert "term_over" in running.watcher.names()
    assert broker.seqs() == [row_id]


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
        store.before = dict.fromkeys(["read", "mark_produced", "renew", "release"], _unavailable)
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


async def test_a_topic_goes_on_only_between_two_reads(start, store, broker, clock):
    """
    I4. A read that is under way when a topic may go on must not bring a newer row of it first.
    """
    broker.topics["orders"] = 1
    old = [store.insert("orders", key=b"k") for _ in range(30)]
    store.paused.add("orders")
    start(chunk_rows=10, in_flight_rows=40)
    await clock.advance(5)

    def while_reading() -> None:
        if "orders" in store.paused:
            store.paused.clear()
            old.append(store.insert("orders", key=b"k"))

    store.before["read"] = while_reading
    for _ in range(40):
        await clock.advance(0.1)

    assert broker.seqs() == old


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


@pytest.mark.parametrize("wait", [0.5, 0.7, 0.9])
@pytest.mark.parametrize("yields", [0, 1, 5, 20])
async def test_a_topic_that_grew_goes_on_from_its_first_pending_row(
    start, store, broker, clock, wait, yields
):
    """
    I4. However a read and the new partition count fall together.
    """
    original = store.read

    async def read(plan):
        rows = await original(plan)
        for _ in range(yields):
            await asyncio.sleep(0)
        return rows

    store.read = read
    ids = [store.insert("orders", key=b"k") for _ in range(3)]
    broker.hold("orders")
    start()
    await clock.advance(1)
    ids += [store.insert("orders", key=b"k") for _ in range(3)]
    await clock.advance(6.5)
    broker.topics["orders"] = 4
    await clock.advance(0.5)
    ids += [store.insert("orders", key=b"k") for _ in range(3)]
    await clock.advance(wait)

    broker.let_go("orders")
    await clock.advance(4)

    assert broker.seqs() == ids
