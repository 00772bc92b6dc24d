"""
Each read to the letter: what it asks for, what it leaves out, and where it ends.
"""

from __future__ import annotations

import pytest

from outbox_relay.relay.ports import LARGE_PAYLOAD_BYTES, ReadPlan
from outbox_relay.relay.reading import Reading
from outbox_relay.relay.window import FIRST_IDS, MAX_OPEN_IDS
from tests.unit.test_reading import row, rows

LANES_HELD = frozenset({1, 2})
PAUSED = frozenset({"paused"})


def make_reading(**changes) -> Reading:
    options = dict(settle_seconds=0.0, chunk_rows=10, in_flight_rows=40, in_flight_bytes=10_000_000)
    return Reading(**(options | changes))


def take(reading: Reading, *ids: int) -> None:
    for row_id in ids:
        reading.take(row(row_id))


def test_a_forward_read_asks_for_no_more_than_it_needs():
    """
    What is in flight or left behind is left out where it comes after the cursor, and only there.
    """
    reading = make_reading(safe=100, cursor=50, lanes=LANES_HELD, skip_topics=PAUSED)
    reading.open_ids = {20}
    take(reading, 49, 50, 51)
    reading.dispatched(rows(48, 50, 60))

    assert reading.plan(now=1.0) == ReadPlan(
        after_id=50,
        open_ids=frozenset({20}),
        limit=10,
        upto_id=100,
        skip_topics=PAUSED,
        skip_ids=((51, 51), (60, 60)),
        lanes=LANES_HELD,
    )


def test_what_was_left_behind_up_to_the_cursor_is_forgotten():
    """
    I10. No read returns it any more.
    """
    reading = make_reading(safe=100, cursor=50)
    reading.dispatched(rows(49, 50, 60))

    assert reading.plan(now=1.0).skip_ids == ((60, 60),)


def test_a_look_for_open_ids_leaves_out_what_is_known():
    """
    The page itself, what is in flight and what is left behind. It has room for all that is open.
    """
    reading = make_reading(safe=100, cursor=50, lanes=LANES_HELD, skip_topics=PAUSED)
    reading.open_ids = {20, 30}
    take(reading, 50, 51)
    reading.dispatched(rows(60))
    _, peek = reading.page(reading.plan(now=1.0), rows(70, 71))

    assert peek == ReadPlan(
        after_id=50,
        open_ids=frozenset({20, 30}),
        limit=2 + MAX_OPEN_IDS + 1,
        upto_id=100,
        skip_topics=PAUSED,
        skip_ids=((51, 51), (60, 60), (70, 71)),
        lanes=LANES_HELD,
    )


def test_a_look_at_the_open_ids_alone_moves_nothing():
    """
    Not even from where no row was read yet.
    """
    reading = make_reading(safe=100)
    reading.open_ids = {7, 8}
    plan = reading.peek_open()
    assert plan is not None
    reading.peeked(plan, [8])

    assert plan == ReadPlan(
        after_id=0, open_ids=frozenset({7, 8}), limit=2 + MAX_OPEN_IDS + 1, upto_id=0
    )
    assert reading.open_ids == {8}
    assert reading.cursor == 0


def test_a_sweep_asks_for_what_is_below_the_cursor():
    """
    It has room beside what is in flight there.
    """
    reading = make_reading(safe=100, cursor=50, lanes=LANES_HELD, skip_topics=PAUSED)
    reading._sweep_from = 10
    take(reading, 9, 10, 11, 50, 51)

    assert reading.sweep(5) == ReadPlan(
        after_id=10,
        upto_id=50,
        open_ids=frozenset(),
        limit=5 + 2,
        skip_topics=PAUSED,
        lanes=LANES_HELD,
    )


@pytest.mark.parametrize(("sweep_from", "in_flight"), [(50, 0), (60, 0), (0, 40)])
def test_where_nothing_can_be_found_the_sweep_begins_again(sweep_from, in_flight):
    """
    At the cursor, and where there is no room.
    """
    reading = make_reading(safe=100, cursor=50)
    take(reading, *range(101, 101 + in_flight))
    reading._sweep_from = sweep_from
    none = reading.sweep(5)
    reading.dropped(range(101, 141))
    plan = reading.sweep(5)

    assert none is None
    assert plan is not None
    assert plan.after_id == 0


