"""
A server that only reads, as an old primary does after a failover: every connection is given up.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pymysql
import pytest

from outbox_relay.errors import ServerReadOnly, StoreUnavailable
from outbox_relay.migrate import migrate
from outbox_relay.relay.lease import Lease
from outbox_relay.relay.ports import ReadPlan, Store
from outbox_relay.store import DatabaseOptions, open_store
from outbox_relay.testing import Watcher
from tests.services.database import Database
from tests.services.mariadb import MariaDB
from tests.services.postgresql import PostgreSQL

PLAN = ReadPlan(after_id=0, open_ids=frozenset(), limit=10)


@pytest.fixture
def watcher() -> Watcher:
    return Watcher()


async def opened(database: Database, watcher: Watcher) -> Store:
    options = DatabaseOptions(url=database.async_url, timeout_seconds=2)
    migrate(options)
    return open_store(options, observer=watcher)


@pytest.fixture
async def store(mariadb_database: Database, watcher: Watcher) -> AsyncIterator[Store]:
    made = await opened(mariadb_database, watcher)
    yield made
    await made.close()


@pytest.fixture
def writable(mariadb: MariaDB) -> Iterator[pymysql.Connection]:
    """Root; the server is writable again afterwards."""
    connection = mariadb.root_connection()
    yield connection
    with connection.cursor() as cursor:
        cursor.execute("SET GLOBAL read_only = 0")
    connection.close()


def root(connection: pymysql.Connection, sql: str) -> list[tuple[object, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return list(cursor.fetchall())


async def taken(store: Store) -> Lease:
    lease = await store.acquire("relay", wake_address="", lease_seconds=15)
    assert lease is not None
    return lease


async def test_no_connection_stays_with_a_server_that_only_reads(
    store: Store, writable: pymysql.Connection, mariadb_database: Database
) -> None:
    """
    I1. One write that is refused (1290) is enough: reads would go on to answer from the old primary.
    """
    lease = await taken(store)
    await store.read(PLAN)
    await store.sample(cap=1)
    root(writable, "SET GLOBAL read_only = 1")

    with pytest.raises(ServerReadOnly, match=r"1290.*name the primary") as refused:
        await store.renew(lease, noted_id=0, lease_seconds=15)
    with pytest.raises(ServerReadOnly, match="only reads"):
        await store.read(PLAN)
    with pytest.raises(ServerReadOnly, match="only reads"):
        await store.sample(cap=1)
    left = root(
        writable,
        f"SELECT id FROM information_schema.processlist WHERE db = '{mariadb_database.name}'",
    )

    assert refused.value.ends_term
    assert left == []

    root(writable, "SET GLOBAL read_only = 0")

    assert await store.read(PLAN) == []
    await store.renew(lease, noted_id=0, lease_seconds=15)


async def test_postgresql_says_it_with_25006(
    postgresql: PostgreSQL, postgresql_database: Database, watcher: Watcher
) -> None:
    """
    As a standby does, or a primary that is made to.
    """
    store = await opened(postgresql_database, watcher)
    lease = await taken(store)
    with postgresql.root_connection() as connection:
        name = postgresql_database.name
        connection.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name]
        )
    try:
        with pytest.raises(StoreUnavailable):
            await store.renew(lease, noted_id=0, lease_seconds=15)
        with pytest.raises(ServerReadOnly, match="25006"):
            await store.renew(lease, noted_id=0, lease_seconds=15)
    finally:
        await store.close()

    assert "unexpected_error" not in watcher.names()


async def test_an_error_that_is_in_no_table_is_counted_and_costs_nothing(
    store: Store, watcher: Watcher, writable: pymysql.Connection, mariadb_database: Database
) -> None:
    """
    I8. The statement can be repeated as soon as the server takes it again.
    """
    lease = await taken(store)
    root(
        writable,
        f"CREATE TRIGGER {mariadb_database.name}.odd BEFORE UPDATE ON "
        f"{mariadb_database.name}.outbox_lease FOR EACH ROW "
        "SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 1644, MESSAGE_TEXT = 'odd'",
    )

    with pytest.raises(StoreUnavailable, match="odd"):
        await store.renew(lease, noted_id=0, lease_seconds=15)
    root(writable, f"DROP TRIGGER {mariadb_database.name}.odd")
    await store.renew(lease, noted_id=0, lease_seconds=15)

    assert ("unexpected_error", {"source": "database", "error": "1644"}) in watcher.events
