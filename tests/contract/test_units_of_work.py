"""
Units of work on each database, through one pooled connection: what a unit leaves behind on it, the next
one finds.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.ext.asyncio import async_sessionmaker

import outbox_relay.cqrs as cqrs
from tests.contract.write_side import App, Changed, State

ON_MYSQL = pytest.mark.parametrize("app", ["mariadb", "mysql"], indirect=True)


@pytest.fixture
def units(app: App) -> cqrs.UnitOfWorkFactory:
    """Units of the application."""
    return cqrs.UnitOfWorkFactory(async_sessionmaker(app.async_engine), app.outbox)


async def write(unit: cqrs.UnitOfWork, tag: str) -> None:
    unit.session.add(State(tag=tag))
    await unit.add(Changed(tag=tag))


async def statements(app: App) -> dict[str, int]:
    """What the server has counted on the one connection. To ask it costs a ROLLBACK."""
    names = "'Com_commit', 'Com_rollback', 'Com_insert'"
    query = sa.text(f"SHOW SESSION STATUS WHERE Variable_name IN ({names})")
    async with app.async_engine.connect() as connection:
        return {name: int(value) for name, value in await connection.execute(query)}


async def used(app: App, work: Callable[[], Any]) -> dict[str, int]:
    before = await statements(app)
    await work()
    after = await statements(app)
    after["Com_rollback"] -= 1
    return {name.removeprefix("Com_"): after[name] - before[name] for name in after}


@ON_MYSQL
async def test_a_unit_that_commits_asks_for_no_rollback(
    app: App, units: cqrs.UnitOfWorkFactory
) -> None:
    """
    The server has said that nothing is open: one answer fewer to wait for.
    """

    async def work() -> None:
        async with units.begin() as unit:
            await write(unit, "a")

    assert await used(app, work) == {"insert": 2, "commit": 1, "rollback": 0}
    assert app.committed() == (["a"], ["a"])


@ON_MYSQL
async def test_a_unit_that_fails_is_rolled_back(app: App, units: cqrs.UnitOfWorkFactory) -> None:
    """
    I1. So that the next unit on the connection does not commit what it wrote.
    """

    async def work() -> None:
        with suppress(ZeroDivisionError):
            async with units.begin() as unit:
                await write(unit, "a")
                raise ZeroDivisionError

    seen = await used(app, work)
    assert (seen["insert"], seen["commit"]) == (2, 0)
    assert seen["rollback"] >= 1
    async with units.begin() as unit:
        await write(unit, "b")
    assert app.committed() == (["b"], ["b"])


@ON_MYSQL
async def test_a_savepoint_that_is_released_ends_nothing(
    app: App, units: cqrs.UnitOfWorkFactory
) -> None:
    """
    I1. Only what the transaction itself ends with counts.
    """

    async def work() -> None:
        with suppress(ZeroDivisionError):
            async with units.begin() as unit:
                async with unit.session.begin_nested():
                    await write(unit, "a")
                raise ZeroDivisionError

    assert (await used(app, work))["rollback"] >= 1
    assert app.committed() == ([], [])


def by_connection(connection: sa.Connection) -> None:
    connection.execute(sa.insert(State).values(tag="late"))


def by_cursor(connection: sa.Connection) -> None:
    connection.connection.cursor().execute("INSERT INTO state (tag) VALUES ('late')")


async def written_late(
    app: App, units: cqrs.UnitOfWorkFactory, late: Callable[[sa.Connection], None]
) -> None:
    async with units.begin() as unit:
        connection = (await unit.session.connection()).sync_connection
        assert connection is not None
        event.listen(unit.session.sync_session, "after_commit", lambda _: late(connection))
        await write(unit, "a")
    async with units.begin() as unit:
        await write(unit, "b")

    assert app.committed() == (["a", "b"], ["a", "b"])


async def test_what_a_listener_writes_after_the_commit_is_rolled_back(
    app: App, units: cqrs.UnitOfWorkFactory
) -> None:
    """
    I1. It leaves no transaction open, which the connection's next user would commit.
    """
    await written_late(app, units, by_connection)


@ON_MYSQL
async def test_a_cursor_that_writes_after_the_commit_is_rolled_back(
    app: App, units: cqrs.UnitOfWorkFactory
) -> None:
    """
    I1. As above, where SQLAlchemy does not see it.
    """
    await written_late(app, units, by_cursor)


async def test_a_session_on_a_connection_of_its_caller_leaves_it_open(app: App) -> None:
    """
    The connection goes on after the unit, in a transaction of its caller's.
    """
    async with app.async_engine.connect() as connection:
        sessions = async_sessionmaker(connection)
        async with cqrs.UnitOfWorkFactory(sessions, app.outbox).begin() as unit:
            await write(unit, "a")
        await connection.execute(sa.insert(State).values(tag="b"))
        await connection.rollback()

    assert app.committed() == (["a"], ["a"])
