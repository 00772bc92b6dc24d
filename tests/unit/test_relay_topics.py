"""
Topics that are missing, sick, paused or grow.
"""

from __future__ import annotations

import asyncio

import pytest

from outbox_relay.errors import BrokerUnavailable
from outbox_relay.relay import gate
from outbox_relay.relay.outcomes import Fault, Unknown
from outbox_relay.relay.reading import Reading
from outbox_relay.testing import RecordingBroker


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


async def test_rows_that_cannot_go_do_not_take_the_place_of_others(start, store, broker, clock):
    """
    I7, I10. New ones of a sick partition fill no page again and again while the cursor must wait.
    """
    broker.answer = lambda topic, *_: (
        Unknown(fault=Fault.PARTITION, detail="not enough replicas") if topic == "orders" else None
    )
    store.insert("orders", key=b"k")
    running = start(in_flight_rows=40, chunk_rows=10)
    await clock.advance(40)
    assert "partition_parked" in running.watcher.names()
    for _ in range(100):
        store.insert("orders", key=b"k")
    healthy = store.insert("users", key=b"k")
    reads = store.calls.count("read")
    await clock.advance(1)

    assert broker.seqs("users") == [healthy]
    assert store.calls.count("read") - reads < 60


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


async def test_rows_gather_where_very_many_partitions_are_busy(start, store, broker, clock):
    """
    I10. No more than so many batches at once: the rows of other partitions make larger ones
    meanwhile, as a batch costs more than a row.
    """
    broker.topics["many"] = 1000
    ids = [store.insert("many", key=b"%d" % (n % 3000)) for n in range(6000)]
    at_once = []
    publish = broker.publish

    async def counted(topic, partition, records):
        at_once.append(1)
        started = len(at_once)
        await clock.sleep(0.01)
        most.append(started - len(done))
        outcome = await publish(topic, partition, records)
        done.append(1)
        return outcome

    most, done = [], []
    broker.publish = counted
    start(in_flight_rows=6000, chunk_rows=2000)
    await clock.advance(5)

    assert sorted(broker.seqs("many")) == ids
    assert max(most) <= gate.MOST_BATCHES
    assert len(broker.batches) <= 1500


async def test_partitions_that_get_no_answer_keep_no_place_for_long(start, store, broker, clock):
    """
    I7. More of them than there are places: the others wait a moment each, not for the deadline.
    """
    broker.topics["sick"] = 300
    broker.topics["well"] = 300
    for partition in range(300):
        broker.hold("sick", partition)
    for n in range(900):
        store.insert("sick", key=b"%d" % n)
    well = [store.insert("well", key=b"%d" % n) for n in range(900)]
    start(in_flight_rows=6000, chunk_rows=2000)
    await clock.advance(2)

    assert sorted(broker.seqs("well")) == well


async def test_what_is_paused_while_it_waits_for_its_turn_is_not_published(
    start, store, broker, clock, monkeypatch
):
    """
    I8. It stays pending, and comes in order when its topic goes on.
    """
    monkeypatch.setattr(gate, "PATIENCE_SECONDS", 10)
    broker.topics["many"] = 400
    for partition in range(400):
        broker.hold("many", partition)
    ids = [store.insert("many", key=b"%d" % n) for n in range(800)]
    start(in_flight_rows=6000, chunk_rows=2000)
    await clock.advance(0.05)
    store.paused.add("many")
    await clock.advance(3)
    for partition in range(400):
        broker.let_go("many", partition)
    await clock.advance(5)
    published = len(broker.seqs("many"))
    store.paused.discard("many")
    await clock.advance(30)

    assert published < len(ids)
    assert sorted(broker.seqs("many")) == ids


async def test_a_topic_that_several_partitions_miss_is_told_once(start, store, broker, clock):
    """
    Each of their batches says it; the log does, when the topic is tried.
    """
    for partition in range(8):
        broker.hold("wide", partition)
    ids = [store.insert("wide", key=b"%d" % n) for n in range(64)]
    running = start()
    await clock.advance(1)
    del broker.topics["wide"]
    for partition in range(8):
        broker.let_go("wide", partition)
    await clock.advance(0.01)

    assert running.watcher.names().count("topic_paused") == 1
    assert store.pending() == ids
    assert running.producer._term.reading.in_flight == {}


async def test_a_topic_that_was_learnt_anew_waits_for_the_pass_under_way(
    start, store, broker, clock, monkeypatch
):
    """
    I7. Each that goes on begins a pass from the first pending row: else many keep the cursor from the tail.
    """
    row_id = store.insert("missing", key=b"k")
    running = start(backoff_max_seconds=1)
    await clock.advance(2)
    with monkeypatch.context() as patch:
        patch.setattr(Reading, "passed", lambda _: False)
        broker.topics["missing"] = 1
        await clock.advance(30)
        assert running.producer._term.reading.skip_topics == {"missing"}
        assert broker.seqs() == []
    await clock.advance(2)

    assert broker.seqs() == [row_id]


@pytest.mark.parametrize("ends", ["broker comes back", "stop"])
async def test_no_broker_to_ask_about_a_topic_is_an_outage(start, store, clock, ends: str):
    """
    I8, I9. The topic is not paused: it waits with everything, and a stop waits for nobody.
    """

    class Away(RecordingBroker):
        async def partitions(self, topic):
            if self.down:
                raise BrokerUnavailable("no broker answers")
            return await super().partitions(topic)

    broker = Away(clock, {"orders": 1})
    broker.down = True
    row_id = store.insert("orders", key=b"k")
    running = start(broker=broker)
    await clock.advance(30)
    assert "topic_paused" not in running.watcher.names()
    assert running.watcher.names().count("broker_unavailable") == 1
    if ends == "stop":
        running.producer.stop()
    else:
        broker.down = False
    await clock.advance(2)

    assert running.task.done() is (ends == "stop")
    assert "stop_budget_spent" not in running.watcher.names()
    assert broker.seqs() == ([] if ends == "stop" else [row_id])
