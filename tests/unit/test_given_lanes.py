"""
Corners of a hand-over between relays: what waits or is under way of lanes that come and go.
"""

from __future__ import annotations

import asyncio
import zlib
from collections import Counter

import pytest

from outbox_relay.relay.lease import ALL_LANES
from outbox_relay.schema import LANES, Status
from outbox_relay.testing import RecordingBroker
from tests.unit.faults import unavailable
from tests.unit.test_several_relays import shares_of


def keys_of(lanes, count: int) -> list[bytes]:
    """Keys whose events belong to *lanes*."""
    found = (b"%d" % n for n in range(100_000))
    return [next(k for k in found if zlib.crc32(k) % LANES in lanes) for _ in range(count)]


LOW, HIGH = range(32), range(32, 64)


async def test_a_batch_of_nothing_but_given_lanes_is_not_sent(crowd, store, broker, clock):
    """
    I6. It waited for the lease to be trusted; the next owner publishes it, once.
    """
    [first] = crowd("a")
    await clock.advance(1)
    term = first.producer._term
    store.before["renew"] = unavailable
    term._dispatcher._trust.renewed_at = -(10.0**9)
    ids = [store.insert("orders", key=key) for key in keys_of(HIGH, 20)]
    await clock.advance(1.1)
    assert len(term.reading.in_flight) == 20
    other = RecordingBroker(clock, {"orders": 1})
    crowd("b", broker=other)
    await clock.advance(2)
    del store.before["renew"]
    await clock.advance(6)

    assert broker.batches == []
    assert other.seqs() == ids


async def test_rows_that_wait_for_their_topics_partitions_hold_up_no_hand_over(crowd, store, clock):
    """
    I6, I7. They are dropped: the next owner publishes them, though the answer never comes.
    """
    answer = asyncio.Event()

    class Slow(RecordingBroker):
        async def partitions(self, topic):
            await answer.wait()
            return await super().partitions(topic)

    slow, other = Slow(clock, {"orders": 1}), RecordingBroker(clock, {"orders": 1})
    crowd("a", broker=slow)
    await clock.advance(1)
    low = [store.insert("orders", key=key) for key in keys_of(LOW, 20)]
    high = [store.insert("orders", key=key) for key in keys_of(HIGH, 20)]
    await clock.advance(1)
    crowd("b", broker=other)
    await clock.advance(4)

    assert other.seqs() == high

    answer.set()
    await clock.advance(2)

    assert slow.seqs() == low


async def test_a_dead_letter_under_way_while_lanes_are_given_is_written_again(
    crowd, store, broker, clock
):
    """
    I5. The statement named lanes that are another's by now: its own lane is ours, the term goes on.
    """
    broker.max_record_bytes = 1000
    [first] = crowd("a")
    await clock.advance(1)

    def slow_once():
        return clock.sleep(3) if store.calls.count("mark_dead") == 1 else None

    store.before["mark_dead"] = slow_once
    [key] = keys_of(LOW, 1)
    row_id = store.insert("orders", key=key, payload=b"x" * 2000)
    await clock.advance(0.5)
    crowd("b")
    await clock.advance(4)

    assert {len(lanes) for lanes in store.leases.owners().values()} == {32}
    assert store.status(row_id) is Status.DEAD
    assert store.calls.count("mark_dead") == 2
    assert "term_over" not in first.watcher.names()


async def test_lanes_that_another_relay_took_first_are_not_ours(crowd, store, clock, monkeypatch):
    """
    I5. Nothing is believed of them, and the next look asks again.
    """
    take, offered = store.take, []

    async def too_late(lease, lanes, **options):
        offered.append(lanes)
        return frozenset() if len(offered) == 1 else await take(lease, lanes, **options)

    monkeypatch.setattr(store, "take", too_late)
    relays = crowd("a", "b")
    while not offered:
        await clock.advance(0.05)
    owned = [relay.producer._owned for relay in relays]
    await clock.advance(3)

    taken = [f["lanes"] for r in relays for name, f in r.watcher.events if name == "lanes_taken"]
    assert offered[0].isdisjoint(owned[0] | owned[1])
    assert 0 not in taken
    assert {len(lanes) for lanes in store.leases.owners().values()} == {32}


