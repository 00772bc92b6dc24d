"""
`SqlAlchemyOutboxedEventRepository`: queued events and state changes share one fate.
"""

from __future__ import annotations

import asyncio
import gc

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, sessionmaker

from outbox_relay import (
    AutocommitHandle,
    ECSTEvent,
    MissingKey,
    Outbox,
    SqlAlchemyOutboxedEventRepository,
    WriteError,
    ZlibCompressor,
)
from outbox_relay.outbox import guard
from tests.contract.write_side import App, Changed, State


@pytest.fixture
def repository(app: App) -> SqlAlchemyOutboxedEventRepository:
    return SqlAlchemyOutboxedEventRepository(
        async_sessionmaker(app.async_engine, expire_on_commit=False), ZlibCompressor()
    )


def write(repository: SqlAlchemyOutboxedEventRepository, session: AsyncSession, tag: str) -> None:
    """One state change, not yet flushed, and its event, queued."""
    session.add(State(tag=tag))
    repository.add(session, Changed(tag=tag))


async def test_state_and_events_are_committed_together(app, repository):
    """
    I1. As the user's documents show it; the order is the order of the adds.
    """
    async with repository as session:
        write(repository, session, "a")
        write(repository, session, "b")
        await repository.commit(session)

    with app.observer.connect() as connection:
        keys = connection.scalars(
            sa.select(app.outbox.table.c.key).order_by(app.outbox.table.c.id)
        ).all()
    assert app.committed() == (["a", "b"], ["a", "b"])
    assert [bytes(key) for key in keys] == [b"a", b"b"]
    assert not guard._notes


async def test_a_session_may_commit_several_times(app, repository):
    """
    Each commit writes what was queued since; one without events is an ordinary commit.
    """
    async with repository as session:
        write(repository, session, "a")
        await repository.commit(session)
        session.add(State(tag="alone"))
        await repository.commit(session)
        write(repository, session, "b")
        await repository.commit(session)

    assert app.committed() == (["a", "alone", "b"], ["a", "b"])


@pytest.mark.parametrize("how", ["commit", "begin block", "connection"])
async def test_a_plain_commit_raises_and_commits_nothing(app, repository, how):
    """
    I1. The error names the event; the next user of the connection commits nothing of it.
    """

    async def commit_past_the_repository(session: AsyncSession) -> None:
        if how == "begin block":
            async with session.begin():
                write(repository, session, "lost")
            return
        write(repository, session, "lost")
        await session.flush()
        await (session if how == "commit" else await session.connection()).commit()

    async with repository as session:
        with pytest.raises(WriteError, match=r"state\.changed.*repository\.commit"):
            await commit_past_the_repository(session)
    async with repository as session:
        write(repository, session, "next")
        await repository.commit(session)

    assert app.committed() == (["next"], ["next"])


async def test_after_a_refused_commit_only_a_rollback_helps(app, repository):
    """
    And it drops what was queued.
    """
    async with repository as session:
        write(repository, session, "lost")
        for _ in range(2):
            with pytest.raises((WriteError, sa.exc.InvalidRequestError)):
                await session.commit()
        await repository.rollback(session)
        write(repository, session, "later")
        await repository.commit(session)

    assert app.committed() == (["later"], ["later"])


@pytest.mark.parametrize("flushed", [True, False])
async def test_a_rollback_drops_the_queue(app, repository, flushed):
    """
    The repository's, and the session's own; also when no statement was executed yet.
    """
    async with repository as session:
        for rollback in (repository.rollback(session), session.rollback()):
            write(repository, session, "undone")
            if flushed:
                await session.flush()
            await rollback
        await repository.commit(session)

    assert app.committed() == ([], [])
    assert not guard._notes


async def test_the_end_of_the_block_drops_what_was_not_committed(app, repository):
    """
    With an exception and without; a session that is forgotten takes its queue along.
    """
    async with repository as session:
        write(repository, session, "forgotten")
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the end of the block closes
        async with repository as session:
            write(repository, session, "failed")
            raise ZeroDivisionError
    del session
    gc.collect()

    assert app.committed() == ([], [])
    assert not guard._notes
    assert not repository._queues


