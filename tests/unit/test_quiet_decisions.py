"""
When nothing moves, and what is due then: decisions about a time that is given.
"""

from __future__ import annotations

import pytest

from outbox_relay.relay.ports import ReadPlan
from outbox_relay.relay.quiet import (
    MOST_REST_SECONDS,
    QUIET_NOTE_SECONDS,
    QUIET_SWEEP_SECONDS,
    SWEEP_REST,
    SWEEP_SECONDS,
    Quiet,
)
from outbox_relay.relay.reading import NOTE_SECONDS, Reading


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


def test_a_table_that_stands_still_is_quiet_from_then_on(quiet):
    """
    A look that finds the same id, and a read that finds no row, are no move.
    """
    quiet.noted(7, now=60.0)
    quiet.noted(7, now=63.0)
    quiet.found(0, now=63.5)
    quiet.reading.note(7, now=60.0)
    quiet.reading.safe = 7

    assert quiet.lasts(64.0)


def test_a_key_that_waits_ends_the_quiet_time(quiet):
    """
    An operator's word about its dead letter should be heard soon.
    """
    quiet.held = type("OneHeld", (), {"any": staticmethod(lambda: True)})()

    assert not quiet.lasts(60.0)


def test_only_in_a_quiet_time_a_look_is_left_out(quiet):
    """
    A little early rather than a turn late; and it is remembered that one was left out.
    """
    due = 100.0 + QUIET_NOTE_SECONDS - NOTE_SECONDS / 2
    quiet.noted(0, now=100.0)
    before = quiet.rested
    rests = quiet.may_rest(due - 0.1)
    remembered = quiet.rested
    late = quiet.may_rest(due), quiet.rested
    quiet.noted(0, now=due)
    anew = quiet.rested
    quiet.found(1, now=due)

    assert (before, rests, remembered, late) == (False, True, True, (False, True))
    assert anew is False
    assert quiet.may_rest(due + 0.1) is False
    assert quiet.rested is False


def test_sweeps_are_fewer_in_a_quiet_time(quiet):
    """
    The first one is due at once.
    """
    first = quiet.sweep_due(100.0)
    early = quiet.sweep_due(100.0 + QUIET_SWEEP_SECONDS - 0.1)
    due = quiet.sweep_due(100.0 + QUIET_SWEEP_SECONDS)
    moved = 100.0 + QUIET_SWEEP_SECONDS
    quiet.found(1, now=moved)

    assert (first, early, due) == (True, False, True)
    assert not quiet.sweep_due(moved + SWEEP_SECONDS - 0.1)
    assert quiet.sweep_due(moved + SWEEP_SECONDS)


def test_a_sweep_that_took_long_rests_long_but_not_for_ever(quiet):
    """
    So it takes a twentieth of the time at most.
    """
    quiet.sweep_due(100.0)
    quiet.swept(1.0, now=101.0)
    short = quiet.sweep_due(100.9 + SWEEP_REST), quiet.sweep_due(101.0 + SWEEP_REST)
    quiet.swept(1000.0, now=200.0)
    long = quiet.sweep_due(199.9 + MOST_REST_SECONDS), quiet.sweep_due(200.0 + MOST_REST_SECONDS)

    assert short == (False, True)
    assert long == (False, True)


def test_a_term_is_quiet_two_notes_after_safe_has_followed(quiet, monkeypatch):
    """
    However often it notes.
    """
    monkeypatch.setattr("outbox_relay.relay.quiet.NOTE_SECONDS", 3.0)
    quiet.found(1, now=60.0)

    assert not quiet.lasts(67.9)
    assert quiet.lasts(68.0)
