"""
`database.schema`: the tables live in another database of the server than the connection, on
PostgreSQL in another schema.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext

from outbox_relay import Outbox
from outbox_relay.migrate import check, downgrade, migrate, sql_script, upgrade
from outbox_relay.operations import Access, read_standing
from outbox_relay.relay.ports import ReadPlan, Store
from outbox_relay.schema import SCHEMA_VERSION, Status, tables
from outbox_relay.store import DatabaseOptions, open_store

# A word of SQL, and letters that a server may fold: both must be quoted everywhere.
NAMES = ["outbox", "order", "Shop$Events"]


@pytest.fixture(params=["mariadb", "mysql", "postgresql"])
def server(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


@pytest.fixture
def engine(server: Any) -> Iterator[sa.Engine]:
    engine = sa.create_engine(server.create_database().sync_url)
    yield engine
    engine.dispose()


@pytest.fixture(params=NAMES)
def options(request: pytest.FixtureRequest, server: Any, engine: sa.Engine) -> DatabaseOptions:
    """The connection opens one database; the tables are in another."""
    if engine.dialect.name == "postgresql":
        driver, schema = "postgresql+asyncpg", "of_the_relay"
        with engine.begin() as connection:
            connection.execute(sa.schema.CreateSchema(schema))
    else:
        driver, schema = "mysql+asyncmy", server.create_database().name
    url = engine.url.set(drivername=driver).render_as_string(hide_password=False)
    return DatabaseOptions(url=url, table=request.param, schema=schema)


@pytest.fixture
async def store(options: DatabaseOptions) -> Any:
    opened = open_store(options)
    yield opened
    await opened.close()


def test_the_other_ways_to_build_them_agree(options: DatabaseOptions, engine: sa.Engine) -> None:
    """
    Printed, checked, and from a revision of the application: each heeds the schema.
    """
    names: dict[str, Any] = {"table": options.table, "schema": options.schema}
    before = check(options)
    with engine.begin() as connection:
        for statement in sql_script(engine.dialect.name, **names).split(";\n"):
            if re.sub(r"^--.*$", "", statement, flags=re.MULTILINE).strip():
                connection.exec_driver_sql(statement)
    printed = check(options), migrate(options)
    with engine.begin() as connection:
        op = Operations(MigrationContext.configure(connection))
        upgrade(op, **names)
        connection.execute(tables(options.table, schema=options.schema).outbox.delete())
        downgrade(op, **names)
        gone = sa.inspect(connection).get_table_names(schema=options.schema)
        with Operations.context(op.get_context()):
            upgrade(op, **names)
    by_revision = check(options), migrate(options)

    assert len(before) == SCHEMA_VERSION
    assert printed == by_revision == ([], [])
    assert gone == []
    assert sa.inspect(engine).get_table_names() == []


async def test_an_event_is_written_read_and_settled_there(
    options: DatabaseOptions, engine: sa.Engine, store: Store
) -> None:
    """
    Migration, writer, relay and `status` agree on where the tables are.
    """
    applied = migrate(options)
    outbox = Outbox(table=options.table, schema=options.schema)
    with engine.begin() as connection:
        outbox.add(connection, {"n": 1}, {"n": 2}, name="order.placed", topic="orders", key=None)
    await store.check_schema()
    lease = await store.acquire("relay", wake_address="", lease_seconds=15)
    assert lease is not None
    plan = ReadPlan(after_id=0, open_ids=frozenset(), upto_id=await store.max_id(), limit=10)
    rows = await store.read(plan)
    uncommitted = await store.uncommitted_ids(plan)
    await store.mark_produced([rows[0].id], lease.term)
    await store.mark_dead(rows[1].id, "too large", lease.term)
    backlog = await store.sample(cap=10)
    paused = await store.paused_topics()
    await store.renew(lease, noted_id=2, lease_seconds=15)
    await store.release(lease)

    assert len(applied) == SCHEMA_VERSION
    assert [row.payload for row in rows] == [b'{"n":1}', b'{"n":2}']
    assert uncommitted == ([] if engine.dialect.name == "postgresql" else [row.id for row in rows])
    assert (backlog.rows, backlog.dead_rows, paused) == (0, 1, frozenset())
    names = tables(options.table, schema=options.schema)
    with engine.connect() as connection:
        statuses = connection.scalars(sa.select(names.outbox.c.status).order_by("id")).all()
    assert statuses == [Status.PRODUCED, Status.DEAD]


def test_nothing_is_made_where_the_connection_is(
    options: DatabaseOptions, engine: sa.Engine
) -> None:
    """
    All tables are in the schema, Alembic's own too; a second run finds them there.
    """
    migrate(options)
    again = migrate(options)
    inspector = sa.inspect(engine)
    there = set(inspector.get_table_names(schema=options.schema))

    assert again == []
    assert inspector.get_table_names() == []
    assert there == {
        options.table,
        *(f"{options.table}_{part}" for part in ("lease", "control", "version", "alembic_version")),
    }


def test_status_looks_there(options: DatabaseOptions) -> None:
    """
    `status` finds the tables in the schema, and says so when they are missing.
    """
    before = asyncio.run(read_standing(Access(options)))
    migrate(options)
    after = asyncio.run(read_standing(Access(options)))

    assert before.schema_version is None
    assert (after.schema_version, after.schema_problem) == (SCHEMA_VERSION, None)
    assert after.backlog_rows == 0
