"""
Migrations of a large outbox while applications write and a relay renews its lease: the longest that any
of them waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from pathlib import Path

from benchmarks.repeating import Repeating
from benchmarks.results import Case
from benchmarks.servers import (
    MARIADB_SETTINGS,
    DatabaseServer,
    Kind,
    MariaDBServer,
    PostgreSQLServer,
    Servers,
)
from outbox_relay.migrate import migrate
from outbox_relay.store.options import DatabaseOptions
from tests.services.database import Database
from tests.services.kafka import Kafka
from tests.services.mariadb import MariaDB
from tests.services.mysql import MySQL
from tests.services.postgresql import PostgreSQL

RELEASED = Path(__file__).resolve().parents[1] / "tests" / "integration" / "released"
WRITERS = 4
WRITER_PAUSE_SECONDS = 0.005
QUIET_SECONDS = 10.0
AROUND_SECONDS = 1.0
SEED_ROWS = 1_000
CHUNK_ROWS = 500_000
PAYLOAD_BYTES = 100

COLUMNS = "event_name, topic, payload, status, produced_at"
INSERT = f"INSERT INTO outbox ({COLUMNS}) VALUES ('e', 't', '{'x' * PAYLOAD_BYTES}', 1, {{now}})"
RENEW = "UPDATE outbox_lease SET noted_id = noted_id + 1 WHERE lane < 64"


class Migrated(StrEnum):
    """The databases that `--database` names."""

    MARIADB = "mariadb"
    MYSQL = "mysql"
    POSTGRESQL = "postgresql"


class MySQLServer(MariaDBServer):
    """MySQL with a binary log, each commit on disk."""

    title = "MySQL"

    def version(self) -> str:
        """See DatabaseServer."""
        return super().version().replace("MariaDB", "MySQL")


@contextmanager
def server(database: Migrated) -> Iterator[Servers]:
    """A database server, until the end of the block; no broker is started."""
    with ExitStack() as stack:
        running: DatabaseServer
        match database:
            case Migrated.MARIADB:
                running = MariaDBServer(stack.enter_context(MariaDB(extra_args=MARIADB_SETTINGS)))
            case Migrated.MYSQL:
                running = MySQLServer(stack.enter_context(MySQL(extra_args=MARIADB_SETTINGS)))
            case Migrated.POSTGRESQL:
                running = PostgreSQLServer(stack.enter_context(PostgreSQL()))
        yield Servers(database=running, kafka=Kafka())


def measure(servers: Servers, *, rows: int) -> list[Case]:
    """Each kind of work on one table of *rows* rows."""
    running = servers.database
    database = running.create_database()
    build(running, database)
    fill(running, database, rows)

    def steps() -> None:
        migrate(DatabaseOptions(url=database.async_url))

    works: dict[str, Callable[[], None]] = {
        "nothing": lambda: time.sleep(min(QUIET_SECONDS, rows / 1000)),
        "outbox-relay migrate, from version 1": steps,
        "by hand: a column more in outbox": lambda: execute(
            running, database, *add_column(running)
        ),
        "by hand: the index of outbox, dropped and built again": lambda: execute(
            running, database, *build_index(running)
        ),
    }
    cases = [
        Case(
            name=name,
            system=running.title,
            database=running.title,
            rows=rows,
            runs=[beside(running, database, work)],
        )
        for name, work in works.items()
    ]
    running.drop(database.name)
    return cases


def beside(
    running: DatabaseServer, database: Database, work: Callable[[], None]
) -> dict[str, float]:
    """Do *work* while writers write and a relay's lease is renewed; how long they waited."""

    def connect() -> object:
        return running.connect(database.name)

    with ExitStack() as stack:
        insert = INSERT.format(now=now(running))
        writers = [
            stack.enter_context(Repeating(connect, insert, pause_seconds=WRITER_PAUSE_SECONDS))
            for _ in range(WRITERS)
        ]
        renewals = stack.enter_context(Repeating(connect, RENEW, pause_seconds=0.05))
        time.sleep(AROUND_SECONDS)
        for part in (*writers, renewals):
            part.seconds.clear()
        began = time.monotonic()
        work()
        took = time.monotonic() - began
        time.sleep(AROUND_SECONDS)
    waits = sorted(seconds for writer in writers for seconds in writer.seconds)
    return {
        "work_seconds": took,
        "writes": len(waits),
        "p99_ms": waits[int(len(waits) * 0.99)] * 1000,
        "max_ms": waits[-1] * 1000,
        "renewal_ms": renewals.longest_seconds * 1000,
    }


def build(running: DatabaseServer, database: Database) -> None:
    """The tables of version 1, as that release made them."""
    kind = "postgresql" if running.kind is Kind.POSTGRESQL else "mysql"
    text = (RELEASED / f"0001_{kind}.sql").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("--")]
    statements = "\n".join(lines).split(";\n")
    execute(running, database, *(part for part in statements if part.strip(" \n;")))


def fill(running: DatabaseServer, database: Database, rows: int) -> None:
    """Produced rows, which the server copies by itself."""
    seed = min(rows, SEED_ROWS)
    values = f"'e', 't', '{'x' * PAYLOAD_BYTES}', 1, {now(running)}"
    # Through COLUMNS alone: ids, event ids and lanes are made anew.
    execute(
        running,
        database,
        f"INSERT INTO outbox ({COLUMNS}) VALUES {', '.join([f'({values})'] * seed)}",
    )
    while (missing := rows - seed) > 0:
        count = min(missing, seed, CHUNK_ROWS)
        execute(
            running,
            database,
            f"INSERT INTO outbox ({COLUMNS}) SELECT {COLUMNS} FROM outbox LIMIT {count}",
        )
        seed += count
    if running.kind is Kind.POSTGRESQL:
        execute(running, database, "VACUUM ANALYZE outbox")


def execute(running: DatabaseServer, database: Database, *statements: str) -> None:
    """On one connection, each with its own commit."""
    with running.connect(database.name) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def now(running: DatabaseServer) -> str:
    """The database's clock."""
    return "now()" if running.kind is Kind.POSTGRESQL else "utc_timestamp(6)"


# MySQL before 8.0.24 refuses every change of the table else: see the first migration.
ZERO_DATES = "SET SESSION sql_mode = ''"


def add_column(running: DatabaseServer) -> tuple[str, ...]:
    """As a later step may: no row is rewritten."""
    column = "ALTER TABLE outbox ADD COLUMN later INTEGER"
    if running.kind is Kind.POSTGRESQL:
        return (column,)
    return (ZERO_DATES, f"{column}, ALGORITHM=INSTANT")


def build_index(running: DatabaseServer) -> tuple[str, ...]:
    """As docs/reference/table.md has it; writers go on meanwhile."""
    if running.kind is Kind.POSTGRESQL:
        return (
            "DROP INDEX outbox_pending_ix",
            "CREATE INDEX CONCURRENTLY outbox_pending_ix ON outbox (status, id, lane) "
            "WHERE status <> 1",
        )
    return (
        ZERO_DATES,
        "ALTER TABLE outbox DROP INDEX outbox_pending_ix, ALGORITHM=INPLACE, LOCK=NONE",
        "ALTER TABLE outbox ADD INDEX outbox_pending_ix (status, id, lane), "
        "ALGORITHM=INPLACE, LOCK=NONE",
    )
