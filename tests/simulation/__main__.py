"""The simulation at the command line: `make simulate`, `make simulate-wrong`."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from statistics import median

import pytest

from tests.simulation import corpus
from tests.simulation.campaign import Tally, campaign, hunt_slice
from tests.simulation.scenario import FAULTS, LEAST_FAULTS, OPERATIONS, OUTAGE, QUOTA, scenario
from tests.simulation.shrink import run, shrink, story
from tests.simulation.wrong import NAMED, WRONG, rule_of

ALWAYS = (
    "rollback",
    "long transaction",
    "id not yet seen",
    "row large",
    "row invalid",
    "row unreadable",
)


OF_OPERATORS = (
    "operator killed",
    "row published again",
    "row purged by hand",
    "dead letter changed",
    "canary written",
    "canary acked",
    "canary late",
    "canary failed",
    "batch left unsent",
)


def main() -> int:
    """Run what the arguments ask for. 1 if a promise was broken, or a wrong relay survived."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="at most")
    parser.add_argument("--wrong", nargs="*", metavar="NAME", help="wrong relays; none named: all")
    parser.add_argument(
        "--until-caught", action="store_true", help="one seed that finds it out is enough"
    )
    parser.add_argument("--show", type=int, metavar="SEED", help="tell what happens in one seed")
    parser.add_argument(
        "--shrink", type=int, metavar="SEED", help="make a bad seed small and tell it"
    )
    parser.add_argument("--keep", action="store_true", help="with --shrink: add it to the corpus")
    options = parser.parse_args()
    if options.show is not None:
        print(story(scenario(options.show)))
        return 0
    if options.shrink is not None:
        return _shrink(options.shrink, options.wrong, keep=options.keep)
    if options.wrong is not None:
        return _wrong(options.wrong or sorted(WRONG.keys() - NAMED.keys()), options)
    tally = campaign(
        options.first, options.seeds, processes=options.processes, most_seconds=options.seconds
    )
    _print_table(tally, options.first, options.processes)
    for seed, found in tally.bad:
        print(f"\nseed {seed} breaks {found}")
    for seed, found in tally.bad[:5]:
        print(f"\nseed {seed}, made small:\n")
        print(story(shrink(scenario(seed), found.promise)))
    return 1 if tally.bad else 0


def _print_table(tally: Tally, first: int, processes: int) -> None:
    now = datetime.now(UTC)
    print(
        f"{tally.seeds:,} seeds from {first:,}, {now:%Y-%m-%d}, Python {platform.python_version()}, "
        f"{processes} processes on {os.cpu_count()} cores"
    )
    rate = tally.seeds / tally.seconds
    print(
        f"{tally.seconds:,.0f} s, {rate:,.0f} seeds/s ({rate / processes:,.0f} a process); "
        f"steps: median {median(tally.steps):,.0f}, largest {max(tally.steps):,}, "
        f"{sum(tally.steps):,} in all; {tally.virtual_seconds / 3600:,.0f} h of virtual time"
    )
    print(f"{tally.rows:,} rows, {tally.duplicates:,} duplicates, {len(tally.bad):,} violations")
    print(", ".join(f"{count:,} {name}" for name, count in sorted(tally.worlds.items())))
    print(f"seeds that met fewer than {LEAST_FAULTS} faults of the list: {tally.few_faults}\n")
    print("| fault | times met |\n|---|---|")
    commands = [f"operator: {kind}" for kind in dict.fromkeys(OPERATIONS)]
    for kind in (*FAULTS, QUOTA, OUTAGE, *ALWAYS, *commands, *OF_OPERATORS):
        print(f"| {kind} | {tally.hits[kind]:,} |")


def _wrong(names: list[str], options: argparse.Namespace) -> int:
    survivors = 0
    print(
        "| wrong relay | what it does | caught by | in seeds | first seed |\n|---|---|---|---|---|"
    )
    with ProcessPoolExecutor(options.processes) as pool:
        work = [
            pool.submit(hunt_slice, name, options.first, options.seeds, options.until_caught)
            for name in names
        ]
        for done in work:
            caught = done.result()
            by = ", ".join(f"{promise} {count}" for promise, count in caught.found.most_common())
            by = by or _by_what_is_kept(caught.name)
            survivors += not by
            print(
                f"| `{caught.name}` | {rule_of(caught.name)} | {by or '**nothing**'} | "
                f"{caught.found.total()} of {caught.seeds:,} | {caught.first} |",
                flush=True,
            )
    print(f"\n{len(names)} wrong relays, {survivors} survive")
    return 1 if survivors else 0


def _by_what_is_kept(name: str) -> str:
    """The promise that a kept scenario sees broken, for what fresh seeds meet too seldom."""
    for entry in corpus.entries():
        if entry.wrong == name:
            with pytest.MonkeyPatch.context() as patch:
                WRONG[name](patch)
                found = run(entry.scenario)
            if found is not None:
                return f"{found.promise}, in a kept scenario"
    return ""


def _shrink(seed: int, wrong: list[str] | None, *, keep: bool) -> int:
    with pytest.MonkeyPatch.context() as patch:
        for name in wrong or []:
            WRONG[name](patch)
        found = run(scenario(seed))
        if found is None:
            print(f"seed {seed} breaks nothing")
            return 0
        small = shrink(scenario(seed), found.promise)
        print(story(small))
        last = run(small)
    if keep and last is not None:
        entry = corpus.Entry((wrong or [""])[0], last.promise, last.text, small)
        with corpus.PATH.open("a") as file:
            file.write(corpus.to_text(entry) + "\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
