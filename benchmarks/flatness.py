"""
Whether a row costs the same whatever is around it: rows kept, rows waiting, a long transaction, a paused
topic, many topics.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

from benchmarks.orders import PARTITIONS
from benchmarks.relays import costs, drain, settings_for, start_relay
from benchmarks.results import Case
from benchmarks.rows import fill, fill_kept, topic_of
from benchmarks.servers import Kind, Servers
from benchmarks.topic import check, create_topics, fresh_topic
from tests.services.database import Database

FEW_KEPT = 10_000
PAUSED_TOPIC = "paused"
TOPICS, TOPIC_PARTITIONS = 100, 12

CALM_SECONDS, CALM_SHARE = 2.0, 0.2

Around = Callable[[str], AbstractContextManager[object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What is there besides the backlog. *around* holds while the relay works."""

    name: str
    rows: int
    kept: int = 0
    paused: int = 0
    topics: int = 1
    around: Around = nullcontext
    runs: int = 1


def measure_once(servers: Servers, what: Surroundings) -> dict[str, float]:
    """Make the surroundings and the backlog, drain, count."""
    server = servers.database
    name = server.create_outbox()
    many = what.topics > 1
    topic = fresh_topic(servers.kafka, partitions=TOPIC_PARTITIONS if many else PARTITIONS)
    if many:
        names = [topic_of(topic, number, what.topics) for number in range(what.topics)]
        create_topics(servers.kafka, names, partitions=TOPIC_PARTITIONS)
    fill_kept(server, name.name, what.kept)
    if what.paused:
        found = drain_behind_paused(servers, name, topic, what)
    else:
        fill(server, name.name, topic, what.rows, topics=what.topics)
        with (
            what.around(name.name),
            start_relay(settings_for(servers, name), until_empty=True) as relay,
        ):
            found = drain(servers, relay, what.rows)
    account = check(servers.kafka, topic, what.rows, topics=what.topics)
    server.drop(name.name)
    return {"rows_per_second": account.rate(), **found, **account.fields()}


def drain_behind_paused(
    servers: Servers, database: Database, topic: str, what: Surroundings
) -> dict[str, float]:
    """
    The paused rows were there before, and the relay has passed them: once in a term it must. It is
    held while the backlog is written, then let go.
    """
    server, name = servers.database, database.name
    server.execute(name, f"INSERT INTO outbox_control (topic) VALUES ('{PAUSED_TOPIC}')")
    fill_kept(server, name, what.paused, status=0, topic=PAUSED_TOPIC)
    with (
        start_relay(settings_for(servers, database)) as relay,
        server.connect(name) as connection,
        connection.cursor() as cursor,
    ):
        relay.tell("go")
        wait_until_passed(servers, name, what.paused)
        os.kill(relay.pid, signal.SIGSTOP)
        fill(server, name, topic, what.rows)
        cursor.execute("SELECT MAX(id) FROM outbox")
        last = cursor.fetchone()[0]
        before, used, started = servers.cpu_seconds(), relay.cpu_seconds(), time.perf_counter()
        os.kill(relay.pid, signal.SIGCONT)
        # The last row's mark is not the last mark: 16 partitions go on side by side.
        for question in (
            f"SELECT COUNT(*) FROM outbox WHERE id = {last} AND status = 0",
            f"SELECT COUNT(*) FROM outbox WHERE id > {last - what.rows} AND status = 0",
        ):
            cursor.execute(question)
            while cursor.fetchone()[0]:
                time.sleep(0.1)
                cursor.execute(question)
        spent = {
            "seconds": time.perf_counter() - started,
            "cpu_seconds": relay.cpu_seconds() - used,
        }
        after = servers.cpu_seconds()
        spent["peak_mb"] = relay.stop()["peak_mb"]
    return {
        "whole_rows_per_second": what.rows / spent["seconds"],
        **costs(spent, before, after, what.rows),
    }


def wait_until_passed(servers: Servers, database: str, rows: int) -> None:
    """Until a relay has noted *rows* and its database has calmed down."""
    noted = "SELECT MIN(noted_id) FROM outbox_lease WHERE lane = 0"
    with servers.database.connect(database) as connection, connection.cursor() as cursor:
        cursor.execute(noted)
        while cursor.fetchone()[0] < rows:
            time.sleep(0.5)
            cursor.execute(noted)
    used = float("inf")
    while used > CALM_SHARE:
        before = servers.cpu_seconds()[0]
        time.sleep(CALM_SECONDS)
        used = (servers.cpu_seconds()[0] - before) / CALM_SECONDS


def all_surroundings(
    servers: Servers, *, rows: int, many: int, runs: int
) -> Iterator[Surroundings]:
    """The first is what the others are compared with."""

    @contextmanager
    def long_transaction(database: str) -> Iterator[None]:
        level = "REPEATABLE READ"
        with servers.database.connect(database) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE TABLE elsewhere (n INT PRIMARY KEY)")
            if servers.database.kind is Kind.MARIADB:
                cursor.execute(f"SET TRANSACTION ISOLATION LEVEL {level}")
                cursor.execute("START TRANSACTION")
            else:
                cursor.execute(f"BEGIN ISOLATION LEVEL {level}")
            cursor.execute("INSERT INTO elsewhere VALUES (1)")
            cursor.execute("SELECT COUNT(*) FROM outbox")
            yield
            cursor.execute("ROLLBACK")

    few = min(FEW_KEPT, many)
    yield Surroundings(name=f"{few:,} produced kept", rows=rows, kept=few, runs=runs)
    yield Surroundings(name=f"{many:,} produced kept", rows=rows, kept=many, runs=runs)
    yield Surroundings(name=f"{many:,} pending", rows=many)
    yield Surroundings(
        name="a long transaction open elsewhere",
        rows=rows,
        kept=few,
        around=long_transaction,
        runs=runs,
    )
    yield Surroundings(
        name=f"{many:,} rows of a paused topic in front",
        rows=rows,
        kept=few,
        paused=many,
        runs=runs,
    )
    yield Surroundings(
        name=f"{TOPICS} topics × {TOPIC_PARTITIONS} partitions",
        rows=rows,
        kept=few,
        topics=TOPICS,
        runs=runs,
    )


def measure(servers: Servers, *, rows: int, many: int, runs: int) -> list[Case]:
    """Each of the surroundings; CPU of relay and database by row, as a multiple of the first's."""
    measure_once(servers, Surroundings(name="warm-up", rows=min(rows, 20_000)))
    cases = []
    for what in all_surroundings(servers, rows=rows, many=many, runs=runs):
        found = [measure_once(servers, what) for _ in range(what.runs)]
        case = Case(name=what.name, database=servers.database.title, rows=what.rows, runs=found)
        cases.append(case)
        first = cost(cases[0])
        for run in case.runs:
            run["over_first"] = (run["relay_us"] + run["database_us"]) / first
    return cases


def cost(case: Case) -> float:
    """Median CPU microseconds of relay and database by row."""
    return (case.median("relay_us") or 0.0) + (case.median("database_us") or 0.0)
