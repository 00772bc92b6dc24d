"""
I10. How much one read, one sweep and one sample may take, whatever lies in the table.
"""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import pytest

from outbox_relay.relay.held import HeldKeys
from outbox_relay.relay.ports import LARGE_PAYLOAD_BYTES
from outbox_relay.relay.quiet import SWEEP_REST, Quiet
from outbox_relay.relay.reading import MAX_OPEN_IDS, Reading
from outbox_relay.relay.term import SAMPLE_REST
from outbox_relay.relay.window import (
    FAST_SECONDS,
    FIRST_IDS,
    LEAST_IDS,
    MOST_IDS,
    MOST_SKIP_RANGES,
    SLOW_SECONDS,
    Window,
    fitting,
    id_ranges,
)
from outbox_relay.testing import InMemoryStore


def make_reading(**changes) -> Reading:
    options = dict(settle_seconds=0.0, chunk_rows=10, in_flight_rows=40, in_flight_bytes=10**7)
    return Reading(**(options | changes))


def test_a_window_grows_while_answers_are_fast():
    """
    A table with a billion produced rows is passed in a few reads.
    """
    window = Window()
    for _ in range(20):
        window.passed(window.ids, seconds=0.001)

    assert window.ids > 10**9


def test_a_window_shrinks_when_answers_are_slow_or_do_not_come():
    """
    Never below what still gets on.
    """
    window = Window()
    window.passed(10, seconds=0.001)
    window.passed(FIRST_IDS, seconds=0.002 + SLOW_SECONDS)
    after_a_slow_one = window.ids
    window.failed(after_a_slow_one)
    window.failed(LEAST_IDS)
    tail = Window()
    tail.failed(LEAST_IDS - 1)

    assert tail.ids == FIRST_IDS
    assert after_a_slow_one == FIRST_IDS // 2
    assert window.ids == LEAST_IDS


def test_a_window_is_halved_down_to_what_still_gets_on():
    """
    From the smaller of what failed and what may be passed; it stays a whole number, for SQL.
    """
    shorter, longer, small = Window(), Window(), Window()
    shorter.failed(30_001)
    longer.failed(10 * FIRST_IDS)
    small.failed(LEAST_IDS)

    assert shorter.ids == 15_000
    assert isinstance(shorter.ids, int)
    assert longer.ids == FIRST_IDS // 2
    assert small.ids == LEAST_IDS


