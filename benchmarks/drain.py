"""
How fast a backlog drains: one relay, marking rows or deleting them, beside python-cqrs.
"""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.relays import drain, settings_for, shown, start_relay
from benchmarks.results import Case
from benchmarks.rows import fill
from benchmarks.servers import Servers
from benchmarks.topic import check, fresh_topic

DELETE = {"relay.retention_seconds": "0"}


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
    servers.kafka.delete_topic(topic)
    return {"rows_per_second": rows / account.seconds, **found, **account.fields()}


def ours(servers: Servers, rows: int, runs: int, settings: Mapping[str, str]) -> Case:
    """Our relay, *runs* times."""
    return Case(
        name="delete on the ack" if settings else "mark",
        database=servers.database.title,
        rows=rows,
        settings=shown(settings),
        runs=[measure_once(servers, rows, settings) for _ in range(runs)],
    )