async def test_a_savepoint_takes_its_events_along(app, repository):
    """
    Rolled back, they are dropped; released, they are written with the rest.
    """
    async with repository as session:
        write(repository, session, "outer")
        await session.flush()
        kept = await session.begin_nested()
        write(repository, session, "kept")
        await kept.commit()
        undone = await session.begin_nested()
        write(repository, session, "undone")
        await undone.rollback()
        await repository.commit(session)

    assert app.committed() == (["kept", "outer"], ["kept", "outer"])


async def test_the_state_is_written_before_the_events(app, repository):
    """
    I4. The locks of the state change are what keeps two transactions on one key in order.
    """
    statements: list[str] = []
    sa.event.listen(
        app.async_engine.sync_engine,
        "before_cursor_execute",
        lambda _c, _cur, statement, *_: statements.append(statement.split("(")[0].strip()),
    )
    async with repository as session:
        repository.add(session, Changed(tag="a"))
        repository.add(session, Changed(tag="b"))
        session.add(State(tag="a"))
        await repository.commit(session)

    inserts = [statement for statement in statements if statement.startswith("INSERT")]
    assert inserts == ["INSERT INTO state", "INSERT INTO outbox"]


async def test_a_failed_insert_commits_nothing(app, repository):
    """
    I1. The state change waits for its event.
    """
    async with repository as session:
        write(repository, session, "lost")
        await session.flush()
        app.outbox.table.drop(app.observer) if app.observer.dialect.name != "sqlite" else (
            await session.execute(sa.text("DROP TABLE outbox"))
        )
        with pytest.raises(sa.exc.DBAPIError):
            await repository.commit(session)
        with pytest.raises((WriteError, sa.exc.InvalidRequestError)):
            await session.commit()
        await repository.rollback(session)

    with app.observer.connect() as connection:
        assert connection.scalars(sa.select(State.tag)).all() == []


async def test_errors_come_at_the_add(repository):
    """
    As those of `Outbox.add`, with nothing queued.
    """
    async with repository as session:
        with pytest.raises(MissingKey):
            repository.add(session, {"a": 1}, name="n", topic="t")
        with pytest.raises(WriteError, match="itself has no fields"):
            repository.add(session, ECSTEvent(event_name="n", payload={}), topic="t", key=None)
        await session.commit()


async def test_autocommit_is_refused(app):
    """
    State and event could part.
    """
    engine = app.async_engine.execution_options(isolation_level="AUTOCOMMIT")
    repository = SqlAlchemyOutboxedEventRepository(async_sessionmaker(engine))
    async with repository as session:
        with pytest.raises(AutocommitHandle):
            repository.add(session, Changed(tag="a"))


async def test_one_repository_serves_many_tasks(app, repository):
    """
    Each `async with` has its own session and queue, also one within another.
    """

    async def work(tag: str, others: asyncio.Barrier) -> AsyncSession:
        async with repository as session:
            repository.add(session, Changed(tag=tag))
            await others.wait()
            async with repository as inner:
                assert inner is not session
                repository.add(inner, Changed(tag=f"{tag}-undone"))
            await repository.commit(session)
            return session

    barrier = asyncio.Barrier(3)
    sessions = await asyncio.gather(*(work(tag, barrier) for tag in "abc"))

    assert app.committed()[1] == ["a", "b", "c"]
    assert len(set(map(id, sessions))) == 3


async def test_an_outbox_of_its_own_brings_every_setting(app):
    """
    Source, table and limits are the outbox'; two compressors are one too many.
    """
    sessions = async_sessionmaker(app.async_engine)
    repository = SqlAlchemyOutboxedEventRepository(sessions, outbox=Outbox(source="/shop"))
    async with repository as session:
        repository.add(session, Changed(tag="a"), headers={"tenant": "blue"})
        await repository.commit(session)
    with app.observer.connect() as connection:
        headers = connection.scalar(sa.select(app.outbox.table.c.headers))

    assert headers == '{"ce_source":"/shop","tenant":"blue"}'
    with pytest.raises(TypeError, match="compressor or outbox"):
        SqlAlchemyOutboxedEventRepository(sessions, None, outbox=Outbox())


async def test_sync_sessions_are_refused(app):
    """
    With a word on what to pass.
    """
    repository = SqlAlchemyOutboxedEventRepository(sessionmaker(app.engine))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="async_sessionmaker"):
        async with repository:
            pass
    with pytest.raises(TypeError, match="AsyncSession"):
        repository.add(Session(app.engine), Changed(tag="a"))  # type: ignore[arg-type]
