"""
What PostgreSQL does otherwise than the other databases, and what this project relies on.
"""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
import sqlalchemy as sa

from outbox_relay.errors import ServerChanged, StoreUnavailable
from outbox_relay.migrate import check, migrate
from outbox_relay.operations import Access, read_standing
from outbox_relay.relay.ports import ReadPlan
from outbox_relay.schema import Status, tables
from outbox_relay.store import DatabaseOptions, open_store
from outbox_relay.store.sql import SqlStore
from tests.services.database import Database
from tests.services.postgresql import PostgreSQL, find_program

EVERYTHING = ReadPlan(after_id=0, open_ids=frozenset(), limit=100)


@pytest.fixture
def options(postgresql_database: Database) -> DatabaseOptions:
    """Tables that are ready."""
    options = DatabaseOptions(url=postgresql_database.async_url)
    migrate(options)
    return options


@pytest.fixture
def database(postgresql_database: Database) -> Database:
    return postgresql_database


@pytest.fixture
async def store(options: DatabaseOptions) -> Any:
    opened = open_store(options)
    yield opened
    await opened.close()


def insert(connection: sa.Connection) -> int:
    """An event in the transaction of *connection*; its id."""
    row = tables().outbox.insert().values(event_name="e", topic="t", payload=b"{}")
    return connection.execute(row).inserted_primary_key[0]


async def largest(store: Any) -> int:
    """The id up to which all have ended, noted as often as the last of them needs."""
    for _ in range(3):
        noted = await store.max_id()
    return noted


async def test_an_open_transaction_holds_the_largest_id_back(store, engine) -> None:
    """
    I4. Nothing above its id is taken for settled before it ends, whichever way.
    """
    with engine.begin() as connection:
        first = insert(connection)
    with engine.connect() as open_one, engine.connect() as later:
        hole = insert(open_one)
        last = insert(later)
        later.commit()
        while_open = await largest(store)
        open_one.rollback()
    after = await largest(store)

    assert (first, hole, last) == (1, 2, 3)
    assert while_open == 0
    assert after == last


async def test_a_prepared_transaction_holds_it_back_too(store, engine) -> None:
    """
    I4. PREPARE TRANSACTION gives the lock another holder, whom nothing connects with the first.
    """
    with engine.connect() as connection:
        transaction = connection.begin_twophase("of-the-test")
        hole = insert(connection)
        with engine.begin() as other:
            insert(other)
        before = await store.max_id()
        transaction.prepare()
        prepared = await largest(store)
        transaction.commit()
    after = await largest(store)

    assert (before, prepared) == (0, 0)
    assert after == hole + 1


async def test_readers_and_vacuum_do_not_hold_it_back(store, engine) -> None:
    """
    A long report over the table costs the relay nothing.
    """
    with engine.begin() as connection:
        row_id = insert(connection)
    with engine.connect() as report:
        report.execute(sa.select(tables().outbox).with_for_update()).all()

        assert await store.max_id() == row_id


async def test_the_server_is_known_by_its_identifier_and_timeline(
    store, postgresql: PostgreSQL
) -> None:
    """
    A promoted standby keeps the identifier and begins a timeline.
    """
    lease = await store.acquire("relay", wake_address="", lease_seconds=15)
    with postgresql.root_connection() as root:
        row = root.execute("SELECT system_identifier FROM pg_control_system()").fetchone()

    assert lease is not None
    assert lease.server == f"{row[0]}:00000001"


async def test_reading_goes_by_the_partial_index(store, options, engine) -> None:
    """
    Also where the planner knows nothing of the table yet: produced rows are not looked at.
    """
    assert isinstance(store, SqlStore)
    read, _ = store._sql.read(EVERYTHING)
    dead = store._sql.dead_keys(10)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO outbox (event_name, topic, payload, status) "
            "SELECT 'e', 't', '{}', 1 FROM generate_series(1, 50000)"
        )
        insert(connection)
    plans = []
    for analyze in ("", "ANALYZE outbox"):
        with engine.begin() as connection:
            if analyze:
                connection.exec_driver_sql(analyze)
            for sql in (read, dead, store._sql.sample(10)):
                lines = connection.exec_driver_sql(f"EXPLAIN {sql}").scalars()
                plans.append("\n".join(lines))

    assert [plan for plan in plans if "outbox_pending_ix" not in plan or "Seq Scan" in plan] == []