async def test_relays_share_the_lanes_in_tables_that_keep_no_suspects(crowd, store, broker, clock):
    """
    They ask nothing of tables of before that those do not have.
    """
    store.leases.keeps_suspects = False
    crowd("a")
    await clock.advance(1)
    crowd("b")
    await clock.advance(4)
    ids = [store.insert("wide", key=b"%d" % n) for n in range(64)]
    await clock.advance(2)

    assert {len(lanes) for lanes in store.leases.owners().values()} == {32}
    assert sorted(broker.seqs()) == ids
    assert "past" not in store.calls


async def test_a_row_requeued_just_before_lanes_are_gained_comes_first(crowd, store, broker, clock):
    """
    I4, with hold_key. The look at the dead letters of the gained lanes frees a key of ours, whose first
    row the cursor has passed.
    """
    broker.max_record_bytes = 1000
    relays = crowd("a", "b", on_dead_letter="hold_key")
    await clock.advance(4)
    [key] = keys_of(store.leases.owners()["b"], 1)
    dead = store.insert("orders", key=key, payload=b"x" * 2000)
    await clock.advance(5)
    assert store.status(dead) is Status.DEAD
    later = []

    def requeue_and_insert() -> None:
        broker.max_record_bytes = None
        store.requeue(dead)
        later.append(store.insert("orders", key=key))
        del store.before["take"]

    store.before["take"] = requeue_and_insert
    await relays[0].stop()
    await clock.advance(5)

    assert broker.seqs() == [dead, *later]


async def test_a_lane_is_given_when_what_is_under_way_of_it_is_marked(crowd, store, broker, clock):
    """
    I4. Not before: the next owner would publish it again, or something later first.
    """
    broker.topics["orders"] = 1
    crowd("a")
    await clock.advance(1)
    broker.hold("orders")
    ids = [store.insert("orders", key=b"%d" % n) for n in range(64)]
    await clock.advance(0.1)
    ids += [store.insert("orders", key=b"%d" % n) for n in range(64)]
    await clock.advance(0.1)
    crowd("b")
    await clock.advance(3)
    under_way = {store.rows[row_id].row.lane for row_id in ids[:64]}
    assert set().union(*[store.leases.owners().get("b", set())]).isdisjoint(under_way)

    broker.let_go("orders")
    await clock.advance(4)

    assert shares_of(store) == [32, 32]
    assert sorted(broker.seqs()) == ids
    assert store.pending() == []


async def test_rows_that_only_wait_are_dropped_when_their_lane_is_given(
    crowd, store, broker, clock
):
    """
    I7. What is under way of other lanes holds up no hand-over.
    """
    crowd("a")
    await clock.advance(1)
    broker.hold("orders")
    low = [n for n in range(200) if _lane(store, n) < 32]
    high = [n for n in range(200) if _lane(store, n) >= 32]
    ids = [store.insert("orders", key=b"%d" % n) for n in low]
    await clock.advance(1.1)
    ids += [store.insert("orders", key=b"%d" % n) for n in high]
    await clock.advance(1.1)
    crowd("b")
    await clock.advance(3)
    assert shares_of(store) == [32, 32]

    broker.let_go("orders")
    await clock.advance(3)

    assert sorted(broker.seqs()) == ids


async def test_a_read_under_way_brings_no_row_of_a_lane_given_meanwhile(
    crowd, store, broker, clock
):
    """
    I6. Its next owner publishes it.
    """
    [first] = crowd("a")
    await clock.advance(3)
    term, given = first.producer._term, frozenset(range(32, 64))
    original = store.read

    async def read(plan):
        rows = await original(plan)
        if rows:
            term._around.holding.giving = given
            term.reading.lose(given)
            term._dispatcher.let_go()
            term._around.holding.gave(given)
        return rows

    store.read = read
    for n in range(100):
        store.insert("orders", key=b"%d" % n)
    await clock.advance(1.1)

    lanes = {store.rows[row_id].row.lane for row_id in broker.seqs()}
    assert lanes
    assert lanes.isdisjoint(given)


