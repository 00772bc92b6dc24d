"""
A relay that has nothing to do asks seldom, and its word is fresh again before it publishes.
"""

from __future__ import annotations

from collections import Counter

import pytest


async def quiet_calls(start, store, clock, **options):
    """What a relay asks in a minute, long after its last event."""
    start(**options)
    store.insert("orders")
    await clock.advance(60)
    store.calls.clear()
    await clock.advance(60)
    return Counter(store.calls)


@pytest.mark.parametrize("on_dead_letter", ["skip", "hold_key"])
async def test_an_idle_relay_asks_at_most_twice_a_second(start, store, clock, on_dead_letter):
    """
    I10. Reads, notes, renewals, samples and all.
    """
    calls = await quiet_calls(start, store, clock, on_dead_letter=on_dead_letter)

    assert 55 <= calls["read"] <= 75
    assert sum(calls.values()) <= 120


async def test_an_idle_relay_that_may_share_asks_little_more(start, store, clock):
    """
    I10. It looks besides who comes and goes, as often as a standby.
    """
    calls = await quiet_calls(start, store, clock, max_active_relays=4)

    assert 80 <= calls["look"] <= 96
    assert sum(calls.values()) <= 220


async def test_a_standby_asks_seldom(start, store, clock):
    """
    Twenty of them on one table: the lease three times in two seconds, so that a take-over is quick, and
    seldom the version of the tables.
    """
    start()
    await clock.advance(1)
    alone = await quiet_calls(start, store, clock)
    start()
    await clock.advance(60)
    store.calls.clear()
    await clock.advance(60)

    added = Counter(store.calls)
    added.subtract(alone)
    assert sum(added.values()) <= 100


async def test_a_busy_relay_notes_every_second(start, store, clock):
    """
    While ids move, the rule of `safe` stands: the largest id is noted each second.
    """
    start()
    await clock.advance(60)
    store.calls.clear()
    for _ in range(20):
        store.insert("orders")
        await clock.advance(0.5)

    assert store.calls.count("max_id") >= 9


async def test_safe_follows_an_event_after_a_quiet_time(start, store, clock):
    """
    The notes begin again with the first event: `safe` is where it is in three seconds.
    """
    running = start()
    await clock.advance(60)
    row_id = store.insert("orders")
    await clock.advance(5)

    assert running.producer._term.reading.safe == row_id


async def test_a_topic_paused_in_a_quiet_time_publishes_nothing(start, store, broker, clock):
    """
    An operator's word is asked before the first rows are published, however long it was not.
    """
    start()
    await clock.advance(60)
    store.paused.add("orders")
    await clock.advance(0.1)
    store.insert("orders")
    other = store.insert("users")
    await clock.advance(3)

    assert broker.seqs() == [other]


async def test_everything_paused_in_a_quiet_time_publishes_nothing(start, store, broker, clock):
    """
    The same for all topics at once.
    """
    start()
    await clock.advance(60)
    store.paused.add("*")
    store.insert("orders")
    await clock.advance(3)

    assert broker.seqs() == []


async def test_a_late_row_is_found_in_a_quiet_time(start, store, broker, clock):
    """
    The sweep goes on, if seldom: an operator's requeue waits for it.
    """
    start()
    late = store.begin()
    late_id = late.insert("orders")
    store.insert("users")
    await clock.advance(60)
    late.rollback()
    await clock.advance(60)
    stored = store.begin()
    new_id = stored.insert("orders")
    stored.ids.clear()
    store.rows[late_id] = store.rows.pop(new_id)
    store.rows[late_id].row = store.rows[late_id].row._replace(id=late_id)
    store.rows[late_id].committed = True
    await clock.advance(7)

    assert late_id in broker.seqs()


async def test_a_lease_does_not_run_out_in_a_quiet_time(start, store, clock):
    """
    Renewals are fewer, and one of them may still fail.
    """
    running = start()
    await clock.advance(60)
    left = []
    for _ in range(200):
        await clock.advance(0.1)
        left.append(store.leases.seconds_left())

    assert running.producer.active
    assert min(left) >= 10


async def test_a_standby_that_takes_over_checks_the_tables_first(start, store, broker, clock):
    """
    While it stood by it asked seldom: nothing is relayed with tables that changed meanwhile.
    """
    first = start()
    second = start()
    await clock.advance(5)
    store.schema_problem = "the tables are too new"
    await first.stop()
    store.insert("orders")
    await clock.advance(3)

    assert broker.seqs() == []
    assert not second.producer.active

    store.schema_problem = None
    await clock.advance(10)

    assert len(broker.seqs()) == 1
