"""
Several relays over one store, in time that stands still: who has which lanes, and what a hand-over may
not do.
"""

from __future__ import annotations

import asyncio
import zlib
from collections import Counter

import pytest

from outbox_relay.relay.lease import ALL_LANES
from outbox_relay.relay.options import RelayOptions
from outbox_relay.relay.producer import EventProducer
from outbox_relay.schema import LANES, Status
from outbox_relay.testing import RecordingBroker
from tests.unit.faults import unavailable


@pytest.fixture
def crowd(start):
    """Starts relays by name, four of which may be active."""

    def start_(*names: str, **options):
        options = {"max_active_relays": 4} | options
        return [start(owner=name, **options) for name in names]

    return start_


def shares_of(store) -> list[int]:
    return sorted(len(lanes) for lanes in store.leases.owners().values())


async def test_relays_share_the_lanes_as_they_come(crowd, store, clock):
    """
    One has all; two a half each; the fifth stands by.
    """
    crowd("a")
    await clock.advance(1)
    assert shares_of(store) == [64]

    crowd("b")
    await clock.advance(4)
    assert shares_of(store) == [32, 32]

    crowd("c", "d", "e")
    await clock.advance(6)

    assert shares_of(store) == [16, 16, 16, 16]


async def test_a_relay_that_stops_hands_its_lanes_to_the_others(crowd, store, clock):
    """
    I9. At once: at their next look.
    """
    relays = crowd("a", "b", "c")
    await clock.advance(6)
    await relays[0].stop()
    assert relays[0].task.done()
    await clock.advance(0.9)

    assert shares_of(store) == [32, 32]


async def test_the_lanes_of_a_dead_relay_move_when_its_lease_ends(crowd, store, clock):
    """
    I9, I5. Not before.
    """
    relays = crowd("a", "b")
    await clock.advance(5)
    relays[0].task.cancel()
    relays[0].producer._store = None
    store.before["release"] = unavailable
    await clock.advance(0.1)
    del store.before["release"]
    await clock.advance(9)
    assert shares_of(store) == [32, 32]

    await clock.advance(8)

    assert {owner: len(lanes) for owner, lanes in store.leases.owners().items()} == {"b": 64}


async def test_lanes_whose_taking_got_no_answer_are_read(crowd, store, broker, clock, monkeypatch):
    """
    I2. The statement took them, its answer was lost: each renewal keeps them, so they must be known.
    """
    broker.topics["wide"] = 8
    take = store.take
    answers = [False]

    async def take_without_an_answer(*args, **options):
        taken = await take(*args, **options)
        if answers and taken:
            answers.clear()
            unavailable()
        return taken

    monkeypatch.setattr(store, "take", take_without_an_answer)
    crowd("a", "b")
    await clock.advance(4)
    assert not answers
    inserted = [store.insert("wide", key=b"%d" % n) for n in range(64)]
    await clock.advance(4)

    assert sorted(broker.seqs()) == inserted


async def test_several_relays_publish_everything_once_and_in_order(crowd, store, broker, clock):
    """
    I4, I6. While they come and leave in good order.
    """
    broker.topics["wide"] = 8
    inserted: list[int] = []

    async def write(seconds: float) -> None:
        for _ in range(int(seconds * 10)):
            inserted.extend(store.insert("wide", key=b"%d" % n) for n in range(0, 40, 3))
            await clock.advance(0.1)

    relays = crowd("a")
    await write(2)
    relays += crowd("b", "c")
    await write(4)
    await relays[0].stop()
    relays += crowd("d", "e")
    await write(4)
    await relays[1].stop()
    await write(3)
    await clock.advance(3)

    assert sorted(broker.seqs()) == inserted
    by_key: dict[bytes, list[int]] = {}
    for published in broker.published:
        by_key.setdefault(published.record.key, []).append(published.seq)
    assert all(ids == sorted(ids) for ids in by_key.values())


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


async def test_a_relay_that_lost_a_lane_begins_anew_with_the_rest_at_once(crowd, store, clock):
    """
    I5. It slept: another has some of its lanes. It does not wait for its own lease to end.
    """
    [first] = crowd("a")
    await clock.advance(2)
    for lane in range(40, 64):
        store.leases._rows[lane].expires_at = 0.0
    second = await store.acquire("b", wake_address="", lease_seconds=15, slots=4)
    assert second is not None
    await clock.advance(4)

    assert "term_over" in first.watcher.names()
    assert {owner: len(lanes) for owner, lanes in store.leases.owners().items()} == {
        "a": 32,
        "b": 24,
    }


@pytest.mark.parametrize("seconds", [40, 40.3, 40.6, 40.9, 41.2, 41.5])
async def test_an_outage_of_the_database_moves_no_lane(crowd, store, broker, clock, seconds):
    """
    I6, I8. Leases that ran out meanwhile are renewed by their owners before anybody takes them.
    """
    relays = crowd("a", "b")
    await clock.advance(5)
    before = store.leases.owners()
    methods = ("renew", "look", "take", "read", "max_id", "sample", "mark_produced")
    store.before |= dict.fromkeys((*methods, "uncommitted_ids", "acquire"), unavailable)
    await clock.advance(seconds)
    assert shares_of(store) == []
    store.before.clear()
    await clock.advance(10)

    assert store.leases.owners() == before
    assert all("term_over" not in relay.watcher.names() for relay in relays)


async def test_relays_with_different_settings_do_no_harm(start, store, broker, clock):
    """
    Who may be alone gives nothing; the other waits and takes over when it leaves.
    """
    alone = start(owner="alone")
    await clock.advance(1)
    start(owner="one of four", max_active_relays=4)
    for n in range(30):
        store.insert("wide", key=b"%d" % n)
        await clock.advance(0.1)
    assert store.leases.owners().keys() == {"alone"}

    await alone.stop()
    store.insert("wide", key=b"x")
    await clock.advance(2)

    assert store.leases.owners().keys() == {"one of four"}
    assert len(broker.seqs()) == len(set(broker.seqs())) == 31


async def test_of_several_relays_one_looks_for_what_to_purge(crowd, store, clock):
    """
    Several would delete the same rows.
    """
    relays = crowd("a", "b", "c")
    await clock.advance(100)
    store.calls.clear()
    await clock.advance(600)
    looks = store.calls.count("aged")
    for relay in relays[1:]:
        await relay.stop()
    await clock.advance(100)
    store.calls.clear()
    await clock.advance(600)

    assert abs(looks - store.calls.count("aged")) <= 2


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


async def test_until_empty_waits_for_the_lanes_of_others(crowd, store, broker, clock):
    """
    What a drain returns from is empty, whoever emptied it.
    """
    crowd("a")
    await clock.advance(3)
    broker.hold("orders")
    held = store.insert("orders", key=b"k")
    await clock.advance(0.5)
    drain = EventProducer(
        store, broker, clock=clock, owner="drain", options=RelayOptions(max_active_relays=4)
    )
    task = asyncio.create_task(drain.run(until_empty=True))
    await clock.advance(5)
    assert not task.done()

    broker.let_go("orders")
    await clock.advance(5)

    assert task.done()
    assert broker.seqs() == [held]
