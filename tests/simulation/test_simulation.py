"""
The simulation in small: some hundred fresh seeds, the kept scenarios, and every wrong relay.

`make simulate SEEDS=100000` is the long form.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from statistics import median

import pytest

from tests.simulation import corpus
from tests.simulation.campaign import hunt, run_slice
from tests.simulation.scenario import FAULTS, LEAST_FAULTS, QUOTA, scenario
from tests.simulation.shrink import run, shrink, story
from tests.simulation.world import World
from tests.simulation.wrong import NAMED, WRONG

SEEDS = int(os.environ.get("SIMULATION_SEEDS", "240"))
PARTS = 4
MOST_SEEDS = 2000
ENTRIES = list(corpus.entries())


def digest(seed: int) -> str:
    """Everything that happens in a seed, as a short text."""
    return hashlib.sha256(story(scenario(seed)).encode()).hexdigest()


@pytest.mark.parametrize("part", range(PARTS))
def test_fresh_seeds_break_no_promise(part):
    """
    I1 to I7, I9 and I10, after every step; and everything is settled in the end.
    """
    tally = run_slice(part * SEEDS // PARTS, SEEDS // PARTS)

    assert tally.bad == []
    assert tally.few_faults == 0
    assert median(tally.steps) >= 200


def test_no_scenario_is_trivial():
    """
    At least two relays, 30 rows, 5 keys and 3 faults in each: planned, and also met.
    """
    plans = [scenario(seed) for seed in range(500)]
    keys = [{row.key for write in plan.writes for row in write.rows} - {None} for plan in plans]

    assert min(plan.relays for plan in plans) >= 2
    assert min(plan.rows for plan in plans) >= 30
    assert min(len(some) for some in keys) >= 5
    assert min(len(plan.faults) for plan in plans) >= LEAST_FAULTS
    assert {plan.least_faults for plan in plans} == {LEAST_FAULTS}
    assert {fault.kind for plan in plans for fault in plan.faults} == {*FAULTS, QUOTA}


def test_the_same_seed_gives_the_same_trace():
    """
    Twice here, and in a process that hashes texts otherwise.
    """
    here = [digest(seed) for seed in range(3)]
    command = (
        "from tests.simulation.test_simulation import digest\n"
        "print(*[digest(seed) for seed in range(3)])"
    )
    there = subprocess.run(
        [sys.executable, "-c", command],
        env=os.environ | {"PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()

    assert here == [digest(seed) for seed in range(3)]
    assert here == there


def test_a_trace_tells_of_every_step():
    """
    Another order of what happens at the same time is another trace, though all else is the same.
    """
    one = World(scenario(0), trace=True)
    one.run()

    assert digest(0) != digest(1)
    assert any("says lease_acquired" in line for line in one.lines)
    assert one.oracle.events.keys()


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.wrong)
def test_kept_scenarios(entry):
    """
    What once found something finds it still, and the real relay lives through it.
    """
    with pytest.MonkeyPatch.context() as patch:
        WRONG[entry.wrong](patch)
        found = run(entry.scenario)

    assert found is not None
    assert found.promise == entry.promise
    assert run(entry.scenario) is None


def test_scenarios_are_kept_whole():
    """
    A scenario read from its text is the one that was written.
    """
    entry = corpus.Entry("no_sweep", "I2", "a text", scenario(7))

    assert corpus.from_text(corpus.to_text(entry)) == entry


KEPT = {entry.wrong for entry in ENTRIES}


@pytest.mark.parametrize("name", sorted(WRONG.keys() - NAMED.keys() - KEPT))
def test_wrong_relays_are_found_out(name):
    """
    Each within 2,000 seeds. Those with a kept scenario are found out by that.
    """
    caught = hunt(name, seeds=range(MOST_SEEDS), until_caught=True)

    assert caught.found


@pytest.mark.parametrize("name", sorted(NAMED))
def test_wrong_relays_that_another_test_finds_out(name):
    """
    Where the world cannot tell: a delay, for instance, is no loss.
    """
    with pytest.MonkeyPatch.context() as patch:
        WRONG[name](patch)
        with pytest.raises(AssertionError):
            NAMED[name]()


def test_a_bad_scenario_is_shrunk():
    """
    To a few faults and rows that break the same promise.
    """
    with pytest.MonkeyPatch.context() as patch:
        WRONG["unknown_is_acked"](patch)
        seed = hunt("unknown_is_acked", seeds=range(20), until_caught=True).first
        found = run(scenario(seed))
        small = shrink(scenario(seed), found.promise, most_runs=60)

        assert run(small).promise == found.promise
        assert small.rows < scenario(seed).rows
        assert "=> I" in story(small)