def test_a_sweep_that_was_cut_goes_on_after_the_last_row_that_fitted():
    """
    A page that was full after its last row; any other after its end, and then from the start.
    """
    reading = make_reading(safe=100, cursor=90)
    ends = []
    for returned in (rows(3, 4, 5, 6), rows(7, 8, 9), rows()):
        plan = reading.sweep(3)
        reading.late(returned)
        reading.swept_to(plan, returned)
        ends.append(reading._sweep_from)

    assert ends == [5, 9, 0]


def test_a_sweep_that_leaves_nothing_out_goes_on_at_the_end_of_its_range():
    """
    Not after its last row: what comes after it was seen too.
    """
    reading = make_reading(safe=10**6, cursor=10**6)
    plan = reading.sweep(10)
    reading.late(rows(3))
    reading.swept_to(plan, rows(3))

    assert reading._sweep_from == FIRST_IDS


def test_room_counts_rows_and_bytes_up_to_their_limits():
    """
    I10. What is marked but not forgotten leaves room; nothing leaves less than none.
    """
    by_rows = make_reading(in_flight_rows=2)
    before = by_rows.room()
    take(by_rows, 1, 2)
    full = by_rows.room()
    by_rows.settled([1])
    marked = by_rows.room()
    take(by_rows, 3, 4)
    by_bytes = make_reading(in_flight_bytes=1000)
    by_bytes.take(row(1, 500))
    by_bytes.take(row(2, 250))
    just = by_bytes.room()
    by_bytes.take(row(3, 1))

    assert (before, full, marked, by_rows.room()) == (2, 0, 1, 0)
    assert (just, by_bytes.room()) == (38, 0)


