"""
Migrations while the application writes: who waits for whom, and how long.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext

from benchmarks.repeating import Repeating
from outbox_relay import migrate as migrating
from outbox_relay import migration_locks
from outbox_relay.errors import StoreUnavailable
from outbox_relay.migrate import check, migrate, upgrade
from outbox_relay.schema import SCHEMA_VERSION, tables
from outbox_relay.store.options import DatabaseOptions
from tests.integration.test_migrations import STEPS
from tests.integration.test_migrations_toolbox import RELEASED, execute
from tests.unit.test_migration_docs import LOCKS

INSERT = "INSERT INTO outbox (event_name, topic, payload) VALUES ('e', 't', '{}')"
LOOK = "SELECT max(term) FROM outbox_lease"
STRONG_LOCKS = """
SELECT DISTINCT relname FROM pg_locks JOIN pg_class ON pg_class.oid = relation
WHERE pid = pg_backend_pid() AND relkind = 'r' AND relnamespace = 'public'::regnamespace
    AND mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
"""
SERVERS = ["mariadb", "mysql", "postgresql"]
LOCK_SECONDS = 1
SLACK_SECONDS = 1.5


@pytest.fixture(params=SERVERS)
def database(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(f"{request.param}_database")


@pytest.fixture
def short_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migration_locks, "LOCK_SECONDS", LOCK_SECONDS)
    monkeypatch.setattr(migrating, "PAUSE_SECONDS", 0.2)


def build(engine: sa.Engine, version: int) -> None:
    """The tables as *version* made them."""
    kind = "mysql" if engine.dialect.name == "mariadb" else engine.dialect.name
    execute(engine, (RELEASED / f"{version:04d}_{kind}.sql").read_text())


def repeating(engine: sa.Engine, sql: str) -> Repeating:
    """*sql* again and again, each in a transaction of its own."""
    return Repeating(engine.raw_connection, sql)


@contextmanager
def open_transaction(engine: sa.Engine, sql: str) -> Iterator[Callable[[], None]]:
    """A transaction that has done *sql* and stays, until what is given is called."""
    with engine.connect() as connection:
        connection.execute(sa.text(sql))
        yield connection.commit


def migrating_beside(options: DatabaseOptions, on_wait: Callable[[], object]) -> Any:
    """`migrate` in a thread of its own: the thread, and what it returned."""
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.extend(migrate(options, on_wait=on_wait)))
    thread.start()
    return thread, found


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION))
def test_no_step_waits_for_a_writer_or_holds_one_up(
    database: Any, engine: sa.Engine, version: int
) -> None:
    """
    What follows the first step leaves the outbox itself alone: a writer whose transaction stays open,
    and others that write all the time, neither wait nor are waited for.
    """
    build(engine, version)
    waits: list[None] = []
    with repeating(engine, INSERT) as writer, open_transaction(engine, INSERT) as commit:
        applied = migrate(
            DatabaseOptions(url=database.async_url), on_wait=lambda: waits.append(None)
        )
        writer.until(3)
        commit()
    with engine.connect() as connection:
        rows = connection.scalar(sa.select(sa.func.count()).select_from(tables().outbox))

    assert applied == STEPS[version:]
    assert waits == []
    assert rows == len(writer.seconds) + 1


@pytest.mark.alone
@pytest.mark.usefixtures("short_tries")
@pytest.mark.parametrize(
    ("database", "touched"),
    [
        ("mariadb", "outbox"),
        ("mysql", "outbox_lease"),
        ("postgresql", "outbox"),
        ("postgresql", "outbox_lease"),
    ],
    indirect=["database"],
)
def test_a_long_transaction_holds_up_the_migration_and_nobody_else(
    database: Any, engine: sa.Engine, touched: str
) -> None:
    """
    While it waits for the lock of a table, whoever wants the table waits behind it: for one try, not
    for the transaction. The outbox itself is changed only where it was half built.
    """
    build(engine, 2)
    if touched == "outbox":
        damage(engine)
    waits: list[float] = []
    sql = INSERT if touched == "outbox" else LOOK
    with repeating(engine, sql) as other, open_transaction(engine, sql) as commit:
        thread, applied = migrating_beside(
            DatabaseOptions(url=database.async_url), lambda: waits.append(other.longest_seconds)
        )
        while len(waits) < 2:
            time.sleep(0.01)
            assert thread.is_alive()
        other.until(3)
        commit()
        thread.join()

    assert applied == (STEPS if touched == "outbox" else STEPS[2:])
    assert check(DatabaseOptions(url=database.async_url)) == []
    assert other.longest_seconds < LOCK_SECONDS + SLACK_SECONDS
    assert max(waits) > LOCK_SECONDS / 2  # it was held up: the test would show a longer wait


def damage(engine: sa.Engine) -> None:
    """As a stop in the middle of the first step leaves them."""
    with engine.begin() as connection:
        connection.execute(sa.delete(tables().version))
        if engine.dialect.name == "postgresql":
            connection.execute(sa.text("DROP INDEX outbox_pending_ix"))
        else:
            connection.execute(sa.text("SET SESSION sql_mode = ''"))  # see the first step
            connection.execute(sa.text("DROP INDEX outbox_pending_ix ON outbox"))


@pytest.mark.usefixtures("short_tries")
def test_it_gives_up_and_says_who_is_in_the_way(
    database: Any, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    With the statement that shows the transaction. When that has ended, a new run does the work.
    """
    monkeypatch.setattr(migrating, "GIVE_UP_SECONDS", 0.0)
    build(engine, 2)
    options = DatabaseOptions(url=database.async_url)
    with open_transaction(engine, LOOK) as commit:
        with pytest.raises(StoreUnavailable, match="a transaction has held the lock") as raised:
            migrate(options)
        commit()
    who = str(raised.value).split("`")[1]
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(sa.text(who))  # MySQL and MariaDB want the right PROCESS for it

    assert ("pg_stat_activity" in who) == (engine.dialect.name == "postgresql")
    assert migrate(options) == STEPS[2:]


def test_a_writer_of_sqlite_is_waited_for(
    sqlite_database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    SQLite has one writer at a time: a transaction of the application's keeps the migration out.
    """
    monkeypatch.setattr(migrating, "PAUSE_SECONDS", 0.01)
    engine = sa.create_engine(sqlite_database.sync_url)
    options = DatabaseOptions(url=sqlite_database.async_url, connect_timeout_seconds=0.2)
    build(engine, 1)
    waits: list[None] = []
    with engine.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        thread, applied = migrating_beside(options, lambda: waits.append(None))
        while not waits:
            assert thread.is_alive()
            time.sleep(0.01)
        connection.exec_driver_sql("COMMIT")
    thread.join()
    engine.dispose()

    assert applied == STEPS[1:]


def test_postgresql_grants_the_locks_that_the_steps_name(
    postgresql_database: Any,
) -> None:
    """
    The strongest one on each table that was there before, as the server sees it at the end of a step.
    """
    engine = sa.create_engine(postgresql_database.sync_url, poolclass=sa.NullPool)
    build(engine, 1)
    for number in range(2, SCHEMA_VERSION + 1):
        with engine.begin() as connection:
            op = Operations(MigrationContext.configure(connection))
            with Operations.context(op.get_context()):
                upgrade(op, to=number)
            strong = set(connection.execute(sa.text(STRONG_LOCKS)).scalars())

        said = LOCKS[number - 1]["PostgreSQL"]
        assert strong == set(re.findall(r"ACCESS EXCLUSIVE on (\w+)", said))
    engine.dispose()
