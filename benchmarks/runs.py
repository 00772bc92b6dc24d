"""
Runs a scenario, prints what it found and keeps it as JSON.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.report import table
from benchmarks.results import Case, Outcome, kafka_version, machine, today, versions
from benchmarks.servers import Servers

AnyServers = TypeVar("AnyServers", bound=Servers)


def record(
    scenario: str,
    measure: Callable[[AnyServers], list[Case]],
    *,
    database: StrEnum,
    results: Path,
    options: str,
    start: Callable[[Any], AbstractContextManager[AnyServers]],
    others: Sequence[str] = (),
) -> Outcome:
    """Start the servers, measure, print and save; what was found. *others*: such as "Debezium 3.4"."""
    # The driver tells at each migration that a name was ignored.
    logging.getLogger("asyncmy").setLevel(logging.ERROR)
    started = time.monotonic()
    print(f"\n{scenario}, {database}", flush=True)
    with start(database) as running:
        server_versions = [running.database.version(), kafka_version()]
        cases = measure(running)
    outcome = Outcome(
        scenario=scenario,
        command=f"python -m benchmarks {scenario} --database {database}{options}",
        cases=cases,
        date=today(),
        machine=machine(),
        versions=versions([*server_versions, *others]),
        seconds=round(time.monotonic() - started, 1),
    )
    outcome.save(results, f"{scenario}-{database}")
    print(f"{table(outcome)}\n{outcome.seconds:.0f} s", flush=True)
    return outcome
