"""
The rules of gap-safe reading, by themselves: what is asked for next, and what an answer means.
"""

from outbox_relay.relay.ports import LARGE_PAYLOAD_BYTES, ReadPlan, Row
from outbox_relay.relay.reading import Reading
from outbox_relay.relay.window import MAX_OPEN_IDS, MOST_SKIP_RANGES


def make_reading(**changes) -> Reading:
    options = dict(settle_seconds=2.0, chunk_rows=10, in_flight_rows=40, in_flight_bytes=10_000_000)
    return Reading(**(options | changes))


def row(row_id: int, payload_bytes: int = 2, lane: int = 0) -> Row:
    return Row(row_id, "t", b"k", b"{}", payload_bytes, 0, None, b"", "e", "", 0, None, lane)


def rows(*ids: int) -> list[Row]:
    return [row(row_id) for row_id in ids]


def read(reading: Reading, now: float, *ids: int) -> tuple[list[int], ReadPlan, ReadPlan | None]:
    """One read that returns *ids*; every new row goes in flight."""
    plan = reading.plan(now=now)
    fresh, peek = reading.page(plan, rows(*ids))
    for fresh_row in fresh:
        reading.take(fresh_row)
    reading.dispatched(fresh)
    return [r.id for r in fresh], plan, peek


def settled_at(max_id: int, **changes) -> Reading:
    """A reading that noted *max_id* long enough ago, up to the second 10."""
    reading = make_reading(**changes)
    for second in range(6, 11):
        reading.note(max_id, now=float(second))
    return reading


def test_the_cursor_stays_until_an_id_was_noted_long_enough_ago():
    """
    Above `safe` each read starts again at `safe`, so that an id which commits late is still found.
    """
    reading = make_reading()
    reading.note(5, now=100.0)

    fresh, plan, peek = read(reading, 101.9, 4, 5)

    assert (fresh, plan.after_id, peek) == ([4, 5], 0, None)
    assert reading.plan(now=101.95).after_id == 0


def test_a_full_page_below_safe_moves_the_cursor_to_its_last_row_once_it_was_read_dirty():
    """
    Below `safe` the cursor runs chunk by chunk, each after a look for open ids.
    """
    reading = settled_at(100, chunk_rows=3)

    _, _, peek = read(reading, 10.0, 7, 8, 9)

    assert peek is not None
    assert (peek.after_id, peek.upto_id) == (0, 9)
    assert reading.cursor == 0

    reading.peeked(peek, [7, 8, 9])

    assert reading.cursor == 9


def test_a_page_that_is_not_full_moves_the_cursor_to_safe():
    """
    Everything committed up to `safe` was returned.
    """
    reading = settled_at(100)

    _, _, peek = read(reading, 10.0, 7)
    reading.peeked(peek, [7])

    assert reading.cursor == 100


def test_an_id_seen_only_by_the_dirty_read_is_open_and_asked_for_with_every_later_read():
    """
    Inversion (a). The row behind the cursor and the one that its transaction held up come in one
    snapshot.
    """
    reading = settled_at(100)

    _, _, peek = read(reading, 10.0, 7)
    reading.peeked(peek, [5, 7])
    fresh, plan, _ = read(reading, 11.0, 5, 101)

    assert plan.open_ids == {5}
    assert fresh == [5, 101]
    assert reading.open_ids == set()


def test_an_open_id_that_is_gone_is_forgotten():
    """
    Its transaction rolled back.
    """
    reading = settled_at(100)
    _, _, peek = read(reading, 10.0, 7)
    reading.peeked(peek, [5, 7])

    reading.peeked(reading.peek_open(), [])

    assert reading.open_ids == set()
    assert reading.peek_open() is None


def test_a_transaction_with_very_many_rows_holds_the_cursor_and_not_the_statement():
    """
    I10. No statement grows without bound.
    """
    reading = settled_at(20_000)

    _, _, peek = read(reading, 10.0)
    reading.peeked(peek, range(1, 12_001))

    assert len(reading.open_ids) == MAX_OPEN_IDS
    assert reading.cursor == MAX_OPEN_IDS


