"""Makes a scenario that fails small: leaves out faults, transactions and rows while it still fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from tests.simulation.oracle import Violation
from tests.simulation.scenario import Scenario
from tests.simulation.world import World

SCHEDULES = 3
"""How many other orders of what happens at the same time are tried before a part counts as needed."""


def run(scenario: Scenario) -> Violation | None:
    """What a scenario breaks."""
    return World(scenario).run()


def shrink(scenario: Scenario, promise: str, *, most_runs: int = 400) -> Scenario:
    """The smallest scenario found that breaks *promise* still."""
    runs = 0

    def fails(candidate: Scenario) -> Scenario | None:
        nonlocal runs
        for more in range(SCHEDULES):
            if runs >= most_runs:
                return None
            runs += 1
            tried = replace(candidate, schedule=candidate.schedule + more)
            found = run(tried)
            if found is not None and found.promise == promise:
                return tried
        return None

    while True:
        before = scenario
        for smaller in (
            _without_operations,
            _without_faults,
            _without_writes,
            _without_rows,
            _simpler,
        ):
            scenario = _reduce(scenario, smaller, fails)
        if scenario == before or runs >= most_runs:
            return scenario


def _reduce(
    scenario: Scenario,
    smaller: Callable[[Scenario], Iterator[Scenario]],
    fails: Callable[[Scenario], Scenario | None],
) -> Scenario:
    again = True
    while again:
        again = False
        for candidate in smaller(scenario):
            failing = fails(candidate)
            if failing is not None:
                scenario, again = failing, True
                break
    return scenario


def _parts(items: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    """*items* without a half, a quarter, ... one of them."""
    size = len(items) // 2
    while size:
        for start in range(0, len(items), size):
            yield items[:start] + items[start + size :]
        size //= 2
    if len(items) == 1:
        yield ()


def _without_operations(scenario: Scenario) -> Iterator[Scenario]:
    for operations in _parts(scenario.operations):
        yield replace(scenario, operations=operations)


def _without_faults(scenario: Scenario) -> Iterator[Scenario]:
    for faults in _parts(scenario.faults):
        yield replace(scenario, faults=faults)


def _without_writes(scenario: Scenario) -> Iterator[Scenario]:
    for writes in _parts(scenario.writes):
        yield replace(scenario, writes=writes)


def _without_rows(scenario: Scenario) -> Iterator[Scenario]:
    for index, write in enumerate(scenario.writes):
        for rows in _parts(write.rows):
            if rows:
                fewer = replace(write, rows=rows)
                writes = (*scenario.writes[:index], fewer, *scenario.writes[index + 1 :])
                yield replace(scenario, writes=writes)


def _simpler(scenario: Scenario) -> Iterator[Scenario]:
    for change in (
        {"relays": 2},
        {"slots": 1},
        {"lasting": ""},
        {"hold_key": False},
        {"few": False},
        {"canary_seconds": 0.0},
        {"least_faults": 0},
    ):
        candidate = replace(scenario, **change)
        if candidate != scenario and scenario.relays >= 2:
            yield candidate


NOISE = (
    "read",
    "max_id",
    "paused",
    "schema",
    "aged",
    "sample",
    "peek",
    "look",
    "renew",
    "dead_keys",
)


def story(scenario: Scenario) -> str:
    """What happens in it, without the statements that change nothing."""
    world = World(scenario, trace=True)
    found = world.run()
    lines = [
        line for line in world.lines if not line.endswith(tuple(f" {n} arrives" for n in NOISE))
    ]
    what = (
        f"seed {scenario.seed}, schedule {scenario.schedule}: {scenario.engine}, "
        f"max_active_relays {scenario.slots}, {'hold_key' if scenario.hold_key else 'skip'}, "
        f"in_flight_rows {scenario.in_flight_rows}, topics {scenario.topics}"
    )
    return "\n".join([what, *lines, f"=> {found}"])
