"""
What relays cost while nothing is there to relay: the owner, and those that stand by.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from benchmarks.latency import running
from benchmarks.programs import Program
from benchmarks.results import Case
from benchmarks.servers import Servers

SETTLED_SECONDS = 5.0
"""For the owner's poll to grow to its longest."""


def watch(
    servers: Servers, cursor: Any, relays: Sequence[Program], seconds: float
) -> tuple[list[float], float, float]:
    """CPU of each relay in percent of a core, that of the database, and statements a second of all."""
    before = [relay.precise_cpu_seconds() for relay in relays]
    said, database = servers.database.statements(cursor), servers.database.cpu_seconds()
    started = time.monotonic()
    time.sleep(seconds)
    lasted = time.monotonic() - started
    used = [relay.precise_cpu_seconds() - cpu for relay, cpu in zip(relays, before, strict=True)]
    database = servers.database.cpu_seconds() - database
    # One of them is the question itself.
    statements = servers.database.statements(cursor) - said - 1
    return (
        [cpu / lasted * 100 for cpu in used],
        database / lasted * 100,
        statements / lasted,
    )


def measure(servers: Servers, *, standbys: int, seconds: float, runs: int) -> list[Case]:
    """The owner alone, then with *standbys* beside it."""
    owner = Case(name="owner", database=servers.database.title)
    each = Case(name=f"each of {standbys} standbys", database=servers.database.title)
    database = servers.database.create_outbox()
    with servers.database.connect(database.name) as connection, connection.cursor() as cursor:
        with running(servers, database, [{}]) as relays:
            time.sleep(SETTLED_SECONDS)
            for _ in range(runs):
                (cpu,), database_cpu, statements = watch(servers, cursor, relays, seconds)
                owner.runs.append(
                    {
                        "cpu_percent": cpu,
                        "database_percent": database_cpu,
                        "statements_per_second": statements,
                        "memory_mb": relays[0].memory_mb(),
                    }
                )
        with running(servers, database, [{}] * (standbys + 1)) as relays:
            time.sleep(SETTLED_SECONDS)
            for run in range(runs):
                (_, *cpus), database_cpu, statements = watch(servers, cursor, relays, seconds)
                alone = owner.runs[run]
                each.runs.append(
                    {
                        "cpu_percent": sum(cpus) / standbys,
                        "database_percent": (database_cpu - alone["database_percent"]) / standbys,
                        "statements_per_second": (statements - alone["statements_per_second"])
                        / standbys,
                        "memory_mb": sum(r.memory_mb() for r in relays[1:]) / standbys,
                    }
                )
    return [owner, each]