def test_a_reader_that_stalled_has_noted_nothing():
    """
    Inversion (c). However long the reader slept, `safe` is an id that had been given out.
    """
    reading = make_reading()
    reading.note(5, now=100.0)
    read(reading, 100.5, 5)

    reading.note(900, now=500.0)
    reading.note(900, now=501.0)
    plan = reading.plan(now=501.0)

    assert plan.after_id == 0
    assert reading.safe == 5


def test_time_in_which_the_database_stood_still_does_not_count():
    """
    A row whose id was given out may stand still with it, between its id and its place in the table.
    """
    reading = make_reading()
    reading.note(5, now=100.0)
    assert reading.plan(now=104.5).after_id == 0

    reading.note(6, now=105.0)
    reading.plan(now=105.0)
    assert reading.safe == 0

    reading.note(6, now=106.0)
    reading.plan(now=106.0)
    assert reading.safe == 5


def test_a_row_that_could_not_be_dispatched_stays_open():
    """
    It must be asked for again, ahead of what came after it.
    """
    reading = settled_at(100)
    _, _, peek = read(reading, 10.0, 7)
    reading.peeked(peek, [5, 7])

    reading.page(reading.plan(now=10.1), rows(5))

    assert reading.plan(now=10.2).open_ids == {5}


def test_rows_in_flight_are_left_out_and_do_not_take_the_place_of_others():
    """
    Ranges without a gap are left out in SQL; a gap may hold an id that is not yet committed.
    """
    reading = make_reading()

    read(reading, 0.0, 1, 2, 3, 5)
    fresh, plan, _ = read(reading, 0.1, 3, 6)

    assert fresh == [6]
    assert plan.skip_ids == ((1, 3), (5, 5))
    assert plan.limit == 10


def test_ids_in_flight_that_are_not_left_out_are_counted():
    """
    The statement stays short, however the ids in flight are scattered.
    """
    reading = make_reading(chunk_rows=500, in_flight_rows=1000)

    read(reading, 0.0, *range(1, 400, 2))
    plan = reading.plan(now=0.1)

    assert len(plan.skip_ids) == MOST_SKIP_RANGES
    assert plan.limit == 500 + 100


def test_no_more_rows_are_taken_than_there_is_room_for():
    """
    I10. A read asks for more by those in flight that it may return. Others may come first instead.
    """
    scattered = range(1001, 1001 + 2 * (MOST_SKIP_RANGES + 20), 2)
    reading = settled_at(2000, chunk_rows=200, in_flight_rows=150)
    read(reading, 10.0, *scattered)
    reading.rewind()
    plan = reading.plan(now=10.0)
    asked = plan.limit

    fresh, peek = reading.page(plan, rows(*range(1, asked + 1)))

    assert (asked, len(fresh), reading.room()) == (50, 30, 30)
    assert peek is not None
    assert peek.upto_id == 30


def test_the_sweep_takes_no_more_rows_than_there_is_room_for():
    """
    I10. And goes on behind the last that it took.
    """
    reading = settled_at(100, chunk_rows=10, in_flight_rows=12)
    read(reading, 10.0, *range(81, 91))
    plan = reading.plan(now=10.0)
    reading.peeked(reading.page(plan, [])[1], [])
    sweep = reading.sweep(1000)
    assert sweep.limit == 2 + 10

    late = reading.late(rows(*range(1, 13)))
    reading.swept_to(sweep, rows(*range(1, 13)))
    for row_ in late:
        reading.take(row_)

    assert [r.id for r in late] == [1, 2]
    reading.settled([1, 2])
    assert reading.sweep(1000).after_id == 2


def test_a_marked_id_is_forgotten_only_when_a_later_read_starts():
    """
    A read that started before the mark committed still returns the row as pending.
    """
    reading = make_reading()
    read(reading, 0.0, 1)
    plan = reading.plan(now=0.1)

    reading.settled([1])
    late_answer, _ = reading.page(plan, rows(1))

    assert late_answer == []

    reading.plan(now=0.2)

    assert reading.in_flight == {}


