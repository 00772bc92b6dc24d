"""
How much a database works for each of the store's statements: rows looked at, and pages.

Counted by the server itself, so a slow machine changes nothing. Pages also show what no count of rows
does: index entries of rows that are gone and that a long transaction keeps.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import sqlalchemy as sa

from outbox_relay.store.channel import Answer, Channel

_READS = ("key", "next", "prev", "first", "last", "rnd", "rnd_next")


@dataclass
class Work:
    """What one statement cost."""

    sql: str
    rows: int
    pages: int

    @property
    def verb(self) -> str:
        return self.sql.split(" ", 1)[0]


@dataclass
class Meter:
    """The statements since the last `reset`, each with its work."""

    statements: list[Work] = field(default_factory=list)

    def reset(self) -> None:
        self.statements.clear()

    def of(self, wanted: Callable[[Work], bool] = lambda _: True) -> tuple[int, int, int]:
        """Statements, rows and pages of those that are *wanted*."""
        found = [work for work in self.statements if wanted(work)]
        return len(found), sum(w.rows for w in found), sum(w.pages for w in found)

    async def rows_and_pages(
        self, call: Callable[[], Awaitable[Any]], times: int = 3
    ) -> tuple[int, int]:
        """What *call* costs at least: now and then a server reads pages for itself."""
        costs = []
        for _ in range(times):
            self.reset()
            await call()
            costs.append(self.of()[1:])
        return min(rows for rows, _ in costs), min(pages for _, pages in costs)


@contextmanager
def metered(patch: pytest.MonkeyPatch, kind: str) -> Iterator[Meter]:
    """Every statement of every store is counted meanwhile."""
    meter = Meter()
    plain = Channel._run_alone

    async def on_mysql(connection: Any, sql: str, parameters: tuple[Any, ...]) -> Answer:
        before = await _counted(connection)
        answer = await plain(connection, sql, parameters)
        after = await _counted(connection)
        again = await _counted(connection)  # what the counting itself costs
        rows, pages = (a - b - (c - a) for b, a, c in zip(before, after, again, strict=True))
        meter.statements.append(Work(sql, rows, max(0, pages)))
        return answer

    async def on_postgresql(connection: Any, sql: str, parameters: tuple[Any, ...]) -> Answer:
        explain = f"EXPLAIN (ANALYZE, BUFFERS, VERBOSE, FORMAT JSON) {sql}"
        text = (await plain(connection, explain, parameters)).rows[0][0]
        [explained] = text if isinstance(text, list) else json.loads(text)
        plan = explained["Plan"]
        pages = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
        meter.statements.append(Work(sql, _looked_at(plan), pages))
        if sql.startswith("SELECT"):
            return await plain(connection, sql, parameters)
        # It was executed. How many it touched is what its plan returned to it.
        return Answer((), plan["Plans"][0]["Actual Rows"])

    counting = on_postgresql if kind == "postgresql" else on_mysql
    patch.setattr(Channel, "_run_alone", staticmethod(counting))
    yield meter
    patch.setattr(Channel, "_run_alone", staticmethod(plain))


async def _counted(connection: Any) -> tuple[int, int]:
    """Rows that this session has read, and pages that the server has asked for."""
    names = ", ".join(f"'Handler_read_{name}'" for name in _READS)
    mine = f"SHOW SESSION STATUS WHERE Variable_name IN ({names})"
    rows = sum(int(row[1]) for row in await connection.exec_driver_sql(mine))
    pages = "SHOW GLOBAL STATUS LIKE 'Innodb_buffer_pool_read_requests'"
    return rows, int((await connection.exec_driver_sql(pages)).all()[0][1])


def _looked_at(plan: dict[str, Any]) -> int:
    below = plan.get("Plans", [])
    found = sum(_looked_at(part) for part in below)
    if "Scan" in plan["Node Type"] and plan.get("Relation Name", "").startswith("outbox"):
        each = plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)
        found += each * plan["Actual Loops"]
    return int(found)


def fill(engine: sa.Engine, count: int, *, status: int = 0, topic: str = "t", key: str = "") -> int:
    """*count* more rows at once, of one statement. The largest id."""
    key_sql = {"mysql": "`key`", "postgresql": '"key"'}[engine.dialect.name]
    error = "'rejected: of the test'" if status == 2 else "NULL"
    if engine.dialect.name == "postgresql":
        numbers = f"generate_series(1, {count:d}) AS numbers(n)"
        key_value = f"convert_to('{key}' || n % 500, 'UTF8')"
    else:
        digits = "(SELECT 0 d" + "".join(f" UNION ALL SELECT {d}" for d in range(1, 10)) + ")"
        tables = " CROSS JOIN ".join(f"{digits} d{place}" for place in range(6))
        n = " + ".join(f"d{place}.d * {10**place}" for place in range(6))
        numbers = f"(SELECT {n} AS n FROM {tables} LIMIT {count:d}) AS numbers"
        key_value = f"CONCAT('{key}', n % 500)"
    with engine.begin() as connection:
        connection.exec_driver_sql(
            f"INSERT INTO outbox (event_name, topic, {key_sql}, payload, status, last_error) "
            f"SELECT 'e', '{topic}', {key_value}, '{{}}', {status:d}, {error} FROM {numbers}".replace(
                "%", "%%"
            )
        )
        return int(connection.exec_driver_sql("SELECT MAX(id) FROM outbox").scalar_one())


def produce(engine: sa.Engine, upto: int) -> None:
    """Mark every pending row up to the id *upto*."""
    with engine.begin() as connection:
        connection.exec_driver_sql(
            f"UPDATE outbox SET status = 1 WHERE status = 0 AND id <= {upto:d}"
        )
