"""
Migrations: the scripts build exactly the tables of `schema.py`, once, however often they are run.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from outbox_relay.errors import SchemaMismatch, StoreUnavailable
from outbox_relay.migrate import migrate
from outbox_relay.schema import SCHEMA_VERSION, tables
from outbox_relay.store.options import DatabaseOptions

# One line for each column, index and constraint of a table, and its settings.
POSTGRESQL = r"""
SELECT relname AS name, concat_ws(' ', array_to_string(reloptions, ','), (
    SELECT string_agg(concat_ws(' ', attname, format_type(atttypid, atttypmod), attnotnull,
        attidentity, attgenerated, attstorage, pg_get_expr(adbin, adrelid)), '; ' ORDER BY attnum)
    FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
    WHERE attrelid = pg_class.oid AND attnum > 0 AND NOT attisdropped
), (
    SELECT string_agg(pg_get_indexdef(indexrelid), '; ' ORDER BY indexrelid::regclass::text)
    FROM pg_index WHERE indrelid = pg_class.oid
), (
    SELECT string_agg(concat_ws(' ', conname, pg_get_constraintdef(oid)), '; ' ORDER BY conname)
    FROM pg_constraint WHERE conrelid = pg_class.oid
)) AS text
FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
"""
STEPS = [
    "0001 The outbox and the tables beside it, at version 1",
    "0002 Slots of active relays in the lease table, at version 2",
    "0003 Suspects in the lease table, at version 3",
]


@pytest.fixture(params=["mariadb", "mysql", "postgresql", "sqlite"])
def database(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(f"{request.param}_database")


@pytest.fixture
def engine(database: Any) -> Iterator[sa.Engine]:
    engine = sa.create_engine(database.sync_url)
    yield engine
    engine.dispose()


def options(database: Any, **more: Any) -> DatabaseOptions:
    return DatabaseOptions(url=database.async_url, **more)


def definitions(engine: sa.Engine, table: str = "outbox") -> dict[str, str]:
    """Each table's (and on SQLite each index') own text, as the server tells it."""
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            sql = "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"
            found = [(row.name, row.sql) for row in connection.execute(sa.text(sql))]
        elif engine.dialect.name == "postgresql":
            found = [(row.name, row.text) for row in connection.execute(sa.text(POSTGRESQL))]
        else:
            names = sa.inspect(connection).get_table_names()
            found = [
                (name, connection.execute(sa.text(f"SHOW CREATE TABLE `{name}`")).one()[1])
                for name in names
            ]
    return {
        name: re.sub(r"\s+", " ", re.sub(r" AUTO_INCREMENT=\d+", "", text))
        for name, text in found
        if not name.endswith("_alembic_version") and not name.startswith("sqlite_")
    }


async def test_scripts_and_schema_build_the_same_tables(database: Any, engine: sa.Engine) -> None:
    """
    Built step by step equals built from zero: columns, defaults, indexes, character set, checks.
    """
    migrate(options(database))
    by_scripts = definitions(engine)
    metadata = tables("outbox").metadata
    own = create_async_engine(database.async_url)
    async with own.begin() as connection:
        await connection.run_sync(metadata.drop_all)
        await connection.run_sync(metadata.create_all)
    await own.dispose()
    by_schema = definitions(engine)

    assert by_scripts == by_schema
    assert {"outbox", "outbox_lease", "outbox_control", "outbox_version"} <= set(by_scripts)


def test_the_tables_are_ready_to_use(database: Any, engine: sa.Engine) -> None:
    """
    Version, lanes, and Alembic's own table are there; three columns make an event.
    """
    migrate(options(database))
    names = tables("outbox")
    with engine.begin() as connection:
        connection.execute(
            sa.text(
                "INSERT INTO outbox (event_name, topic, payload) "
                "VALUES ('order.placed', 'orders', '{}')"
            )
        )
        row = connection.execute(sa.select(names.outbox)).one()
        lanes = connection.execute(sa.select(names.lease.c.lane)).scalars().all()
        newest = names.version.c.version.desc()
        version = connection.execute(sa.select(names.version).order_by(newest)).first()
        stamp = connection.execute(sa.text("SELECT version_num FROM outbox_alembic_version"))
        revision = stamp.scalar_one()

    assert sorted(lanes) == ([0] if engine.dialect.name == "sqlite" else list(range(128)))
    assert (version.version, version.min_reader) == (SCHEMA_VERSION, 1)
    assert revision == f"{SCHEMA_VERSION:04d}"
    assert (row.status, row.codec, row.content_type) == (0, 0, "application/json")
    assert row.created_at.year > 2000


def test_a_second_run_changes_nothing(database: Any, engine: sa.Engine) -> None:
    """
    Each step is told once.
    """
    first = migrate(options(database))
    before = definitions(engine)
    second = migrate(options(database))

    assert (first, second) == (STEPS, [])
    assert definitions(engine) == before


async def test_several_at_once_do_the_work_once(database: Any) -> None:
    """
    Every pod of a deployment may run it at the same time.
    """
    together = [asyncio.to_thread(migrate, options(database)) for _ in range(3)]
    applied = await asyncio.gather(*together)

    assert sorted(applied) == [[], [], STEPS]


def test_a_stop_in_the_middle_is_made_good(database: Any, engine: sa.Engine) -> None:
    """
    MySQL commits each CREATE TABLE by itself; half-built tables have no version and are completed.
    """
    migrate(options(database))
    whole = definitions(engine)
    names = tables("outbox")
    with engine.begin() as connection:
        connection.execute(sa.delete(names.version))
        if engine.dialect.name in ("mysql", "mariadb"):
            connection.execute(sa.text("SET SESSION sql_mode = ''"))  # see the script
        connection.execute(sa.text("DROP INDEX outbox_pending_ix" + _on(engine)))
        connection.execute(sa.delete(names.lease))
        connection.execute(sa.text("DROP TABLE outbox_control"))
    applied = migrate(options(database))
    with engine.connect() as connection:
        lanes = connection.execute(sa.select(sa.func.count()).select_from(names.lease)).scalar()

    assert applied == STEPS
    assert definitions(engine) == whole
    assert lanes == (1 if engine.dialect.name == "sqlite" else 128)


def _on(engine: sa.Engine) -> str:
    return " ON outbox" if engine.dialect.name in ("mysql", "mariadb") else ""


def test_alembic_follows_our_version(database: Any, engine: sa.Engine) -> None:
    """
    outbox_version is the one truth: what Alembic's table says is overwritten from it.
    """
    migrate(options(database))
    names = tables("outbox")
    with engine.begin() as connection:
        connection.execute(sa.delete(names.version))
        # Alembic still says which version, and would do nothing.
    applied = migrate(options(database))

    assert applied == STEPS


def test_tables_that_are_newer_are_left_alone(database: Any, engine: sa.Engine) -> None:
    """
    A newer release has been here: fine if it still lets us read, else said, with what mends it.
    """
    migrate(options(database))
    version = tables("outbox").version
    with engine.begin() as connection:
        connection.execute(sa.insert(version).values(version=SCHEMA_VERSION + 1, min_reader=1))
    still_readable = migrate(options(database))
    with engine.begin() as connection:
        connection.execute(
            sa.insert(version).values(version=SCHEMA_VERSION + 2, min_reader=SCHEMA_VERSION + 1)
        )

    with pytest.raises(SchemaMismatch, match="upgrade outbox-relay"):
        migrate(options(database))
    assert still_readable == []


def test_each_outbox_has_its_own_name(database: Any, engine: sa.Engine) -> None:
    """
    Two outboxes in one database, each with its tables beside it.
    """
    migrate(options(database, table="shop_events"))
    applied = migrate(options(database))
    names = set(sa.inspect(engine).get_table_names())

    assert applied == STEPS
    assert {"shop_events", "shop_events_version", "shop_events_alembic_version"} <= names
    assert {"outbox", "outbox_version"} <= names


def test_sqlite_lets_readers_and_the_writer_work_side_by_side(sqlite_database: Any) -> None:
    """
    The file keeps write-ahead logging from `migrate` on.
    """
    migrate(options(sqlite_database))
    engine = sa.create_engine(sqlite_database.sync_url)
    with engine.connect() as connection:
        mode = connection.execute(sa.text("PRAGMA journal_mode")).scalar()
    engine.dispose()

    assert mode == "wal"


def test_a_database_that_does_not_answer_is_told_without_the_password() -> None:
    """
    I11. The reason is the server's; the password is nowhere.
    """
    closed = "mysql+asyncmy://ob:geheim@127.0.0.1:1/shop"

    with pytest.raises(StoreUnavailable) as raised:
        migrate(DatabaseOptions(url=closed))
    assert "127.0.0.1" in str(raised.value)
    assert "geheim" not in str(raised.value)