def test_room_is_bounded_by_rows_and_by_bytes():
    """
    I10.
    """
    reading = make_reading(in_flight_rows=20, in_flight_bytes=100)

    read(reading, 0.0, 1)
    read(reading, 0.0, 1, 2)
    assert reading.room() == 18

    reading.take(row(3, payload_bytes=96))
    assert reading.room() == 0

    reading.settled([3])
    reading.plan(now=1.0)
    assert reading.room() == 18


def test_a_rewind_makes_one_ordered_pass_from_the_first_row():
    """
    What was parked is found again, in order, and before anything newer of its key.
    """
    reading = settled_at(100)
    _, _, peek = read(reading, 10.0, 7, 8)
    reading.peeked(peek, [7, 8])
    reading.dropped([7, 8])

    reading.rewind()
    fresh, plan, _ = read(reading, 11.0, 7, 8, 9)

    assert plan.after_id == 0
    assert fresh == [7, 8, 9]


def test_a_pass_is_done_when_it_came_to_where_it_began():
    """
    A second rewind before that would keep the cursor from the tail for ever.
    """
    reading = settled_at(100, chunk_rows=2)
    _, _, peek = read(reading, 10.0, 7, 8)
    reading.peeked(peek, [])
    reading.rewind()
    assert not reading.pass_done

    _, _, peek = read(reading, 10.1, 90, 95)
    reading.peeked(peek, [])
    assert not reading.pass_done

    read(reading, 10.2, 101)
    assert reading.pass_done


def test_the_sweep_returns_late_rows_and_leaves_open_ones_to_the_forward_read():
    """
    The forward read keeps the order of open ids; the sweep finds what nothing else can.
    """
    reading = settled_at(100)
    _, _, peek = read(reading, 10.0, 7)
    reading.peeked(peek, [5, 7])

    plan = reading.sweep(10)
    late = reading.late(rows(3, 5, 7))

    assert (plan.after_id, plan.upto_id) == (0, 100)
    assert [r.id for r in late] == [3]


def test_the_sweep_pages_on_and_starts_again():
    """
    It neither stops at rows in flight nor looks at everything at once.
    """
    reading = settled_at(100)
    _, _, peek = read(reading, 10.0)
    reading.peeked(peek, [])

    plan = reading.sweep(2)
    reading.swept_to(plan, rows(3, 4))
    second = reading.sweep(2)
    reading.swept_to(second, rows(9))

    assert second.after_id == 4
    assert reading.sweep(2).after_id == 0


def test_a_table_that_was_emptied_or_restored_takes_the_cursor_back():
    """
    Ids above what is there may be given out again.
    """
    reading = settled_at(100)
    _, _, peek = read(reading, 10.0)
    reading.peeked(peek, [])

    reading.note(3, now=20.0)

    assert reading.plan(now=20.1).after_id <= 3


def test_caught_up_means_that_nothing_is_left():
    """
    Not while ids are open, rows are new, or the page was full.
    """
    reading = settled_at(100)

    _, _, peek = read(reading, 10.0, 7)
    reading.peeked(peek, [5, 7])
    assert not reading.caught_up

    read(reading, 10.1, 7)
    assert not reading.caught_up

    reading.peeked(reading.peek_open(), [])
    read(reading, 10.2)
    assert reading.caught_up
    assert not reading.idle()

    reading.settled([7])
    assert reading.idle()


def test_a_read_of_gained_lanes_brings_no_more_bytes_than_fit():
    """
    I10. The budget is common to both reads: what the common one has in flight counts for the other.
    """
    reading = make_reading(in_flight_bytes=10 * LARGE_PAYLOAD_BYTES, lanes=frozenset({1}))
    read(reading, 0.0)
    reading.gain(frozenset({2}))
    reading.take(row(1, 7 * LARGE_PAYLOAD_BYTES))

    assert reading.gained is not None
    assert reading.gained.plan(now=0.1).limit == 3
