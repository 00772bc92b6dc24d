"""
A database in trouble costs no event an attempt, whatever its driver makes of what it says.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from outbox_relay.consumer.retries import Again, Retries
from tests.services.database import Database
from tests.services.postgresql import PostgreSQL

ONCE = Retries(attempts=1)


@pytest.fixture(params=["asyncpg", "psycopg"])
async def engine(
    request: pytest.FixtureRequest, postgresql_database: Database
) -> AsyncIterator[AsyncEngine]:
    """A service's engine, by each driver, and a table of two rows."""
    url = postgresql_database.async_url.replace("asyncpg", request.param)
    made = create_async_engine(url, isolation_level="REPEATABLE READ")
    async with made.begin() as connection:
        await connection.execute(sa.text("CREATE TABLE rows (id int PRIMARY KEY, n int)"))
        await connection.execute(sa.text("INSERT INTO rows VALUES (1, 0), (2, 0)"))
    yield made
    await made.dispose()


def costs_nothing(error: BaseException) -> bool:
    """Whether the record goes to its handler again, however few attempts it has."""
    return isinstance(ONCE.decide(error, attempts=0, failures=0, chance=0.0), Again)


async def update(connection: AsyncConnection, row: int) -> None:
    await connection.execute(sa.text(f"UPDATE rows SET n = n + 1 WHERE id = {row}"))


async def test_a_deadlock(engine: AsyncEngine) -> None:
    """
    Two handlers lock the same rows in another order: one of them is ended.
    """
    both = asyncio.Barrier(2)

    async def handle(first: int, second: int) -> None:
        async with engine.begin() as connection:
            await update(connection, first)
            await both.wait()
            await update(connection, second)

    ends = await asyncio.gather(handle(1, 2), handle(2, 1), return_exceptions=True)
    [error] = [end for end in ends if end is not None]

    assert costs_nothing(error)


async def test_a_snapshot_that_is_too_old(engine: AsyncEngine) -> None:
    """
    40001: what the guide promises of the inbox under REPEATABLE READ.
    """
    async with engine.connect() as first, engine.connect() as second:
        for connection in (first, second):
            await connection.execute(sa.text("SELECT * FROM rows"))
        await update(first, 1)
        await first.commit()
        with pytest.raises(sa.exc.DBAPIError) as raised:
            await update(second, 1)

    assert costs_nothing(raised.value)


async def test_a_connection_that_is_ended(engine: AsyncEngine, postgresql: PostgreSQL) -> None:
    """
    By an operator, or by a server that stops.
    """
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
    async with engine.connect() as connection:
        await update(connection, 1)
        with postgresql.root_connection() as root:
            root.execute(end, (engine.url.database,))
        with pytest.raises(sa.exc.DBAPIError) as raised:
            await update(connection, 2)

    assert costs_nothing(raised.value)


async def test_a_server_that_lets_nobody_in(engine: AsyncEngine, postgresql: PostgreSQL) -> None:
    """
    It has as many connections as it may have. While it starts, it answers alike.
    """
    await engine.dispose()
    with postgresql.root_connection() as root:
        root.execute(f'ALTER DATABASE "{engine.url.database}" CONNECTION LIMIT 0')

    with pytest.raises(sa.exc.DBAPIError) as raised:
        async with engine.connect():
            pass

    assert costs_nothing(raised.value)


async def test_a_standby(engine: AsyncEngine) -> None:
    """
    After a failover the old address only reads.
    """
    async with engine.connect() as connection:
        await connection.execute(sa.text("SET TRANSACTION READ ONLY"))
        with pytest.raises(sa.exc.DBAPIError) as raised:
            await update(connection, 1)

    assert costs_nothing(raised.value)


async def test_what_the_record_does_wrong_costs_an_attempt(engine: AsyncEngine) -> None:
    """
    A row that is there already.
    """
    with pytest.raises(sa.exc.DBAPIError) as raised:
        async with engine.begin() as connection:
            await connection.execute(sa.text("INSERT INTO rows VALUES (1, 0)"))

    assert not costs_nothing(raised.value)
