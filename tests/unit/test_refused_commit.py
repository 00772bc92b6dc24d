"""
A COMMIT that the database refuses: the transaction is over, and never comes true later.

SQLite keeps a transaction open whose COMMIT it refused (a deferred constraint, a lock), and SQLAlchemy
gives its connection back to the pool as it is unless the session is rolled back: the next user's
COMMIT would then commit both.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine

from outbox_relay import SqlAlchemyOutboxedEventRepository
from outbox_relay.cqrs import UnitOfWorkFactory
from outbox_relay.schema import tables

ORDER = sa.text("INSERT INTO orders (customer) VALUES (7)")
EVENT = {"name": "order.placed", "topic": "orders", "key": None}


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    """A database that refuses, at the COMMIT, an order of a customer whom it does not know."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'shop.db'}", pool_size=1)
    sa.event.listen(
        engine.sync_engine, "connect", lambda raw, _: raw.execute("PRAGMA foreign_keys=ON")
    )
    async with engine.begin() as connection:
        await connection.run_sync(tables().metadata.create_all)
        await connection.execute(sa.text("CREATE TABLE customers (id INTEGER PRIMARY KEY)"))
        await connection.execute(
            sa.text(
                "CREATE TABLE orders (customer INTEGER REFERENCES customers (id)"
                " DEFERRABLE INITIALLY DEFERRED)"
            )
        )
    yield engine
    await engine.dispose()


async def test_a_unit_of_work_that_is_refused_is_rolled_back(engine: AsyncEngine) -> None:
    """
    I1. What the caller was told has failed is in no later commit.
    """
    units = UnitOfWorkFactory(async_sessionmaker(engine))
    called = []

    async def order() -> None:
        async with units.begin() as unit:
            await unit.session.execute(ORDER)
            await unit.add({}, **EVENT)
            unit.after_commit(lambda: called.append("committed"))

    with pytest.raises(IntegrityError):
        await order()

    assert (await _after_another_commit(engine), called) == ((0, 0), [])


async def test_a_repository_that_is_refused_is_rolled_back(engine: AsyncEngine) -> None:
    """
    I1. As the unit of work.
    """
    repository = SqlAlchemyOutboxedEventRepository(async_sessionmaker(engine))

    async def order() -> None:
        async with repository as session:
            await session.execute(ORDER)
            repository.add(session, {}, **EVENT)
            await repository.commit(session)

    with pytest.raises(IntegrityError):
        await order()

    assert await _after_another_commit(engine) == (0, 0)


async def _after_another_commit(engine: AsyncEngine) -> tuple[int, int]:
    """How many orders and events there are, once somebody has committed what would allow them."""
    async with async_sessionmaker(engine).begin() as session:
        await session.execute(sa.text("INSERT INTO customers VALUES (7)"))
    async with engine.connect() as connection:
        orders = await connection.scalar(sa.text("SELECT COUNT(*) FROM orders"))
        events = await connection.scalar(sa.text("SELECT COUNT(*) FROM outbox"))
    return orders or 0, events or 0