async def test_three_columns_from_psql(postgresql: PostgreSQL, store, engine) -> None:
    """
    The table is a public interface, also for a role that may insert and nothing else.
    """
    database = engine.url.database
    with postgresql.root_connection(database) as root:
        root.execute("CREATE ROLE writer_only LOGIN")
        root.execute("GRANT INSERT ON outbox TO writer_only")
    sql = "INSERT INTO outbox (event_name, topic, payload) VALUES ('e', 't', '{\"n\": 1}')"
    where = ["-h", str(postgresql.folder), "-p", str(postgresql.port), "-U", "writer_only"]
    subprocess.run([find_program("psql"), *where, "-d", database, "-c", sql], check=True)
    [row] = await store.read(EVERYTHING)
    with postgresql.root_connection(database) as root:
        root.execute("DROP OWNED BY writer_only")
        root.execute("DROP ROLE writer_only")

    assert (row.payload, row.headers, len(row.event_id)) == (b'{"n": 1}', None, 16)


async def test_an_error_with_a_nul_becomes_a_reason(store, engine) -> None:
    """
    I2. PostgreSQL's text holds no NUL; a refused mark would be repeated for ever.
    """
    with engine.begin() as connection:
        row_id = insert(connection)
    lease = await store.acquire("relay", wake_address="", lease_seconds=15)
    await store.mark_dead(row_id, "unreadable: \x00", lease.term)
    with engine.connect() as connection:
        row = connection.execute(sa.select(tables().outbox)).one()

    assert (row.status, row.last_error) == (Status.DEAD, "unreadable: ")


async def test_what_the_server_says_of_a_row_is_not_told(store, engine) -> None:
    """
    I11. PostgreSQL shows the whole row, payload and all, beside the constraint that it breaks.
    """
    with engine.begin() as connection:
        row_id = insert(connection)
        connection.exec_driver_sql("UPDATE outbox SET payload = 'geheim'")
        connection.exec_driver_sql("ALTER TABLE outbox ADD CHECK (status <> 1)")
    lease = await store.acquire("relay", wake_address="", lease_seconds=15)

    with pytest.raises(StoreUnavailable, match="error 23514") as raised:
        await store.mark_produced([row_id], lease.term)
    assert "Failing row" not in str(raised.value)
    assert "geheim" not in str(raised.value)


async def test_a_wrong_password_is_told_with_what_mends_it(options: DatabaseOptions) -> None:
    """
    The advice is there, the password is not.
    """
    store = open_store(DatabaseOptions(url=options.url.replace(":ob@", ":geheim@")))
    with pytest.raises(StoreUnavailable, match=r"check the user in database\.url") as raised:
        await store.check_schema()
    await store.close()

    assert "geheim" not in str(raised.value)


async def test_behind_a_pooler_that_gives_each_transaction_another_connection(
    pgbouncer, postgresql_database: Database, options: DatabaseOptions, engine: sa.Engine
) -> None:
    """
    Nothing rests on a session: migrations, `status`, and the relay's statements one beside another.
    """
    url = pgbouncer.database(postgresql_database).async_url
    pooled = DatabaseOptions(url=url, transaction_pooler=True)
    store = open_store(pooled)
    lease = await store.acquire("relay", wake_address="", lease_seconds=15)
    for _ in range(30):
        with engine.begin() as connection:
            row_id = insert(connection)
        [row] = await store.read(EVERYTHING)
        await store.mark_produced([row.id], lease.term)
        await store.renew(lease, noted_id=row.id, lease_seconds=15)
    timeout = (await store._marks.execute("SHOW lock_timeout")).rows[0][0]
    standing = await read_standing(Access(pooled))

    assert await largest(store) == row_id
    assert timeout == "2500ms"
    assert (standing.backlog_rows, standing.lanes_owned) == (0, 64)
    assert (migrate(pooled), check(pooled)) == ([], [])

    store._server = "another:1"
    with pytest.raises(ServerChanged):
        await store.read(EVERYTHING)
    await store.close()
