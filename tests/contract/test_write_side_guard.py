"""
An add that is never awaited: the commit raises, and neither the event nor the state is there.
"""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session

from outbox_relay import AddNotAwaited, AutocommitHandle, NotificationEvent, Outbox
from outbox_relay.outbox import guard
from tests.contract.write_side import App, Changed, settled

pytestmark = pytest.mark.filterwarnings("ignore:.*never awaited:RuntimeWarning")


@pytest.fixture(params=["AsyncSession", "AsyncConnection"])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


async def commit_of_the_next_user(app: App) -> None:
    """Another user of the one pooled connection writes and commits."""
    async with app.handle("AsyncConnection") as connection:
        await app.write(connection, "next")
        await connection.commit()


async def test_the_commit_raises_and_nothing_is_committed(app: App, kind: str) -> None:
    """
    The error names the event; the next user of the connection commits nothing of it.
    """
    async with app.handle(kind) as handle:
        await app.write_state(handle, "lone")
        app.forget(handle, "lone")
        with pytest.raises(AddNotAwaited, match=r"state\.changed.*await outbox\.add"):
            await handle.commit()
    await commit_of_the_next_user(app)

    assert app.committed() == (["next"], ["next"])


async def test_a_second_commit_after_the_error_commits_nothing(app: App, kind: str) -> None:
    """
    Swallowing the error does not help: only a rollback makes the handle usable again.
    """
    async with app.handle(kind) as handle:
        await app.write_state(handle, "lone")
        app.forget(handle, "lone")
        with pytest.raises(AddNotAwaited):
            await handle.commit()
        with pytest.raises((AddNotAwaited, sa.exc.InvalidRequestError)):
            await handle.commit()
        await handle.rollback()
        await app.write(handle, "later")
        await handle.commit()

    assert app.committed() == (["later"], ["later"])


async def test_a_transaction_block_that_forgets_is_rolled_back(app: App, kind: str) -> None:
    """
    `async with handle.begin()` raises at its end and rolls back.
    """
    async with app.handle(kind) as handle:
        with pytest.raises(AddNotAwaited):  # noqa: PT012 - the end of the block raises
            async with handle.begin():
                await app.write_state(handle, "lone")
                app.forget(handle, "lone")
        await app.write(handle, "later")
        await handle.commit()
    await commit_of_the_next_user(app)

    assert app.committed() == (["later", "next"], ["later", "next"])


async def test_after_a_rollback_nothing_is_raised(app: App, kind: str) -> None:
    """
    Both are gone together, so there is nothing to complain about.
    """
    async with app.handle(kind) as handle:
        await app.write_state(handle, "lone")
        app.forget(handle, "lone")
        await handle.rollback()
        await app.write(handle, "later")
        await handle.commit()

    assert app.committed() == (["later"], ["later"])


async def test_a_savepoints_rollback_takes_the_complaint_along(app: App, kind: str) -> None:
    """
    Forgotten within a SAVEPOINT, or one released into it, that is rolled back: no complaint.
    """
    async with app.handle(kind) as handle:
        await app.write(handle, "outer")
        savepoint = await handle.begin_nested()
        inner = await handle.begin_nested()
        await app.write_state(handle, "lone")
        app.forget(handle, "lone")
        await inner.commit()
        await savepoint.rollback()
        await handle.commit()

    assert app.committed() == (["outer"], ["outer"])


async def test_a_released_savepoint_keeps_the_complaint(app: App, kind: str) -> None:
    """
    Releasing raises nothing, a sibling's rollback changes nothing, and the commit raises.
    """
    async with app.handle(kind) as handle:
        savepoint = await handle.begin_nested()
        await app.write_state(handle, "lone")
        app.forget(handle, "lone")
        await savepoint.commit()
        sibling = await handle.begin_nested()
        await app.write(handle, "sibling")
        await sibling.rollback()
        with pytest.raises(AddNotAwaited):
            await handle.commit()
    await commit_of_the_next_user(app)

    assert app.committed() == (["next"], ["next"])


async def test_the_sessions_own_connection_cannot_commit_either(app: App) -> None:
    """
    session.connection().commit() goes round before_commit; the connection's own guard raises.
    """
    async with app.handle("AsyncSession") as session:
        await app.write_state(session, "lone")
        app.forget(session, "lone")
        connection = await session.connection()
        with pytest.raises(AddNotAwaited):
            await connection.commit()
    await commit_of_the_next_user(app)

    assert app.committed() == (["next"], ["next"])


@pytest.mark.parametrize("ending", ["commit", "close", "neither"])
async def test_the_owner_of_a_sessions_connection_cannot_commit(app: App, ending: str) -> None:
    """
    The session is bound to a connection. However it ends, the owner's commit raises.
    """
    async with app.handle("AsyncConnection") as connection:
        await connection.begin()
        session = AsyncSession(connection)
        await app.write_state(session, "lone")
        app.forget(session, "lone")
        if ending == "commit":
            with pytest.raises(AddNotAwaited):
                await session.commit()
        if ending == "close":
            await session.close()
        with pytest.raises(AddNotAwaited):
            await connection.commit()
        await session.close()
    await commit_of_the_next_user(app)

    assert app.committed() == (["next"], ["next"])


async def test_an_unfinished_transaction_of_another_user_is_not_disturbed(app: App) -> None:
    """
    A complaint about one handle never touches another one's commit.
    """
    other_engine = create_async_engine(app.database.async_url)
    async with app.handle("AsyncSession") as session, other_engine.connect() as other:
        app.forget(session, "lone")
        await app.write(other, "other")
        await other.commit()
        with pytest.raises(AddNotAwaited):
            await session.commit()
    await other_engine.dispose()

    assert app.committed() == (["other"], ["other"])


