"""
What the dashboard says and draws, without a page: pure functions.
"""

from __future__ import annotations

import doctest

import pytest

from outbox_relay import shown
from outbox_relay.admin import actions, course, drawing, live, login, selecting, texts, web
from outbox_relay.admin.course import Course
from outbox_relay.metrics import Metrics, MetricsObserver


@pytest.mark.parametrize(
    "module", [actions, course, drawing, live, login, selecting, shown, texts, web]
)
def test_the_examples_run(module):
    """
    What a docstring shows is so.
    """
    found = doctest.testmod(module)

    assert found.attempted > 0
    assert found.failed == 0


def test_the_course_forgets_what_is_old_and_divides_by_the_time():
    """
    Rates are of the time that passed between two looks; ten minutes are kept.
    """
    now = 0.0
    observer = MetricsObserver(Metrics())
    kept = Course(observer, clock=lambda: now)
    for _ in range(200):
        now += 5
        observer.published("orders", 50, 1, 0.1)
        observer.latency(0.02, 50)
        kept.look()

    recently = kept.recently()
    assert kept.seconds == 600
    assert set(kept.rates()) == {10.0}
    assert recently.published_per_second == 10.0
    assert recently.by_topic == (("orders", 10.0),)
    assert 0.01 < recently.p50_seconds < recently.p99_seconds <= 0.025


def test_a_course_without_a_past_says_nothing():
    """
    No division by no time.
    """
    kept = Course(MetricsObserver(Metrics()), clock=lambda: 1.0)
    kept.look()

    assert kept.rates() == []
    assert kept.recently().p99_seconds is None


def test_lanes_are_drawn_for_each_owner():
    """
    The largest first; what nobody owns stays empty; many owners share the last colour.
    """
    many = {f"pod-{number}": 8 for number in range(7)}
    found = drawing.owners(many, dict.fromkeys(many, 9.0), this="pod-3")
    cells = drawing.lane_cells(found)

    assert [owner.colour for owner in found] == [0, 1, 2, 3, 4, 5, 5]
    assert [owner.name for owner in found if owner.is_this] == ["pod-3"]
    assert len(cells) == 64
    assert cells[56:] == [None] * 8
