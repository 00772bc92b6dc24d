"""The four handles that `Outbox.add` takes, and the execution on the caller's own connection."""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Generator, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session
from sqlalchemy.sql.dml import Insert

from outbox_relay.errors import AutocommitHandle, WriteError
from outbox_relay.outbox import guard
from outbox_relay.wake import Sender

SyncHandle: TypeAlias = Session | Connection | scoped_session[Any]
AsyncHandle: TypeAlias = AsyncSession | AsyncConnection | async_scoped_session[Any]

Rows: TypeAlias = dict[str, Any] | list[dict[str, Any]]
"""The parameters of one statement: one row, or several."""


def resolve(
    handle: SyncHandle | AsyncHandle,
) -> tuple[Session | Connection, AsyncSession | AsyncConnection | None]:
    """The sync session or connection that does the work, and the async handle around it if any."""
    if isinstance(handle, scoped_session | async_scoped_session):
        handle = handle.registry()
    if isinstance(handle, AsyncSession):
        return handle.sync_session, handle
    if isinstance(handle, AsyncConnection):
        if handle.sync_connection is None:
            raise WriteError("the AsyncConnection is not open: `async with engine.connect() as c`")
        return handle.sync_connection, handle
    if isinstance(handle, Session | Connection):
        return handle, None
    raise TypeError(
        f"outbox.add takes a Session, AsyncSession, Connection or AsyncConnection, not "
        f"{type(handle).__name__}: pass the one that wrote the state change"
    )


def refuse_declared_autocommit(handle: Session | Connection, statement: Insert, label: str) -> None:
    """Raise AutocommitHandle if that can be told without I/O. Executing looks again."""
    on = guard.connection_or_engine(handle, statement)
    is_usable = isinstance(on, Connection) and not on.closed and not on.invalidated
    if _declares_autocommit(on) or (
        is_usable
        and isinstance(on, Connection)
        and on.in_transaction()
        and _driver_autocommits(on)
        and not _driver_in_transaction(on)
    ):
        raise _autocommit_error(label)


def execute(
    handle: Session | Connection,
    statement: Insert,
    batches: Sequence[Rows],
    label: str,
    wake: Sender | None = None,
) -> None:
    """
    Execute *statement* for each of *batches*, on the connection that *handle* works on. *wake* is
    told when they are committed.

    If that fails, *handle* cannot commit before it has rolled back.
    """
    try:
        if isinstance(handle, Session):
            # Not session.execute: inside a flush it must neither flush again nor meet listeners.
            connection = handle.connection(bind_arguments={"clause": statement})
        else:
            connection = handle
        _refuse_autocommit(connection, label)
        for rows in batches:
            connection.execute(statement, rows)
        if wake is not None:
            guard.tell_after_commit(connection, wake)
    except WriteError:
        raise
    except BaseException:
        with suppress(SQLAlchemyError):  # a session bound to nothing: no statement was executed
            guard.note_failure(handle, statement, label)
        raise


class PendingAdd(Awaitable[None]):
    """An `add` on an async handle. Await it once; a commit before that raises AddNotAwaited."""

    __slots__ = ("_batches", "_handle", "_label", "_note", "_statement", "_wake")

    def __init__(
        self,
        handle: AsyncSession | AsyncConnection,
        sync: Session | Connection,
        statement: Insert,
        batches: Sequence[Rows],
        label: str,
        *,
        wake: Sender | None = None,
    ) -> None:
        self._handle = handle
        self._wake = wake
        self._statement = statement
        self._batches = batches
        self._label = label
        self._note: guard.Note | None = guard.expect_await(sync, statement, label)

    def __await__(self) -> Generator[Any, None, None]:
        note, self._note = self._note, None
        if note is None:
            raise RuntimeError(f"{self._label}: this outbox.add(...) was awaited already")
        guard.settle(note)
        return self._run().__await__()

    async def _run(self) -> None:
        await self._handle.run_sync(
            execute, self._statement, self._batches, self._label, self._wake
        )

    def __del__(self) -> None:
        if getattr(self, "_note", None) is not None:
            warnings.warn(
                f"{self._label}: outbox.add(...) was never awaited",
                RuntimeWarning,
                stacklevel=2,
                source=self,
            )


def _refuse_autocommit(connection: Connection, label: str) -> None:
    if _declares_autocommit(connection):
        raise _autocommit_error(label)
    if not _driver_autocommits(connection):
        return
    # The driver begins no transaction, but a listener may: SQLAlchemy's recipe for pysqlite sets
    # isolation_level=None and says BEGIN itself.
    begun = None if connection.in_transaction() else connection.begin()
    if not _driver_in_transaction(connection):
        if begun is not None:
            begun.rollback()
        raise _autocommit_error(label)


def _declares_autocommit(on: Connection | Engine) -> bool:
    level = on.get_execution_options().get("isolation_level")
    if level is None:
        level = getattr(on.dialect, "_on_connect_isolation_level", None)
    return isinstance(level, str) and level.upper() == "AUTOCOMMIT"


def _driver_autocommits(connection: Connection) -> bool:
    pooled = connection.connection
    detect = getattr(connection.dialect, "detect_autocommit_setting", None)
    if detect is not None:  # since SQLAlchemy 2.1
        try:
            return bool(detect(pooled.dbapi_connection))
        except NotImplementedError:
            return False
    if connection.dialect.name == "sqlite":
        return getattr(pooled.dbapi_connection, "isolation_level", "") is None
    get_autocommit = getattr(pooled.driver_connection, "get_autocommit", None)
    return bool(get_autocommit()) if callable(get_autocommit) else False


def _driver_in_transaction(connection: Connection) -> bool:
    return bool(getattr(connection.connection.driver_connection, "in_transaction", False))


def _autocommit_error(label: str) -> AutocommitHandle:
    return AutocommitHandle(
        f"{label}: the handle is in AUTOCOMMIT, so the state change and the event could part: "
        "use one with transactions"
    )
