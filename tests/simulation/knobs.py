"""Constants of the relay that a small world sets smaller, or it would never reach them."""

from __future__ import annotations

from typing import Any

from outbox_relay.cli import dead_letter_work
from outbox_relay.relay import held, marker, reading, term, window
from outbox_relay.store import ahead
from tests.simulation.operators import no_signals
from tests.simulation.scenario import Scenario

FEW_DEAD_LETTERS = 2
"""How many are looked at in a world where everything is scarce."""

Knobs = dict[tuple[Any, str], Any]


def knobs(scenario: Scenario) -> Knobs:
    """Constants of the relay that a small world never reaches: some worlds have smaller ones."""
    few = scenario.few
    return {
        (term, "FIRST_POLL_SECONDS"): scenario.first_poll_seconds,
        (ahead, "AHEAD_IDS"): 0 if scenario.engine == "postgresql ahead" else 10_000,
        (window, "MOST_SKIP_RANGES"): 1 if few else 100,
        (reading, "MAX_OPEN_IDS"): 3 if few else 5000,
        (marker, "MARK_ROWS"): 4 if few else 2000,
        (dead_letter_work, "stop_signals"): no_signals,
        (held, "MOST_DEAD_LETTERS"): FEW_DEAD_LETTERS if few else 10_000,
    }


def set_knobs(knobs: Knobs) -> Knobs:
    """Set them. What they were."""
    before = {place: getattr(*place) for place in knobs}
    for place, value in knobs.items():
        setattr(*place, value)
    return before
