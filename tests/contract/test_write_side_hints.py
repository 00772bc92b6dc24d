"""
Hints of the write side: one datagram after the outermost commit of events, and after nothing else.

A UNIX datagram is in the receiver's buffer when `sendto` returns, so nothing is waited for.
"""

from __future__ import annotations

import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session

from outbox_relay import AddNotAwaited, Outbox, SqlAlchemyOutboxedEventRepository
from outbox_relay.outbox import hints
from tests.contract.write_side import HANDLES, App, Changed, State, running_app, settled


class Receiver:
    """A relay's socket."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.setblocking(False)

    def taken(self) -> int:
        """How many hints came since the last call. Each is empty."""
        count = 0
        while True:
            try:
                assert self.socket.recv(10) == b""
            except BlockingIOError:
                return count
            count += 1


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with tempfile.TemporaryDirectory() as folder:
        receiver = Receiver(Path(folder) / "wake.sock")
        yield receiver
        receiver.socket.close()


@pytest.fixture
def app(app: App, receiver: Receiver) -> App:
    """With hints."""
    app.outbox = Outbox(wake=f"unix:{receiver.path}")
    return app


@pytest.fixture(params=HANDLES)
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


async def test_one_hint_follows_the_commit(app: App, kind: str, receiver: Receiver) -> None:
    """
    One for each transaction, however many events it wrote, and only once it has committed.
    """
    async with app.handle(kind) as handle:
        for _ in range(2):
            await app.write(handle, "a")
            await app.write(handle, "b")
            assert receiver.taken() == 0
            await settled(handle.commit())
            assert receiver.taken() == 1


async def test_the_row_is_committed_when_the_hint_comes(
    app: App, kind: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Whoever reads because of the hint finds the event.
    """
    found = []
    assert app.outbox._wake is not None
    monkeypatch.setattr(app.outbox._wake.__class__, "send", lambda _: found.append(app.committed()))
    async with app.handle(kind) as handle:
        await app.write(handle, "a")
        await settled(handle.commit())

    assert found == [(["a"], ["a"])]


async def test_without_events_or_commit_there_is_no_hint(
    app: App, kind: str, receiver: Receiver
) -> None:
    """
    Not after a rollback, a close, or the commit of a transaction that wrote no event.
    """
    async with app.handle(kind) as handle:
        await app.write(handle, "rolled-back")
        await settled(handle.rollback())
        await app.write_state(handle, "alone")
        await settled(handle.commit())
        await app.write(handle, "closed")
    async with app.handle(kind) as handle:
        await app.write_state(handle, "next")
        await settled(handle.commit())

    assert receiver.taken() == 0


@pytest.mark.parametrize("end", ["commit", "rollback"])
async def test_the_release_of_a_savepoint_sends_nothing(
    app: App, kind: str, receiver: Receiver, end: str
) -> None:
    """
    Only the outermost commit does, unless the SAVEPOINT took the events along.
    """
    async with app.handle(kind) as handle:
        await app.write_state(handle, "outer")
        outer = await settled(handle.begin_nested())
        inner = await settled(handle.begin_nested())
        await app.write(handle, "inner")
        await settled(inner.commit())
        await settled(getattr(outer, end)())
        assert receiver.taken() == 0
        await settled(handle.commit())

    assert receiver.taken() == (1 if end == "commit" else 0)


async def test_a_savepoint_that_is_rolled_back_takes_only_its_own(
    app: App, kind: str, receiver: Receiver
) -> None:
    """
    What was written before it is committed, and told.
    """
    async with app.handle(kind) as handle:
        await app.write(handle, "outer")
        nested = await settled(handle.begin_nested())
        await app.write(handle, "inner")
        await settled(nested.rollback())
        await settled(handle.commit())

    assert receiver.taken() == 1


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_session_on_a_connection_tells_at_its_owners_commit(
    app: App, receiver: Receiver, asynchronous: bool
) -> None:
    """
    The session's own commit commits nothing there.
    """
    async with app.handle("AsyncConnection" if asynchronous else "Connection") as connection:
        transaction = await settled(connection.begin())
        session = (AsyncSession if asynchronous else Session)(bind=connection)
        await app.write(session, "a")
        await settled(session.commit())
        await settled(session.close())
        assert receiver.taken() == 0
        await settled(transaction.commit())

    assert receiver.taken() == 1


async def test_the_commit_of_the_sessions_own_connection_tells(
    app: App, receiver: Receiver
) -> None:
    """
    `session.connection().commit()` passes the session by, but not the hint.
    """
    async with app.handle("Session") as session:
        await app.write(session, "a")
        session.connection().commit()

        assert receiver.taken() == 1