def test_a_read_brings_one_row_where_less_than_one_large_payload_fits():
    """
    I10. And as many whole ones as fit otherwise.
    """
    tight = make_reading(in_flight_bytes=LARGE_PAYLOAD_BYTES - 1)
    half = make_reading(in_flight_bytes=LARGE_PAYLOAD_BYTES * 5 // 2)

    assert tight.plan(now=1.0).limit == 1
    assert repr(half.plan(now=1.0).limit) == "2"


def test_what_is_not_in_flight_cannot_be_dropped():
    """
    A mark and a pause may both name a row.
    """
    reading = make_reading()
    take(reading, 1)
    reading.dropped([1, 1, 2])

    assert (reading.in_flight, reading.bytes_in_flight) == ({}, 0)


def test_the_same_largest_id_again_leaves_all_as_it_is():
    """
    Only a smaller one says that the table was emptied.
    """
    reading = make_reading(safe=100)
    reading.dispatched(rows(7))
    reading.note(100, now=1.0)

    assert reading.plan(now=1.0).skip_ids == ((7, 7),)


@pytest.mark.parametrize(("second_note", "safe"), [(1.5, 5), (2.0, 0), (2.5, 0)])
def test_half_a_second_late_is_no_silence(second_note, safe):
    """
    More is: that time does not count towards `safe`.
    """
    reading = make_reading(settle_seconds=1.5)
    reading.note(5, now=0.0)
    reading.note(5, now=second_note)
    reading.plan(now=second_note)

    assert reading.safe == safe


def test_above_safe_windows_are_for_what_lies_beyond_one():
    """
    Where a topic pauses; the last one has no end.
    """
    ends = []
    for noted in (FIRST_IDS, FIRST_IDS + 1):
        reading = make_reading(settle_seconds=60.0, skip_topics=PAUSED)
        reading.note(noted, now=1.0)
        ends.append(reading.plan(now=1.0).upto_id)

    assert ends == [None, FIRST_IDS]


@pytest.mark.parametrize(
    ("returned", "limit", "goes_on"),
    [((101, 102), 2, True), ((101,), 2, False), ((1, 2), 2, False), ((), 2, False)],
)
def test_a_full_page_with_something_new_says_that_there_is_more(returned, limit, goes_on):
    """
    Above `safe`, where the cursor does not move. A page of rows in flight says nothing.
    """
    reading = make_reading(safe=100, cursor=100, chunk_rows=limit)
    reading.plan(now=1.0)
    take(reading, 1, 2)
    reading.page(ReadPlan(after_id=100, open_ids=frozenset(), limit=limit), rows(*returned))

    assert bool(reading.goes_on()) is goes_on
    assert reading.largest_read == max(returned, default=0)


def test_a_read_that_did_not_move_the_cursor_waits_for_the_next_poll():
    """
    Else a wall of open ids would be read without a rest.
    """
    reading = make_reading(safe=10**6)
    reading.plan(now=1.0)
    stands = reading.goes_on()
    reading.cursor = FIRST_IDS
    moved = reading.goes_on()

    assert (stands, moved) == (False, True)


@pytest.mark.parametrize(
    ("after_id", "upto_id", "ids"),
    [(0, FIRST_IDS, FIRST_IDS), (10, FIRST_IDS, FIRST_IDS - 10), (0, None, 10**6)],
)
def test_what_a_read_passed_is_told_to_the_window(after_id, upto_id, ids, monkeypatch):
    """
    Up to the end of its range, or to `safe` where it has none.
    """
    reading = make_reading(safe=10**6)
    told = []
    monkeypatch.setattr(
        "outbox_relay.relay.window.Window.passed", lambda self, ids, *, seconds: told.append(ids)
    )
    monkeypatch.setattr(
        "outbox_relay.relay.window.Window.failed", lambda self, ids: told.append(-ids)
    )
    plan = ReadPlan(after_id=after_id, open_ids=frozenset(), limit=2, upto_id=upto_id)
    reading.answered(plan, [], seconds=1.0)
    reading.answered(plan, None, seconds=1.0)
    reading.answered(plan, rows(1, 2), seconds=1.0)

    assert told == [ids, -ids]


def test_open_ids_of_before_count_towards_the_most(monkeypatch):
    """
    I10. The cursor stops below the first new one for which there is no place.
    """
    monkeypatch.setattr("outbox_relay.relay.reading.MAX_OPEN_IDS", 4)
    just, too_many, none_left = (make_reading(safe=100) for _ in range(3))
    look = ReadPlan(after_id=0, open_ids=frozenset(), limit=50, upto_id=100)
    just.open_ids = too_many.open_ids = {1, 2}
    just.peeked(look, [1, 2, 11, 12])
    too_many.open_ids = {1, 2}
    too_many.peeked(look, [1, 2, 11, 12, 13])
    none_left.open_ids = {1, 2, 3, 4}
    none_left.peeked(look, [1, 2, 3, 4, 11])

    assert (just.cursor, just.open_ids) == (100, {1, 2, 11, 12})
    assert (too_many.cursor, too_many.open_ids) == (12, {1, 2, 11, 12})
    assert (none_left.cursor, none_left.open_ids) == (10, {1, 2, 3, 4})


def test_a_pass_is_done_exactly_where_it_began():
    """
    And stays done: what is parked later waits for no pass.
    """
    reading = make_reading(safe=100, cursor=100)
    reading.rewind()
    done = []
    for end in (99, 100):
        reading.peeked(ReadPlan(after_id=0, open_ids=frozenset(), limit=50, upto_id=end), [])
        done.append(reading.passed())
    reading.safe = 500
    reading._pass_to = 500
    reading.page(ReadPlan(after_id=100, open_ids=frozenset(), limit=50, upto_id=200), [])
    done.append(reading.passed())
    reading.peeked(ReadPlan(after_id=100, open_ids=frozenset(), limit=50, upto_id=200), [])
    done.append(reading.passed())

    assert done == [False, True, True, True]


def test_a_rewind_forgets_where_everything_was():
    """
    Nothing is caught up, and the sweep begins at the first id.
    """
    reading = make_reading(safe=100, cursor=100, caught_up=True, at_the_end=True)
    reading._sweep_from = 50
    reading.rewind()
    reading.cursor = 10
    plan = reading.sweep(5)

    assert (reading.caught_up, reading.at_the_end) == (False, False)
    assert plan is not None
    assert plan.after_id == 0
