"""
MySQL 8 reserves ids for a long ``INSERT ... SELECT`` before it has the rows: nothing shows them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from tests.contract.stores import SqlWorld, open_world
from tests.contract.test_order import Relay, insert_one
from tests.services.database import Database

COPY = """
INSERT INTO outbox (event_name, topic, `key`, payload)
SELECT 'event', 't', 'the key', '{}' FROM numbers ORDER BY n
"""


@contextmanager
def holding_the_last_number(world: SqlWorld) -> Iterator[None]:
    """Six numbers; whoever copies them waits for the sixth."""
    with world.engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE numbers (n INT PRIMARY KEY)"))
        connection.execute(sa.text("INSERT INTO numbers VALUES (1), (2), (3), (4), (5), (6)"))
    with world.engine.begin() as connection:
        connection.execute(sa.text("SELECT n FROM numbers WHERE n = 6 FOR UPDATE"))
        yield


def copy(world: SqlWorld) -> None:
    with world.engine.begin() as connection:
        connection.execute(sa.text(COPY))


async def wait_for_rows(world: SqlWorld, count: int) -> None:
    dirty = world.engine.execution_options(isolation_level="READ UNCOMMITTED")
    there = -1
    while there < count:
        with dirty.connect() as connection:
            there = connection.execute(sa.text("SELECT COUNT(*) FROM outbox")).scalar_one()
        await asyncio.sleep(0.01)


async def test_a_row_whose_id_nothing_showed_is_found_below_the_cursor(
    mysql_database: Database,
) -> None:
    """
    I2. It is late, as `docs/guarantees.md` says, and it is not lost.
    """
    async with open_world("mysql", mysql_database) as world:
        relay = await Relay(world).start()
        with holding_the_last_number(world):
            copying = asyncio.create_task(asyncio.to_thread(copy, world))
            await wait_for_rows(world, 5)
            other = insert_one(world)
            await relay.note()
            await relay.sleep(3)
            await relay.read()
            await relay.read()
            passed = relay.term.reading.cursor
        await copying
        for _ in range(4):
            await relay.read()
        before = relay.published()
        await relay.sweep()
        after = relay.published()

    assert passed >= other > 6
    assert before == [other, 1, 2, 3, 4, 5]
    assert after == [*before, 6]
