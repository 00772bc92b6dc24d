"""Many seeds in several processes, and what they add up to."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

import pytest

from tests.simulation.faults import faults_met
from tests.simulation.oracle import Violation
from tests.simulation.scenario import LEAST_FAULTS, scenario
from tests.simulation.world import World
from tests.simulation.wrong import WRONG

SLICE = 50


@dataclass(slots=True)
class Tally:
    """What some seeds showed."""

    seeds: int = 0
    steps: list[int] = field(default_factory=list)
    virtual_seconds: float = 0.0
    seconds: float = 0.0
    rows: int = 0
    duplicates: int = 0
    hits: Counter[str] = field(default_factory=Counter)
    worlds: Counter[str] = field(default_factory=Counter)
    few_faults: int = 0
    bad: list[tuple[int, Violation]] = field(default_factory=list)

    def add(self, seed: int) -> Violation | None:
        """Run one seed."""
        plan = scenario(seed)
        world = World(plan)
        found = world.run()
        self.seeds += 1
        self.steps.append(world.loop.steps)
        self.virtual_seconds += world.loop.time()
        self.rows += len(world.oracle.events)
        self.duplicates += world.oracle.duplicates
        self.hits += world.hit
        self.worlds.update(
            [plan.engine, f"slots {plan.slots}", "hold_key" if plan.hold_key else "skip"]
        )
        self.few_faults += faults_met(world.hit) < LEAST_FAULTS
        if found is not None:
            self.bad.append((seed, found))
        return found

    def join(self, other: Tally) -> None:
        """Add what others showed."""
        self.seeds += other.seeds
        self.steps += other.steps
        self.virtual_seconds += other.virtual_seconds
        self.rows += other.rows
        self.duplicates += other.duplicates
        self.hits += other.hits
        self.worlds += other.worlds
        self.few_faults += other.few_faults
        self.bad += other.bad


def run_slice(first: int, count: int) -> Tally:
    """Seeds one after another."""
    tally = Tally()
    for seed in range(first, first + count):
        tally.add(seed)
    return tally


def campaign(
    first: int,
    count: int,
    *,
    processes: int,
    most_bad: int = 20,
    most_seconds: float = float("inf"),
) -> Tally:
    """All of the seeds, a slice at a time, or as many as fit."""
    began = time.monotonic()
    total = Tally()
    slices = [(at, min(SLICE, first + count - at)) for at in range(first, first + count, SLICE)]
    with ProcessPoolExecutor(processes) as pool:
        for tally in pool.map(run_slice, *zip(*slices, strict=True)):
            total.join(tally)
            if len(total.bad) >= most_bad or time.monotonic() - began > most_seconds:
                pool.shutdown(cancel_futures=True)
                break
    total.seconds = time.monotonic() - began
    return total


@dataclass(slots=True)
class Caught:
    """How a wrong relay was found out."""

    name: str
    seeds: int = 0
    first: int | None = None
    found: Counter[str] = field(default_factory=Counter)
    example: Violation | None = None


def hunt(name: str, *, seeds: Iterable[int], until_caught: bool) -> Caught:
    """Let a wrong relay live through *seeds*."""
    caught = Caught(name)
    with pytest.MonkeyPatch.context() as patch:
        WRONG[name](patch)
        for seed in seeds:
            caught.seeds += 1
            found = World(scenario(seed)).run()
            if found is None:
                continue
            caught.found[found.promise] += 1
            if caught.first is None:
                caught.first, caught.example = seed, found
            if until_caught:
                break
    return caught


def hunt_slice(name: str, first: int, count: int, until_caught: bool) -> Caught:
    """As `hunt`, in another process."""
    return hunt(name, seeds=range(first, first + count), until_caught=until_caught)
