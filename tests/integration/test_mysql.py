"""
What MySQL 8 does otherwise than MariaDB, and what this project relies on.
"""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from outbox_relay.migrate import migrate
from outbox_relay.schema import SCHEMA_VERSION, tables
from outbox_relay.store import DatabaseOptions, open_store
from tests.services.database import Database
from tests.services.mysql import MySQL


def ask(server: MySQL, sql: str, database: str | None = None) -> str:
    """One value, as root."""
    with server.root_connection(database) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        (value,) = cursor.fetchone()
    return str(value)


def test_mysql_is_durable_and_gives_out_ids_the_way_of_mysql_8(mysql: MySQL) -> None:
    """
    The settings on which the promises rest, and the one that `docs/guarantees.md` warns of.
    """
    names = (
        "innodb_flush_log_at_trx_commit",
        "sync_binlog",
        "binlog_format",
        "innodb_autoinc_lock_mode",
    )

    assert [ask(mysql, f"SELECT @@{name}") for name in names] == ["1", "1", "ROW", "2"]


async def test_the_server_is_known_by_its_uuid(mysql: MySQL, mysql_database: Database) -> None:
    """
    Host and port may be taken over by another server; MySQL's uuid may not.
    """
    options = DatabaseOptions(url=mysql_database.async_url)
    migrate(options)
    store = open_store(options)
    lease = await store.acquire("relay", wake_address="", lease_seconds=15)
    await store.close()

    assert lease is not None
    assert lease.server.endswith(":" + ask(mysql, "SELECT @@server_uuid"))


async def test_a_password_is_checked_the_way_of_mysql_8(
    mysql: MySQL, mysql_database: Database
) -> None:
    """
    caching_sha2_password, also when the server has nothing in its cache.
    """
    plugin = ask(mysql, "SELECT plugin FROM mysql.user WHERE user = 'ob' AND host = '%'")
    with mysql.root_connection() as connection, connection.cursor() as cursor:
        cursor.execute("FLUSH PRIVILEGES")
    options = DatabaseOptions(url=mysql_database.async_url)
    applied = migrate(options)

    assert plugin == "caching_sha2_password"
    assert len(applied) == SCHEMA_VERSION


@pytest.mark.parametrize("whose", ["ours", "theirs"])
def test_create_all_leaves_the_sql_mode_as_it_was(mysql_database: Database, whose: str) -> None:
    """
    MySQL before 8.0.24 refuses the index under its own default mode; the application gets that back.
    Also where the application copied the table into metadata of its own.
    """
    metadata = tables().metadata if whose == "ours" else sa.MetaData()
    if whose == "theirs":
        tables().outbox.to_metadata(metadata)
    engine = sa.create_engine(mysql_database.sync_url)
    with engine.begin() as connection:
        before = connection.exec_driver_sql("SELECT @@sql_mode").scalar_one()
        metadata.create_all(connection)
        after = connection.exec_driver_sql("SELECT @@sql_mode").scalar_one()
        indexes = sa.inspect(connection).get_indexes("outbox")
    engine.dispose()

    assert "NO_ZERO_DATE" in before
    assert after == before
    assert [index["name"] for index in indexes] == ["outbox_pending_ix"]
