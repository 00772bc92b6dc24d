"""
One backlog and several relays that share its lanes, beside one relay.
"""

from __future__ import annotations

from contextlib import ExitStack

from benchmarks.relays import DRAIN_SECONDS, costs, settings_for, shown, start_relay
from benchmarks.results import Case
from benchmarks.rows import fill
from benchmarks.servers import Servers
from benchmarks.topic import check, fresh_topic
from outbox_relay.config import setting_types

SETTING = "relay.max_active_relays"


def is_possible() -> bool:
    """Whether this release shares lanes out."""
    return SETTING in setting_types()


def measure_once(servers: Servers, rows: int, relays: int) -> dict[str, float]:
    """Fill, drain by all, count."""
    database = servers.database.create_outbox()
    topic = fresh_topic(servers.kafka)
    fill(servers.database, database.name, topic, rows)
    settings = settings_for(servers, database, {SETTING: str(relays)})
    with ExitStack() as stack:
        made = [stack.enter_context(start_relay(settings, until_empty=True)) for _ in range(relays)]
        before = servers.cpu_seconds()
        for relay in made:
            relay.tell("go")
        answers = [relay.answer(DRAIN_SECONDS) for relay in made]
        after = servers.cpu_seconds()
    used = {
        "cpu_seconds": sum(answer["cpu_seconds"] for answer in answers),
        "peak_mb": max(answer["peak_mb"] for answer in answers),
    }
    account = check(servers.kafka, topic, rows)
    servers.database.drop(database.name)
    return {
        "rows_per_second": account.rate(),
        "whole_rows_per_second": rows / max(answer["seconds"] for answer in answers),
        **costs(used, before, after, rows),
        **account.fields(),
    }


def measure(servers: Servers, *, rows: int, runs: int, relays: int) -> list[Case]:
    """One relay, then *relays*."""
    measure_once(servers, min(rows, 20_000), 1)
    cases = []
    for count in (1, relays):
        found = [measure_once(servers, rows, count) for _ in range(runs)]
        case = Case(
            name="one relay" if count == 1 else f"{count} relays",
            database=servers.database.title,
            rows=rows,
            settings=shown({} if count == 1 else {SETTING: str(count)}),
            runs=found,
        )
        cases.append(case)
        first = cases[0].median("rows_per_second") or 1.0
        for run in case.runs:
            run["rate_to_first"] = run["rows_per_second"] / first
    return cases