async def test_a_batch_that_waits_to_be_sent_loses_the_rows_of_a_given_lane(
    crowd, store, broker, clock
):
    """
    I4, I6. It was taken off its track before; it goes without them, and their new owner publishes them.
    """
    [first] = crowd("a")
    await clock.advance(1)
    term = first.producer._term
    store.before["renew"] = unavailable
    term._dispatcher._trust.renewed_at = -(10.0**9)
    ids = [store.insert("orders", key=b"%d" % n) for n in range(200)]
    await clock.advance(1.1)
    assert len(term.reading.in_flight) == 200
    other = RecordingBroker(clock, {"orders": 1})
    crowd("b", broker=other)
    await clock.advance(2)
    assert len(term._around.holding.giving) == 32
    assert broker.seqs() == other.seqs() == []

    del store.before["renew"]
    await clock.advance(6)

    lanes = store.leases.owners()
    assert {store.rows[i].row.lane for i in broker.seqs()} <= lanes["a"]
    assert {store.rows[i].row.lane for i in other.seqs()} <= lanes["b"]
    assert sorted(broker.seqs() + other.seqs()) == ids


async def test_a_lane_gained_with_older_rows_waiting(crowd, store, broker, clock):
    """
    I4. Its rows are read from the first one, in order, and those of the lanes already held go on
    meanwhile.
    """
    relays = crowd("a", "b", chunk_rows=10, in_flight_rows=40)
    await clock.advance(5)
    lanes = store.leases.owners()
    theirs = [n for n in range(500) if _lane(store, n) in lanes["a"]]
    ours = [n for n in range(500) if _lane(store, n) in lanes["b"]]
    await relays[0].stop()
    backlog = [store.insert("wide", key=b"%d" % n) for n in theirs * 3]
    await clock.advance(0)
    order: list[int] = []
    for n in ours[:50]:
        order.append(store.insert("wide", key=b"%d" % n))
        await clock.advance(0.02)
    await clock.advance(3)

    published = broker.seqs()
    place = {row_id: published.index(row_id) for row_id in backlog + order}
    by_key: dict[bytes, list[int]] = {}
    for record in broker.published:
        by_key.setdefault(record.record.key, []).append(record.seq)
    assert store.pending() == []
    assert Counter(published).most_common(1)[0][1] == 1
    assert all(ids == sorted(ids) for ids in by_key.values())
    assert place[order[0]] < place[backlog[-1]]


def _lane(store, n: int) -> int:
    return zlib.crc32(b"%d" % n) % LANES


async def test_events_of_held_lanes_do_not_wait_for_a_gained_backlog(crowd, store, broker, clock):
    """
    The backlog fills chunk after chunk; a fresh event of a held lane is read in between.
    """
    [first] = crowd("a", chunk_rows=10, in_flight_rows=40)
    await clock.advance(3)
    term = first.producer._term
    fresh_lane, others = 5, ALL_LANES - {5}
    keys = {n: _lane(store, n) for n in range(2000)}
    term.reading.lose(others)
    backlog = [store.insert("wide", key=b"%d" % n) for n, lane in keys.items() if lane in others]
    await clock.advance(0.5)
    term._keeper.gained = others
    fresh_key = next(n for n, lane in keys.items() if lane == fresh_lane)
    fresh = store.insert("wide", key=b"%d" % fresh_key)
    await clock.advance(1)
    for _ in range(30):
        await clock.advance(0.1)

    published = broker.seqs()
    assert set(published) == {*backlog, fresh}
    assert published.index(fresh) < 200


@pytest.mark.parametrize("tenths", range(0, 10, 2))
async def test_held_keys_of_a_gained_lane_are_known_before_its_first_row(
    crowd, store, broker, clock, tenths
):
    """
    I4, with hold_key. The last owner may have given a row up a moment ago.
    """
    relays = crowd("a", "b", on_dead_letter="hold_key")
    await clock.advance(5)
    lane = min(store.leases.owners()["a"])
    key = next(b"%d" % n for n in range(10_000) if _lane(store, n) == lane)
    busy = next(b"%d" % n for n in range(10_000) if _lane(store, n) in store.leases.owners()["b"])
    for _ in range(20 + tenths):
        store.insert("wide", key=busy)
        await clock.advance(0.1)

    def at_the_last_moment() -> None:
        dead = store.insert("orders", key=key)
        store.rows[dead].status = Status.DEAD
        later.append(store.insert("orders", key=key))
        del store.before["release"]

    later: list[int] = []
    store.before["release"] = at_the_last_moment
    await relays[0].stop()
    for _ in range(30):
        store.insert("wide", key=busy)
        await clock.advance(0.1)

    assert len(later) == 1
    assert later[0] not in broker.seqs()
    assert lane in store.leases.owners()["b"]