async def test_close_before_the_commit_forgets_the_complaint(app: App, kind: str) -> None:
    """
    close() drops the transaction, and the next one is free of its complaint.
    """
    async with app.handle(kind) as handle:
        await app.write_state(handle, "lone")
        app.forget(handle, "lone")
    async with app.handle(kind) as handle:
        await app.write(handle, "later")
        await handle.commit()

    assert app.committed() == (["later"], ["later"])


async def test_awaited_later_is_as_good(app: App, kind: str) -> None:
    """
    gather() and wait_for() await the add for the caller.
    """
    async with app.handle(kind) as handle:
        await app.write_state(handle, "a")
        pending = app.outbox.add(handle, Changed(tag="a"))
        await asyncio.wait_for(pending, timeout=30)
        await handle.commit()
        with pytest.raises(RuntimeError, match="awaited already"):
            await pending

    assert app.committed() == (["a"], ["a"])


async def test_awaited_after_the_rollback_is_refused(app: App, kind: str) -> None:
    """
    The state change is gone; its event must not slip into the next transaction.
    """
    async with app.handle(kind) as handle:
        await app.write_state(handle, "gone")
        pending = app.outbox.add(handle, Changed(tag="gone"))
        await handle.rollback()
        with pytest.raises(AddNotAwaited, match="after its transaction had ended"):
            await pending
        await app.write(handle, "later")
        await handle.commit()

    assert app.committed() == (["later"], ["later"])


async def test_a_cancelled_add_cannot_be_committed_around(app: App, kind: str) -> None:
    """
    An add that is cancelled in mid-flight has failed: the commit raises or finds no transaction.
    """
    async with app.handle(kind) as handle:
        await app.write_state(handle, "lone")
        task = asyncio.ensure_future(app.outbox.add(handle, Changed(tag="lone")))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(Exception, match=r"."):
            await handle.commit()

    assert app.committed() == ([], [])


async def test_nothing_is_kept_of_a_handle_that_is_gone(app: App) -> None:
    """
    Complaints die with their session, so that a process that forgets for ever does not grow.
    """
    for number in range(10):
        session = async_sessionmaker(app.async_engine)()
        app.forget(session, str(number))
        del session
    gc.collect()

    assert len(guard._notes) == 0


async def test_a_dropped_add_warns_at_its_own_line(app: App) -> None:
    """
    As a coroutine does, so that the mistake shows even where nobody commits.
    """
    async with app.handle("AsyncSession") as session:
        with pytest.warns(RuntimeWarning, match=r"state\.changed.*never awaited") as caught:
            app.outbox.add(session, Changed(tag="lone"))

    assert caught[0].filename == __file__


class Anonymous(NotificationEvent, topic="states"):
    """Says nothing of a key."""


@pytest.mark.parametrize("how", ["engine", "engine option", "connection option", "driver"])
@pytest.mark.parametrize("kind", ["AsyncSession", "AsyncConnection", "Session", "Connection"])
async def test_autocommit_is_refused(app: App, kind: str, how: str) -> None:
    """
    However AUTOCOMMIT was switched on, the add raises, names the event and writes nothing.
    """
    is_sqlite = app.database.sync_url.startswith("sqlite")
    options: dict[str, Any] = {"engine": {"isolation_level": "AUTOCOMMIT"}}.get(how, {})
    if how == "driver":
        if app.database.async_url.startswith("postgresql") and kind.startswith("Async"):
            return  # asyncpg has no such switch
        driver = {"isolation_level": None} if is_sqlite else {"autocommit": True}
        options = {"connect_args": driver}
    url = app.database.async_url if kind.startswith("Async") else app.database.sync_url
    engine: Any = (create_async_engine if kind.startswith("Async") else sa.create_engine)(
        url, **options
    )
    root = engine
    if how == "engine option":
        engine = engine.execution_options(isolation_level="AUTOCOMMIT")
    session_class: Any = AsyncSession if kind.startswith("Async") else Session
    handle = session_class(engine) if kind.endswith("Session") else engine.connect()
    if kind == "AsyncConnection":
        await handle.start()
    if how == "connection option":
        option = {"isolation_level": "AUTOCOMMIT"}
        if kind.endswith("Session"):
            await settled(handle.connection(execution_options=option))
        else:
            await settled(handle.execution_options(**option))

    with pytest.raises(AutocommitHandle, match=r"state\.changed"):
        await settled(app.outbox.add(handle, Changed(tag="refused")))

    await settled(handle.close())
    await settled(root.dispose())

    assert app.committed() == ([], [])


async def test_errors_come_at_the_call(app: App) -> None:
    """
    On async handles too, before the await: nothing is pending and the transaction is as it was.
    """
    async with app.handle("AsyncSession") as session:
        await app.write(session, "good")
        with pytest.raises(ValueError, match=r"Anonymous.*key=None"):
            app.outbox.add(session, Anonymous())
        await session.commit()

    assert app.committed() == (["good"], ["good"])


async def test_plain_sqlite_without_savepoints_needs_no_recipe(
    sqlite_database: Any,
) -> None:
    """
    The driver's own transactions begin with the first INSERT, which is early enough.
    """
    engine = create_async_engine(sqlite_database.async_url)
    outbox = Outbox()
    async with engine.begin() as connection:
        await connection.run_sync(outbox.table.metadata.create_all)
    async with AsyncSession(engine) as session:
        await outbox.add(session, Changed(tag="a"))
        await session.rollback()
        await outbox.add(session, Changed(tag="b"))
        await session.commit()
    async with engine.connect() as connection:
        keys = (await connection.scalars(sa.select(outbox.table.c.key))).all()
    await engine.dispose()

    assert keys == [b"b"]