async def test_a_statement_of_insert_tells_too(app: App, kind: str, receiver: Receiver) -> None:
    """
    It learns its connection when it is executed, also after it was changed.
    """
    async with app.handle(kind) as handle:
        await settled(handle.execute(app.outbox.insert(Changed(tag="a"), Changed(tag="b"))))
        await settled(handle.execute(app.outbox.insert(Changed(tag="c")).prefix_with("/* c */")))
        assert receiver.taken() == 0
        await settled(handle.commit())
        assert receiver.taken() == 1
        await settled(handle.execute(app.outbox.insert(Changed(tag="d"))))
        await settled(handle.rollback())
        await app.write_state(handle, "alone")
        await settled(handle.commit())

    assert receiver.taken() == 0


async def test_the_repositorys_commit_tells(app: App, receiver: Receiver) -> None:
    """
    Its queue is written by `Outbox`, so it is told like any other.
    """
    repository = SqlAlchemyOutboxedEventRepository(
        async_sessionmaker(app.async_engine), outbox=app.outbox
    )
    async with repository as session:
        session.add(State(tag="a"))
        repository.add(session, Changed(tag="a"))
        await session.flush()
        assert receiver.taken() == 0
        await repository.commit(session)
        assert receiver.taken() == 1
        repository.add(session, Changed(tag="b"))
        await repository.rollback(session)

    assert receiver.taken() == 0


@pytest.mark.filterwarnings("ignore:.*never awaited:RuntimeWarning")
async def test_a_commit_that_raises_tells_nobody(app: App, receiver: Receiver) -> None:
    """
    Nor does the next commit on its pooled connection.
    """
    async with app.handle("AsyncConnection") as connection:
        await app.write(connection, "a")
        app.forget(connection, "b")
        with pytest.raises(AddNotAwaited):
            await connection.commit()
    async with app.handle("AsyncConnection") as connection:
        await app.write_state(connection, "next")
        await connection.commit()

    assert receiver.taken() == 0


async def test_a_hint_that_cannot_be_sent_fails_no_commit(
    app: App, kind: str, receiver: Receiver
) -> None:
    """
    No relay, a full buffer, no right, no such folder: the event is committed all the same.
    """
    refused = receiver.path.with_name("refused.sock")
    dead = Receiver(refused)
    dead.socket.close()
    full = Receiver(receiver.path.with_name("full.sock"))
    addresses = [f"unix:{refused}", f"unix:{full.path}", "unix:/no/such/folder/s"]
    addresses += ["udp:127.0.0.1:9", "udp:no-such-host.invalid:9"]
    for address in addresses:
        app.outbox = Outbox(wake=address)
        assert app.outbox._wake is not None
        for _ in range(2_000):  # more than the buffer of any system
            app.outbox._wake.send()
        async with app.handle(kind) as handle:
            await app.write(handle, "a")
            await settled(handle.commit())

    assert app.committed() == (["a"] * len(addresses), ["a"] * len(addresses))


async def test_threads_and_forked_processes_tell(app: App, receiver: Receiver) -> None:
    """
    A sender belongs to no thread, loop or process; here its socket is open before the fork.
    """
    sender = app.outbox._wake
    assert sender is not None
    sender.send()
    threads = [threading.Thread(target=sender.send) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    child = os.fork()
    if child == 0:
        sender.send()
        os._exit(0)
    os.waitpid(child, 0)

    assert receiver.taken() == 7


async def test_a_two_phase_commit_tells(mariadb_database: Any, receiver: Receiver) -> None:
    """
    At the second phase; after the first one nothing is committed.
    """
    async with running_app(mariadb_database) as app:
        app.outbox = Outbox(wake=f"unix:{receiver.path}")
        with app.engine.connect() as connection:
            transaction = connection.begin_twophase()
            await app.write(connection, "a")
            transaction.prepare()
            assert receiver.taken() == 0
            transaction.commit()

    assert receiver.taken() == 1


async def test_engines_with_options_share_one_wrapper(app: App, receiver: Receiver) -> None:
    """
    However many `execution_options()` make, a commit is told once and notes do not pile up.
    """
    for _ in range(3):
        engine = app.engine.execution_options(color="blue")
        with engine.begin() as connection:
            app.outbox.add(connection, Changed(tag="a"))
        assert receiver.taken() == 1

    with app.engine.connect() as connection:
        assert hints._NOTES not in connection.info
        assert connection.scalar(sa.select(sa.func.count()).select_from(app.outbox.table)) == 3
