"""
Lanes that come and go, to the letter: with what they are read, and when.
"""

from __future__ import annotations

import pytest

from outbox_relay.relay.ports import ReadPlan
from outbox_relay.schema import LANES
from tests.unit.test_reading import row, rows
from tests.unit.test_reading_plans import PAUSED, make_reading, take


def test_lanes_are_under_way_until_their_last_mark():
    """
    A lane is given back when nothing of it is.
    """
    reading = make_reading()
    for row_id, lane in ((1, 5), (2, 5), (3, 6)):
        reading.take(row(row_id, lane=lane))
    before = reading.lanes_in_flight()
    reading.settled([1, 3])

    assert before == {5, 6}
    assert reading.lanes_in_flight() == {5}


@pytest.mark.parametrize(
    ("held", "cursor", "at_the_end", "apart"),
    [
        ({1}, 0, False, False),
        ({1}, 0, True, True),
        ({1}, 1, False, True),
        (set(), 1, True, False),
    ],
)
def test_lanes_gained_before_anything_was_read_are_read_with_the_others(
    held, cursor, at_the_end, apart
):
    """
    Also where no others are held. Else they come by themselves until they have caught up.
    """
    reading = make_reading(
        safe=100, cursor=cursor, lanes=frozenset(held), at_the_end=at_the_end, pass_done=True
    )
    reading.gain(frozenset({2}))
    gained = reading.gained

    assert (gained is not None) is apart
    assert reading.lanes == (held if apart else held | {2})
    assert reading.cursor == (cursor if apart else 0)


def test_more_lanes_gained_join_those_that_were_gained():
    """
    And begin with them anew. What is in flight is that of all, and so is the room.
    """
    reading = make_reading(safe=100, cursor=100, lanes=frozenset({1}))
    reading.gain(frozenset({2}))
    gained = reading.gained
    assert gained is not None
    gained.cursor = 50
    reading.gain(frozenset({3}))
    take(reading, 7)
    reading.skip_topics = PAUSED
    reading.note(300, now=1.0)
    reading.note(300, now=2.0)

    assert reading.gained is gained
    assert gained.plan(now=2.0) == ReadPlan(
        after_id=0,
        open_ids=frozenset(),
        limit=10,
        upto_id=300,
        skip_topics=PAUSED,
        skip_ids=((7, 7),),
        lanes=frozenset({2, 3}),
    )
    gained.page(gained.plan(now=2.0), rows(7, 9))
    assert reading.largest_read == 9


def test_lanes_that_are_lost_are_read_no_more():
    """
    I5. Of the common ones or of those gained; where none is left of these, nothing is read for them.
    """
    reading = make_reading(safe=100, cursor=100, lanes=frozenset({1, 2}))
    reading.lose(frozenset({2}))
    first = reading.lanes
    reading.gain(frozenset({3, 4}))
    reading.dispatched(rows(101))
    reading.lose(frozenset({3}))
    gained = reading.gained
    assert gained is not None
    lanes = gained.lanes
    skipped = reading.plan(now=1.0).skip_ids
    reading.lose(frozenset({4}))

    assert first == {1}
    assert (reading.lanes, lanes, reading.gained) == ({1}, {4}, None)
    assert skipped == ()


def test_gained_lanes_have_every_second_turn():
    """
    As long as there are any.
    """
    reading = make_reading(safe=100, cursor=100, lanes=frozenset({1}))
    alone = [reading.turn(), reading.turn()]
    reading.gain(frozenset({2}))
    gained = reading.gained
    turns = [reading.turn() for _ in range(4)]
    reading.gained = None

    assert alone == [reading, reading]
    assert [turn is gained for turn in turns] == [True, False, True, False]
    assert [reading.turn(), reading.turn()] == [reading, reading]


def test_gained_lanes_join_from_the_lower_cursor_when_they_are_at_the_end():
    """
    I4. Not before; then all is read together, and nothing is caught up until it was.
    """
    reading = make_reading(safe=100, cursor=100, lanes=frozenset({1}), caught_up=True)
    reading.join()
    reading.gain(frozenset(range(LANES)) - {1})
    gained = reading.gained
    assert gained is not None
    reading.open_ids, gained.open_ids, gained.cursor = {90}, {40}, 60
    reading.join()
    before = reading.gained, reading.cursor
    gained.at_the_end = True
    reading.join()

    assert before == (gained, 100)
    assert reading.gained is None
    assert (reading.cursor, reading.open_ids, reading.caught_up) == (60, {40, 90}, False)
    assert reading.lanes == set(range(LANES))
