"""
Corners of a hand-over between relays: what waits or is under way of lanes that come and go.
"""

from __future__ import annotations

import asyncio
import zlib

import pytest

from outbox_relay.schema import LANES, Status
from outbox_relay.testing import RecordingBroker
from tests.unit.faults import unavailable


@pytest.fixture
def crowd(start):
    """Starts a relay by name, four of which may be active."""

    def start_(name: str, **options):
        return start(owner=name, max_active_relays=4, **options)

    return start_


def keys_of(lanes, count: int) -> list[bytes]:
    """Keys whose events belong to *lanes*."""
    found = (b"%d" % n for n in range(100_000))
    return [next(k for k in found if zlib.crc32(k) % LANES in lanes) for _ in range(count)]


LOW, HIGH = range(32), range(32, 64)


async def test_a_batch_of_nothing_but_given_lanes_is_not_sent(crowd, store, broker, clock):
    """
    I6. It waited for the lease to be trusted; the next owner publishes it, once.
    """
    first = crowd("a")
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
    first = crowd("a")
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
    relays = [crowd("a"), crowd("b")]
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
    relays = [crowd(name, on_dead_letter="hold_key") for name in "ab"]
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
