"""
Tables that change while a relay works on them, on each database.
"""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from outbox_relay.errors import StoreUnavailable
from outbox_relay.relay.ports import ReadPlan
from tests.contract.stores import open_world

EVERYTHING = ReadPlan(after_id=0, open_ids=frozenset(), limit=100)


def rename(world: Any, column: str, to: str) -> None:
    with world.engine.begin() as connection:
        if connection.dialect.name == "mysql":
            # MySQL before 8.0.24 takes the default of created_at for a zero date.
            connection.execute(sa.text("SET SESSION sql_mode = ''"))
        connection.execute(sa.text(f"ALTER TABLE outbox RENAME COLUMN {column} TO {to}"))


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
