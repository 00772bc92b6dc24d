"""
How fast a backlog drains: one relay that marks rows or deletes them, beside python-cqrs.
"""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.python_cqrs import NAME, theirs
from benchmarks.relays import drain, settings_for, shown, start_relay
from benchmarks.results import OURS, Case
from benchmarks.rows import fill
from benchmarks.servers import Kind, Servers
from benchmarks.topic import check, fresh_topic

DELETE = {"relay.retention_seconds": "0"}
WARM_UP_ROWS = 100_000
BESIDE_ROWS = 20_000
"""What python-cqrs drains in about 20 s."""


def measure_once(
    servers: Servers, rows: int, settings: Mapping[str, str] | None = None
) -> dict[str, float]:
    """Fill, drain, count."""
    database = servers.database.create_outbox()
    topic = fresh_topic(servers.kafka)
    fill(servers.database, database.name, topic, rows)
    with start_relay(settings_for(servers, database, settings), until_empty=True) as relay:
        found = drain(servers, relay, rows)
    account = check(servers.kafka, topic, rows)
    servers.database.drop(database.name)
    return {"rows_per_second": account.rate(), **found, **account.fields()}


def ours(servers: Servers, rows: int, runs: int, settings: Mapping[str, str] | None = None) -> Case:
    """Our relay, *runs* times."""
    return Case(
        name="delete on the ack" if settings else "mark",
        database=servers.database.title,
        rows=rows,
        settings=shown(settings or {}),
        runs=[measure_once(servers, rows, settings) for _ in range(runs)],
    )


def measure(servers: Servers, *, rows: int, runs: int, full: bool, beside: bool) -> list[Case]:
    """
    Ours, marking and deleting; *beside* it python-cqrs on as many rows as it can do, *full* on all.
    """
    # The broker's first records are slow: its code is not compiled yet.
    measure_once(servers, min(rows, WARM_UP_ROWS))
    cases = [ours(servers, rows, runs), ours(servers, rows, runs, DELETE)]
    if beside and servers.database.kind is Kind.MARIADB:
        few = min(rows, BESIDE_ROWS)
        if few < rows:
            cases.append(ours(servers, few, runs))
        cases.append(theirs(servers, few, runs))
        if full and few < rows:
            cases.append(theirs(servers, rows, 1))
        _compare(cases)
    return cases


def _compare(cases: list[Case]) -> None:
    """Our rates as multiples of theirs on as many rows."""
    their_rates = {
        case.rows: case.median("rows_per_second") for case in cases if case.system == NAME
    }
    for case in cases:
        their_rate = their_rates.get(case.rows)
        if their_rate and case.system == OURS:
            for run in case.runs:
                run["times_theirs"] = run["rows_per_second"] / their_rate
