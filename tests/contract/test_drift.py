"""
Tables that change while a relay works on them, on each database.
"""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from outbox_relay.errors import SchemaMismatch, StoreUnavailable
from outbox_relay.relay.ports import ReadPlan
from outbox_relay.schema import Status
from tests.contract.stores import open_world

EVERYTHING = ReadPlan(after_id=0, open_ids=frozenset(), limit=100)


def database_of(kind: str, request: Any) -> Any:
    return request.getfixturevalue(f"{kind.removeprefix('adopted ')}_database")


def run(world: Any, statement: str) -> None:
    with world.engine.begin() as connection:
        if connection.dialect.name == "mysql":
            # MySQL before 8.0.24 takes the default of created_at for a zero date.
            connection.execute(sa.text("SET SESSION sql_mode = ''"))
        connection.execute(sa.text(statement))


def rename(world: Any, column: str, to: str) -> None:
    run(world, f"ALTER TABLE outbox RENAME COLUMN {column} TO {to}")


@pytest.mark.parametrize("kind", ["mariadb", "mysql", "postgresql", "sqlite"])
async def test_a_column_that_is_gone_ends_the_term_and_may_come_back(kind, request):
    """
    I8. The error names the column; nothing is given up, and no other connection is needed afterwards.
    """
    async with open_world(kind, request.getfixturevalue(f"{kind}_database")) as world:
        writer = world.begin()
        row_id = writer.insert()
        writer.commit()
        await world.store.acquire("me", wake_address="", lease_seconds=15)
        rename(world, "headers", "gone")
        with pytest.raises(StoreUnavailable, match="headers") as raised:
            await world.store.read(EVERYTHING)
        rename(world, "gone", "headers")
        rows = await world.store.read(EVERYTHING)

        assert raised.value.ends_term
        assert [row.id for row in rows] == [row_id]


@pytest.mark.parametrize("kind", ["adopted mariadb", "adopted mysql", "adopted postgresql"])
async def test_a_column_of_an_adopted_table_likewise(kind, request):
    """
    I8. While it is gone, no relay begins: the error names it.
    """
    async with open_world(kind, database_of(kind, request)) as world:
        writer = world.begin()
        row_id = writer.insert()
        writer.commit()
        lease = await world.store.acquire("me", wake_address="", lease_seconds=15)
        rename(world, "event_name", "gone")
        with pytest.raises(StoreUnavailable, match="event_name") as raised:
            await world.store.read(EVERYTHING)
        with pytest.raises(SchemaMismatch, match="event_name"):
            await world.store.check_schema()
        # What was acked before is marked all the same.
        await world.store.mark_produced([row_id], lease.term)
        rename(world, "gone", "event_name")
        await world.store.check_schema()

        assert raised.value.ends_term
        assert world.status(row_id) is Status.PRODUCED
        assert await world.store.read(EVERYTHING) == []


@pytest.mark.parametrize("kind", ["mariadb", "mysql", "adopted mariadb", "adopted mysql"])
async def test_an_index_that_is_gone_ends_the_term(kind, request):
    """
    I8. MySQL does not read without it. A relay on an adopted table then waits, and says what makes it.
    """
    async with open_world(kind, database_of(kind, request)) as world:
        await world.store.acquire("me", wake_address="", lease_seconds=15)
        adopted = kind.startswith("adopted")
        index = "outbox_relay_ix" if adopted else "outbox_pending_ix"
        run(world, f"ALTER TABLE outbox DROP INDEX {index}")
        with pytest.raises(StoreUnavailable, match=index) as raised:
            await world.store.read(EVERYTHING)

        assert raised.value.ends_term
        if adopted:
            with pytest.raises(SchemaMismatch, match="--prepare"):
                await world.store.check_schema()


@pytest.mark.parametrize("kind", ["adopted mariadb", "adopted postgresql"])
async def test_the_next_term_knows_the_table_as_an_application_upgraded_it(kind, request):
    """
    With the column of 1.0.0 the document is made; after the upgrade that drops it, rows hold it themselves.
    """
    async with open_world(kind, database_of(kind, request)) as world:
        run(world, "ALTER TABLE outbox ADD COLUMN event_type VARCHAR(32) NOT NULL DEFAULT 'X'")
        await world.store.check_schema()
        await world.store.acquire("me", wake_address="", lease_seconds=15)
        writer = world.begin()
        row_id = writer.insert(payload=b'{"k": 1}')
        writer.commit()
        [before] = await world.store.read(EVERYTHING)
        run(world, "ALTER TABLE outbox DROP COLUMN event_type")
        with pytest.raises(StoreUnavailable, match="event_type") as raised:
            await world.store.read(EVERYTHING)
        await world.store.check_schema()
        [after] = await world.store.read(EVERYTHING)

        assert raised.value.ends_term
        assert (before.id, after.id) == (row_id, row_id)
        assert before.payload.startswith(b'{"event_id":')
        assert after.payload == b'{"k": 1}'
