"""
Several relays over one store, in time that stands still: who has which lanes, and what a hand-over may
not do.
"""

from __future__ import annotations

import asyncio

import pytest

from outbox_relay.relay.options import RelayOptions
from outbox_relay.relay.producer import EventProducer
from tests.unit.faults import unavailable


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