@pytest.mark.parametrize(
    ("longer", "ids"),
    [
        (0.015625, 2 * FIRST_IDS),
        (FAST_SECONDS, FIRST_IDS),
        (SLOW_SECONDS, FIRST_IDS),
        (0.0625, FIRST_IDS // 2),
    ],
)
def test_in_between_a_window_stays_as_it_is(longer, ids):
    """
    Neither fast nor slow, the limits included. What counts is how much longer than the fastest it took.
    """
    window = Window()
    window.passed(1, seconds=0.0)
    window.passed(FIRST_IDS, seconds=longer)

    assert window.ids == ids


def test_a_fast_answer_over_fewer_ids_than_it_might_have_passed_proves_nothing():
    """
    Nor does a window ever pass more than there can be ids.
    """
    window = Window()
    window.passed(FIRST_IDS - 1, seconds=0.0)
    short = window.ids
    for _ in range(100):
        window.passed(window.ids, seconds=0.0)

    assert short == FIRST_IDS
    assert window.ids == MOST_IDS


@pytest.mark.parametrize(
    ("ids", "ranges"),
    [
        ([], ()),
        ([0], ((0, 0),)),
        ([1], ((1, 1),)),
        ([3, 4, 5, 9], ((3, 5), (9, 9))),
        ([3, 5, 6], ((3, 3), (5, 6))),
        ([0, 2], ((0, 0), (2, 2))),
    ],
)
def test_ids_in_flight_are_left_out_as_ranges(ids, ranges):
    """
    Each id is in one of them, and nothing else is.
    """
    assert id_ranges(ids) == (ranges, 0)


def test_ids_beyond_the_most_ranges_are_counted():
    """
    They are skipped when they are returned: a read asks for so many rows more.
    """
    apart = [2 * number for number in range(1, MOST_SKIP_RANGES + 1)]
    just = id_ranges(apart)
    ranges, left = id_ranges([*apart, 500, 501, 502])

    assert just == (tuple((i, i) for i in apart), 0)
    assert ranges == just[0]
    assert left == 3


@pytest.mark.parametrize(
    ("wanted", "kept"), [(0, []), (1, [1, 2]), (2, [1, 2, 3, 4]), (3, [1, 2, 3, 4, 5])]
)
def test_a_read_that_brings_more_than_fits_is_cut(wanted, kept):
    """
    I10. Before the first row for which there is no room; those in flight or left behind take none.
    """
    rows = [SimpleNamespace(id=number) for number in range(1, 6)]
    found = fitting(rows, wanted, in_flight={2}, left={4})

    assert [row.id for row in found] == kept


def test_a_read_that_fits_is_not_cut():
    """
    Nor looked at.
    """
    rows = [SimpleNamespace(id=1), SimpleNamespace(id=2)]

    assert fitting(rows, 2, in_flight=(), left=()) is rows
    assert fitting(rows, 1, in_flight={1}, left=()) is rows


def test_what_the_network_takes_is_not_held_against_it():
    """
    A database far away is no slow one.
    """
    window = Window()
    for _ in range(3):
        window.passed(window.ids, seconds=0.5)

    assert window.ids == 8 * FIRST_IDS


def test_a_read_that_is_short_says_nothing_about_the_window():
    """
    A full page took long for its rows; a read at the tail passed hardly any ids.
    """
    reading = make_reading()
    reading.note(10**6, now=1.0)
    plan = reading.plan(now=1.0)
    reading.answered(plan, [object()] * plan.limit, seconds=3.0)
    full = reading.window.ids
    reading.answered(plan, [], seconds=0.001)

    assert full == FIRST_IDS
    assert reading.window.ids == 2 * FIRST_IDS


def test_a_forward_read_goes_on_at_once_below_safe():
    """
    Else each window without a row would cost a poll, and what is behind them waits.
    """
    reading = make_reading()
    reading.note(3 * FIRST_IDS, now=1.0)
    ends, goes_on = [], []
    for _ in range(4):
        plan = reading.plan(now=1.0)
        _, peek = reading.page(plan, [])
        if peek is not None:
            reading.peeked(peek, [])
        ends.append(plan.upto_id)
        goes_on.append(reading.goes_on())

    assert ends == [FIRST_IDS, 2 * FIRST_IDS, None, None]
    assert goes_on == [True, True, False, False]


def test_a_large_transaction_keeps_nobody_from_being_read():
    """
    The cursor stands still at it; the rows behind it are read all the same, and it is not counted anew
    with each read.
    """
    reading = make_reading()
    reading.note(10**6, now=1.0)
    _, peek = reading.page(reading.plan(now=1.0), [])
    reading.peeked(peek, range(1, peek.limit + 1))
    plan = reading.plan(now=1.0)

    assert peek.limit == MAX_OPEN_IDS + 1
    assert reading.cursor == MAX_OPEN_IDS
    assert plan.upto_id is None
    assert reading.page(plan, [])[1] is None


def test_a_look_that_was_cut_moves_the_cursor_no_further_than_it_saw():
    """
    I4. What a limited answer does not name is not known to be absent.
    """
    reading = make_reading(safe=10**5)
    reading.open_ids = set()
    _, peek = reading.page(reading.plan(now=1.0), [])
    reading._page_ids = frozenset(range(1, peek.limit + 1))
    reading.peeked(peek, range(1, peek.limit + 1))

    assert reading.cursor == peek.limit


def test_a_sweep_passes_no_more_than_a_window():
    """
    However few rows it finds.
    """
    reading = make_reading(safe=10**6)
    reading.cursor = 10**6
    seen = []
    for _ in range(20):
        plan = reading.sweep(100)
        seen.append((plan.after_id, plan.upto_id))
        reading.swept_to(plan, [])

    assert seen[0] == (0, FIRST_IDS)
    assert seen[19] == (10**6 - FIRST_IDS, 10**6)
    assert reading.sweep(100).after_id == 0


def test_a_sweep_rests_for_a_multiple_of_what_it_took(clock, store):
    """
    So it takes a twentieth of the time at most.
    """
    quiet = Quiet(make_reading(), HeldKeys.__new__(HeldKeys), moved_at=100.0)
    first = quiet.sweep_due(100.0)
    quiet.swept(0.5, now=100.5)

    assert first
    assert not quiet.sweep_due(100.4 + 0.5 * SWEEP_REST)
    assert quiet.sweep_due(100.6 + 0.5 * SWEEP_REST)

    quiet.swept(100.0, now=200.0)

    assert quiet.sweep_due(261.0)


async def test_a_sample_rests_for_a_multiple_of_what_it_took(clock, start):
    """
    So it takes a twentieth of the time at most.
    """
    sampled = []

    class Slow(InMemoryStore):
        async def sample(self, *, cap):
            sampled.append(clock.now())
            await clock.sleep(2.0)
            return await super().sample(cap=cap)

    start(store=Slow(clock), sample_seconds=5.0)
    for _ in range(100):
        await clock.advance(1.0)

    gaps = [later - earlier for earlier, later in pairwise(sampled)]
    assert gaps
    assert min(gaps) >= 2.0 * SAMPLE_REST


async def test_very_many_paused_rows_in_front_cost_no_polls(
    start, store, clock, broker, monkeypatch
):
    """
    After a rewind the relay goes over a paused topic's rows in windows, one right after the other.
    """
    store.paused.add("orders")
    for _ in range(3000):
        store.insert("orders")
    running = start(poll_seconds=0.5)
    await clock.advance(5)
    reading = running.producer._term.reading
    monkeypatch.setattr(Window, "passed", lambda self, ids, *, seconds: None)
    reading.window.ids = 100
    row_id = store.insert("users")
    reading.rewind()
    begun = clock.now()
    while row_id not in broker.seqs():
        await clock.advance(0.01)

    assert clock.now() - begun < 0.6


def test_what_one_read_may_bring_fits_into_the_bytes_that_are_left():
    """
    I10. However large the payloads are that come with a read.
    """
    budget = 6 * LARGE_PAYLOAD_BYTES
    reading = make_reading(in_flight_bytes=budget)
    at_first = reading.plan(now=1.0).limit
    reading.bytes_in_flight = 4 * LARGE_PAYLOAD_BYTES
    later = reading.plan(now=1.0).limit
    reading.bytes_in_flight = 5 * LARGE_PAYLOAD_BYTES

    assert (at_first, later) == (6, 2)
    assert reading.room() == 0
