"""
A relay that has nothing to do asks seldom, and its word is fresh again before it publishes.
"""

from __future__ import annotations

from collections import Counter

import pytest

from outbox_relay.relay.ports import ReadPlan
from outbox_relay.relay.quiet import Quiet
from outbox_relay.relay.reading import Reading


class NothingHeld:
    """No key waits."""

    @staticmethod
    def any():
        return False


@pytest.fixture
def quiet():
    """A term that has seen nothing for a minute."""
    reading = Reading(settle_seconds=2, chunk_rows=10, in_flight_rows=20, in_flight_bytes=1000)
    reading.page(ReadPlan(after_id=0, open_ids=frozenset(), limit=10), [])
    quiet = Quiet(reading, NothingHeld(), 0.0)
    quiet.noted(0, now=1.0)
    assert quiet.lasts(60.0)
    return quiet


def test_an_id_that_was_given_out_ends_the_quiet_time(quiet):
    """
    Its row may not be visible for long yet, or never: the notes go on until `safe` has followed.
    """
    quiet.noted(7, now=60.0)

    assert not quiet.lasts(63.9)
    assert quiet.lasts(64.0)


def test_a_row_ends_the_quiet_time(quiet):
    """
    Before it is noted which ids there are.
    """
    quiet.found(1, now=60.0)

    assert not quiet.lasts(63.9)
    assert quiet.lasts(64.0)


@pytest.mark.parametrize(
    "what",
    [
        {"open_ids": {5}},
        {"skip_topics": frozenset({"orders"})},
        {"caught_up": False},
        {"pass_done": False},
        {"in_flight": {5: 10}},
    ],
)
def test_what_waits_or_pauses_ends_the_quiet_time(quiet, what):
    """
    Somebody waits for what is asked: an open transaction, an operator, a pass, a mark.
    """
    for name, value in what.items():
        setattr(quiet.reading, name, value)

    assert not quiet.lasts(60.0)


def test_a_note_that_safe_has_not_followed_ends_the_quiet_time(quiet):
    """
    `safe` moves only with notes that go on.
    """
    quiet.reading.note(7, now=59.0)

    assert not quiet.lasts(60.0)


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
