"""
How the rows of lanes gained meanwhile are read beside those of the others.
"""

from __future__ import annotations

import pytest

from outbox_relay.relay.ports import Row
from outbox_relay.relay.reading import Reading
from tests.unit.test_reading import row


@pytest.fixture
def reading() -> Reading:
    """Of lane 1, at rest at id 100."""
    reading = Reading(
        settle_seconds=0,
        chunk_rows=2,
        in_flight_rows=6,
        in_flight_bytes=10**6,
        safe=100,
        lanes=frozenset({1}),
    )
    plan = reading.plan(now=0.0)
    _, peek = reading.page(plan, [])
    reading.peeked(peek, [])
    assert reading.cursor == 100
    return reading


def step(reading: Reading, *rows: Row, uncommitted: tuple[int, ...] = ()):
    """One read by whoever's turn it is, answered with *rows*."""
    turn = reading.turn()
    plan = turn.plan(now=0.0)
    fresh, peek = turn.page(plan, rows)
    for found in fresh:
        reading.take(found)
    turn.dispatched(fresh)
    if peek is not None:
        turn.peeked(peek, [*(found.id for found in fresh), *uncommitted])
    reading.join()
    return plan


def test_a_reading_has_a_part_more_while_lanes_are_gained(reading):
    """
    Each part has a cursor and open ids of its own; without gained lanes there is one.
    """
    alone = reading.parts()
    reading.gain(frozenset({2}))

    assert alone == (reading,)
    assert reading.parts() == (reading, reading.gained)


def test_gained_lanes_are_read_from_the_first_id_in_turn_with_the_others(reading):
    """
    A backlog of a dead relay does not hold up the events of the lanes that were held.
    """
    reading.gain(frozenset({2, 3}))

    plans = [
        step(reading, row(5, lane=2), row(6, lane=3)),
        step(reading),
        step(reading, row(7, lane=2)),
    ]

    assert [(plan.after_id, sorted(plan.lanes)) for plan in plans] == [
        (0, [2, 3]),
        (100, [1]),
        (6, [2, 3]),
    ]


def test_gained_lanes_join_when_they_have_come_to_the_end(reading):
    """
    From the lower cursor, with the open ids of both.
    """
    reading.open_ids = {90}
    reading.gain(frozenset({2}))
    step(reading, row(5, lane=2), uncommitted=(40,))
    assert reading.gained is not None
    assert reading.gained.open_ids == {40}
    step(reading)
    step(reading)

    assert reading.gained is None
    assert reading.lanes == {1, 2}
    assert reading.open_ids == {40, 90}
    assert step(reading).after_id == 100


def test_more_open_ids_of_both_than_the_limit_hold_the_cursor_and_nothing_else(
    reading, monkeypatch
):
    """
    I10. Each had as many as one may have. The next look finds no new one.
    """
    monkeypatch.setattr("outbox_relay.relay.reading.MAX_OPEN_IDS", 3)
    reading.open_ids = {88, 89, 90}
    reading.gain(frozenset({2}))
    step(reading, uncommitted=(40, 41))
    step(reading)
    step(reading)
    assert reading.open_ids == {40, 41, 88, 89, 90}

    reading.peeked(reading.peek_open(), reading.open_ids)

    assert reading.open_ids == {40, 41, 88, 89, 90}


def test_the_room_is_common(reading):
    """
    I10. Two readings, one limit.
    """
    reading.gain(frozenset({2}))
    for row_id in range(1, 6):
        reading.take(row(row_id, lane=1))

    assert reading.gained is not None
    assert reading.gained.room() == reading.room() == 1


def test_a_rewind_goes_for_gained_lanes_too(reading):
    """
    What paused is found again in all lanes.
    """
    reading.gain(frozenset({2}))
    step(reading, row(5, lane=2), row(6, lane=2))
    reading.rewind()

    assert not reading.passed()
    assert [step(reading, row(7)).after_id, step(reading, row(8)).after_id] == [0, 0]


def test_nothing_is_idle_while_gained_lanes_are_drained(reading):
    """
    `--until-empty` waits for them.
    """
    step(reading)
    assert reading.idle()

    reading.gain(frozenset({2}))

    assert not reading.idle()


def test_a_sweep_of_a_part_passes_a_bounded_number_of_ids(reading):
    """
    I10. Millions of rows of others are no long scan.
    """
    reading.cursor = reading.safe = 10**6
    first = reading.sweep(10)
    assert first is not None
    reading.swept_to(first, [])
    second = reading.sweep(10)

    assert second is not None
    assert (first.after_id, first.upto_id) == (0, 50_000)
    assert (second.after_id, second.upto_id) == (50_000, 100_000)
    assert first.lanes == {1}


def test_lanes_gained_while_others_are_drained_are_read_with_them(reading):
    """
    I2. From the first id once more: of the new ones nothing has been read.
    """
    reading.gain(frozenset({2}))
    step(reading, row(50, lane=2), row(60, lane=2))
    reading.gain(frozenset({3}))
    step(reading)
    plan = step(reading, row(5, lane=3))

    assert (plan.after_id, plan.lanes) == (0, {2, 3})
    assert 50 in reading.in_flight


def test_gained_lanes_that_are_given_back_are_read_no_more(reading):
    """
    I6. The rest of them is drained as before, until there is no rest.
    """
    reading.gain(frozenset({2, 3}))
    reading.lose(frozenset({3}))

    assert step(reading, row(5, lane=2), row(6, lane=2)).lanes == {2}

    reading.lose(frozenset({2}))

    assert [step(reading).lanes, step(reading).lanes] == [{1}, {1}]


def test_what_is_dropped_twice_makes_room_once(reading):
    """
    I10. Whoever lets go of a row may not know that another has.
    """
    reading.take(row(1)._replace(payload_bytes=100))
    reading.take(row(2)._replace(payload_bytes=100))
    reading.dropped([1])
    reading.dropped([1])

    assert reading.bytes_in_flight == 100
    assert list(reading.in_flight) == [2]


def test_gained_lanes_whose_open_ids_were_rolled_back_go_on(reading, monkeypatch):
    """
    I2. A large transaction that was rolled back holds their cursor; while rows of a sick partition fill each
    page above it, only the look at the open ids frees them.
    """
    monkeypatch.setattr("outbox_relay.relay.reading.MAX_OPEN_IDS", 3)
    reading.gain(frozenset({2}))
    step(reading, uncommitted=(40, 41, 42))
    gained = reading.gained
    assert gained is not None
    assert gained.open_ids == {40, 41, 42}

    for part in reading.parts():
        look = part.peek_open()
        if look is not None:
            part.peeked(look, [])

    assert gained.open_ids == set()
