"""
I1 on the write side: an event and its state change share one fate, on every handle.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from outbox_relay import Outbox, WriteError
from tests.contract.write_side import HANDLES, App, Changed, State, running_app, settled


@pytest.fixture(params=HANDLES)
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


async def test_commit_keeps_both_and_rollback_neither(app: App, kind: str) -> None:
    """
    Two transactions on one handle: the first is rolled back, the second committed.
    """
    async with app.handle(kind) as handle:
        await app.write(handle, "rolled-back")
        await settled(handle.rollback())
        await app.write(handle, "committed")
        await settled(handle.commit())

    assert app.committed() == (["committed"], ["committed"])


async def test_each_transaction_of_a_handle_has_its_own_fate(app: App, kind: str) -> None:
    """
    Commits and rollbacks alternate on one handle; each takes exactly what was written since.
    """
    async with app.handle(kind) as handle:
        for number in range(6):
            await app.write(handle, f"{number}")
            await settled(handle.rollback() if number % 2 else handle.commit())

    assert app.committed() == (["0", "2", "4"], ["0", "2", "4"])


async def test_close_drops_both_and_the_next_user_keeps_its_own(app: App, kind: str) -> None:
    """
    A handle closed in mid-transaction leaves nothing for the next user of its pooled connection.
    """
    async with app.handle(kind) as handle:
        await app.write(handle, "closed")
    async with app.handle(kind) as handle:
        await app.write(handle, "next")
        await settled(handle.commit())

    assert app.committed() == (["next"], ["next"])


@pytest.mark.parametrize("kind", ["AsyncSession", "Session"])
async def test_a_closed_session_can_be_used_again(app: App, kind: str) -> None:
    """
    close() drops what was written; the same session then commits only what came later.
    """
    async with app.handle(kind) as session:
        await app.write(session, "closed")
        await settled(session.close())
        await app.write(session, "reused")
        await settled(session.commit())

    assert app.committed() == (["reused"], ["reused"])


def scripts() -> Iterator[tuple[str, ...]]:
    """Every way to release or roll back 1 to 3 SAVEPOINTs within each other, then two in a row."""
    for depth in (1, 2, 3):
        for ends in product(("release", "rollback"), repeat=depth):
            opening = ("write", "savepoint") * depth + ("write",)
            closing = tuple(step for end in ends for step in (end, "write"))
            yield opening + closing
    for first, second in product(("release", "rollback"), repeat=2):
        yield ("savepoint", "write", first, "savepoint", "write", second)


@pytest.mark.parametrize("end", ["commit", "rollback", "close"])
async def test_savepoints_in_all_nestings(app: App, kind: str, end: str) -> None:
    """
    What a SAVEPOINT's rollback takes back, it takes back of both; what is released stays with both.
    """
    expected: list[str] = []
    for number, script in enumerate(scripts()):
        kept: list[list[str]] = [[]]
        savepoints: list[Any] = []
        async with app.handle(kind) as handle:
            for place, step in enumerate(script):
                if step == "write":
                    tag = f"{number:02}-{place:02}"
                    await app.write(handle, tag)
                    kept[-1].append(tag)
                elif step == "savepoint":
                    savepoints.append(await settled(handle.begin_nested()))
                    kept.append([])
                else:
                    savepoint, inner = savepoints.pop(), kept.pop()
                    ending = savepoint.commit if step == "release" else savepoint.rollback
                    await settled(ending())
                    kept[-1] += inner if step == "release" else []
            await settled(getattr(handle, end)())
        expected += kept[0] if end == "commit" else []

    assert app.committed() == (sorted(expected), sorted(expected))


async def test_a_failed_insert_and_another_commit_keep_neither(app: App, kind: str) -> None:
    """
    Whoever swallows the error of an INSERT and commits gets an error, not a lone state change.
    """
    missing = Outbox(table="no_such_table")
    async with app.handle(kind) as handle:
        await app.write_state(handle, "lone")
        with pytest.raises(sa.exc.DBAPIError):
            await settled(missing.add(handle, Changed(tag="lone")))
        with pytest.raises(WriteError, match=r"state\.changed.*INSERT failed"):
            await settled(handle.commit())
        await settled(handle.rollback())
        await app.write(handle, "later")
        await settled(handle.commit())

    assert app.committed() == (["later"], ["later"])


async def test_a_failed_insert_in_a_savepoint_can_be_rolled_back_alone(app: App, kind: str) -> None:
    """
    A SAVEPOINT around the failure takes it away, and the transaction goes on.
    """
    missing = Outbox(table="no_such_table")
    async with app.handle(kind) as handle:
        await app.write(handle, "before")
        savepoint = await settled(handle.begin_nested())
        await app.write_state(handle, "inside")
        with pytest.raises(sa.exc.DBAPIError):
            await settled(missing.add(handle, Changed(tag="inside")))
        await settled(savepoint.rollback())
        await settled(handle.commit())

    assert app.committed() == (["before"], ["before"])


@pytest.mark.parametrize("kind", ["AsyncSession", "Session"])
async def test_commit_of_the_sessions_own_connection(app: App, kind: str) -> None:
    """
    session.connection().commit() goes round the session's hooks, and still takes both or neither.
    """
    async with app.handle(kind) as session:
        await app.write(session, "committed")
        connection = await settled(session.connection())
        await settled(connection.commit())
        await settled(session.close())
        await app.write(session, "dropped")
        connection = await settled(session.connection())
        await settled(connection.rollback())

    assert app.committed() == (["committed"], ["committed"])


@pytest.mark.parametrize("mode", ["conditional_savepoint", "create_savepoint", "control_fully"])
@pytest.mark.parametrize("ending", ["commit", "rollback"])
@pytest.mark.parametrize(
    ("kind", "make"), [("AsyncConnection", AsyncSession), ("Connection", Session)]
)
async def test_a_session_on_a_connection_whose_owner_ends_the_transaction(
    app: App, kind: str, make: Any, ending: str, mode: Any
) -> None:
    """
    The session commits or only closes, its owner decides: both are there or neither is.
    """
    async with app.handle(kind) as connection:
        await settled(connection.begin())
        session = make(connection, join_transaction_mode=mode)
        await app.write(session, "joined")
        await settled(session.commit())
        if connection.in_transaction():
            await settled(getattr(connection, ending)())
        await settled(session.close())

    states, events = app.committed()

    assert states == events
    if mode != "control_fully":
        assert states == (["joined"] if ending == "commit" else [])


LISTENERS = ["before_flush", "after_flush", "after_flush_postexec", "before_commit"]


@pytest.mark.parametrize("kind", ["AsyncSession", "Session"])
@pytest.mark.parametrize("hook", LISTENERS)
@pytest.mark.parametrize("end", ["commit", "rollback", "close"])
async def test_events_from_the_sessions_listeners(app: App, kind: str, hook: str, end: str) -> None:
    """
    A listener that raises events for what the session writes: they share the flush's fate.
    """
    async with app.handle(kind) as session:
        sync: Session = getattr(session, "sync_session", session)
        pending = ["a", "b"]

        def raise_events(session: Session, *context: Any) -> None:
            while pending:
                app.outbox.add(session, Changed(tag=pending.pop()))

        event.listen(sync, hook, raise_events)
        session.add_all([State(tag="a"), State(tag="b")])
        if hook != "before_commit":
            await settled(session.flush())
        await settled(getattr(session, end)())

    expected = ["a", "b"] if end == "commit" else []

    assert app.committed() == (expected, expected)


@pytest.mark.parametrize("kind", ["AsyncSession", "Session"])
@pytest.mark.parametrize("end", ["commit", "rollback"])
async def test_events_from_a_mappers_listener(app: App, kind: str, end: str) -> None:
    """
    A mapper's after_insert gets the connection of the flush, which is a handle as good as any.
    """

    def raise_event(mapper: Any, connection: sa.Connection, state: State) -> None:
        app.outbox.add(connection, Changed(tag=state.tag))

    event.listen(State, "after_insert", raise_event)
    try:
        async with app.handle(kind) as session:
            session.add(State(tag="a"))
            await settled(session.flush())
            await settled(getattr(session, end)())
    finally:
        event.remove(State, "after_insert", raise_event)

    expected = ["a"] if end == "commit" else []

    assert app.committed() == (expected, expected)


async def test_a_listener_after_the_commit_writes_nothing(app: App) -> None:
    """
    after_commit is too late: SQLAlchemy refuses the session there, and no event is half written.
    """
    with Session(app.engine) as session:
        event.listen(
            session, "after_commit", lambda s: app.outbox.add(s, Changed(tag="late")), once=True
        )
        session.add(State(tag="on-time"))
        app.outbox.add(session, Changed(tag="on-time"))
        with pytest.raises(sa.exc.InvalidRequestError):
            session.commit()

    assert app.committed() == (["on-time"], ["on-time"])


async def test_add_flushes_nothing(app: App) -> None:
    """
    The caller's pending objects stay pending: when to flush is the caller's to say.
    """
    with Session(app.engine) as session:
        pending = State(tag="pending")
        session.add(pending)
        app.outbox.add(session, Changed(tag="pending"))

        assert pending in session.new


async def test_a_session_with_binds_finds_the_outbox(app: App) -> None:
    """
    A session without a default engine reaches the outbox through its binds.
    """
    with Session(binds={State: app.engine, app.outbox.table: app.engine}) as session:
        session.add(State(tag="bound"))
        app.outbox.add(session, Changed(tag="bound"))
        session.commit()

    assert app.committed() == (["bound"], ["bound"])


async def test_a_scoped_session_is_a_handle(app: App) -> None:
    """
    scoped_session stands for the session that it hands out.
    """
    registry = scoped_session(sessionmaker(app.engine))
    await app.write(registry, "scoped")
    registry.commit()
    registry.remove()

    assert app.committed() == (["scoped"], ["scoped"])


async def test_an_async_scoped_session_is_a_handle(app: App) -> None:
    """
    async_scoped_session stands for the session that it hands out, and is awaited like it.
    """
    registry = async_scoped_session(async_sessionmaker(app.async_engine), asyncio.current_task)
    await app.write(registry, "scoped")
    await registry.commit()
    await registry.remove()

    assert app.committed() == (["scoped"], ["scoped"])


@pytest.mark.parametrize("how", ["prepare", "commit"])
@pytest.mark.parametrize("server", ["mariadb", "mysql", "postgresql"])
async def test_a_failed_insert_in_a_two_phase_transaction(
    request: pytest.FixtureRequest, server: str, how: str
) -> None:
    """
    XA goes another way to its commit, and is stopped there all the same.
    """
    async with running_app(request.getfixturevalue(f"{server}_database")) as app:
        with app.engine.connect() as connection:
            transaction = connection.begin_twophase()
            await app.write_state(connection, "lone")
            with pytest.raises(sa.exc.DBAPIError):
                Outbox(table="no_such_table").add(connection, Changed(tag="lone"))
            with pytest.raises(WriteError, match="INSERT failed"):
                getattr(transaction, how)()
        with app.engine.connect() as connection:
            await app.write(connection, "next")
            connection.commit()
        with request.getfixturevalue(server).root_connection() as root, root.cursor() as cursor:
            # MySQL shows it to administrators only.
            look = "SELECT * FROM pg_prepared_xacts" if server == "postgresql" else "XA RECOVER"
            cursor.execute(look)
            in_doubt = list(cursor.fetchall())

        assert app.committed() == (["next"], ["next"])
        assert in_doubt == []


async def test_insert_works_on_every_handle(app: App, kind: str) -> None:
    """
    The statement of `insert` is an ordinary one: ids follow the order of the arguments.
    """
    async with app.handle(kind) as handle:
        await settled(handle.execute(app.outbox.insert(*[Changed(tag=t) for t in "cab"])))
        await settled(handle.execute(app.outbox.insert(Changed(tag="d"))))
        await settled(handle.commit())

    with app.observer.connect() as connection:
        table = app.outbox.table
        keys = connection.scalars(sa.select(table.c.key).order_by(table.c.id)).all()

    assert [bytes(key) for key in keys] == [b"c", b"a", b"b", b"d"]


async def test_a_split_add_keeps_the_order_and_every_byte(app: App, kind: str) -> None:
    """
    Several statements hold the rows in order; quotes, percent signs and NULs arrive as they were.
    """
    outbox = Outbox(max_statement_bytes=2_000, compressor=None, source="/tests/'%s\\")
    payloads = [b"%s '\"\\ \x00\xff%%(a)s " * 20 + b"%d" % number for number in range(20)]
    async with app.handle(kind) as handle:
        await settled(outbox.add(handle, *payloads, name="raw %s", topic="raw", key=b"\x00%s'"))
        await settled(handle.commit())

    with app.observer.connect() as connection:
        table = outbox.table
        rows = connection.execute(sa.select(table).order_by(table.c.id)).all()

    assert [bytes(row.payload) for row in rows] == payloads
    assert {bytes(row.key) for row in rows} == {b"\x00%s'"}
    assert {(row.event_name, row.headers) for row in rows} == {
        ("raw %s", '{"ce_source":"/tests/\'%s\\\\"}')
    }
