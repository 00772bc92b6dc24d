"""
Deliberately wrong relays, each of which the oracle must find out. One that survives is a bug in these
tests: the world is too kind to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from outbox_relay.testing import FakeClock, InMemoryStore
from tests.simulation import wrong_leases, wrong_operators, wrong_publishing, wrong_reading
from tests.unit import test_held_decisions, test_reading

Wrong = Callable[[Any], None]

WRONG: dict[str, Wrong] = {
    name: made
    for module in (wrong_reading, wrong_publishing, wrong_leases, wrong_operators)
    for name, made in vars(module).items()
    if getattr(made, "__module__", "") == module.__name__
    and not name.startswith("_")
    and callable(made)
}
"""By name."""


def rule_of(name: str) -> str:
    """What the wrong relay does, in a line."""
    return " ".join((WRONG[name].__doc__ or "").split())


NAMED: dict[str, Callable[[], None]] = {
    "key_goes_on_unnoticed": lambda: asyncio.run(
        test_held_decisions.test_a_key_that_goes_on_as_lanes_are_gained_is_told(
            InMemoryStore(FakeClock())
        )
    ),
    "sweep_without_keyset": test_reading.test_the_sweep_pages_on_and_starts_again,
}
"""Those that only another test finds out: what they do wrong makes a delay here, and no harm."""
