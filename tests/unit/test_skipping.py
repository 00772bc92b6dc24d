"""
Reading past paused topics: windows of ids without a row of them.
"""

from tests.unit.test_reading import make_reading, read, settled_at


def test_paused_topics_are_skipped_in_windows():
    """
    A million rows of a paused topic are no long scan.
    """
    reading = settled_at(1_000_000)
    reading.skip_topics = frozenset({"paused"})

    _, plan, peek = read(reading, 10.0)
    reading.peeked(peek, [])

    assert plan.upto_id == 50_000
    assert reading.cursor == 50_000
    assert not reading.caught_up


def test_a_term_that_has_noted_nothing_skips_in_windows_too():
    """
    All of a paused topic's rows are above `safe` then: one read would pass them all, again and again.
    """
    reading = make_reading()
    reading.skip_topics = frozenset({"paused"})
    reading.note(1_000_000, now=100.0)

    _, plan, _ = read(reading, 100.0)

    assert (plan.after_id, plan.upto_id) == (0, 50_000)
    assert not reading.caught_up

    for second in range(101, 104):
        reading.note(1_000_000, now=float(second))

    assert reading.plan(now=103.0).upto_id == 50_000

    tail = make_reading()
    tail.skip_topics = frozenset({"paused"})
    tail.note(40_000, now=100.0)

    assert tail.plan(now=100.0).upto_id is None
