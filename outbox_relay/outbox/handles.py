"""What `Outbox.add` does with its handle: the execution on the caller's own connection."""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Generator, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

from sqlalchemy.engine import Connection
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import Insert

from outbox_relay.errors import AutocommitHandle, WriteError
from outbox_relay.handles import (
    autocommits,
    declares_autocommit,
    driver_autocommits,
    driver_in_transaction,
)
from outbox_relay.outbox import guard
from outbox_relay.wake import Sender

Rows: TypeAlias = dict[str, Any] | list[dict[str, Any]]
"""The parameters of one statement: one row, or several."""


def refuse_declared_autocommit(
    handle: Session | Connection, statement: Insert, label: object
) -> None:
    """Raise AutocommitHandle if that can be told without I/O. Executing looks again."""
    on = guard.connection_or_engine(handle, statement)
    is_usable = isinstance(on, Connection) and not on.closed and not on.invalidated
    if declares_autocommit(on) or (
        is_usable
        and isinstance(on, Connection)
        and on.in_transaction()
        and driver_autocommits(on)
        and not driver_in_transaction(on)
    ):
        raise _autocommit_error(label)


def execute(
    handle: Session | Connection,
    statement: Insert,
    batches: Sequence[Rows],
    label: object,
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
        if autocommits(connection):
            raise _autocommit_error(label)
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
        label: object,
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


def _autocommit_error(label: object) -> AutocommitHandle:
    return AutocommitHandle(
        f"{label}: the handle is in AUTOCOMMIT, so the state change and the event could part: "
        "use one with transactions"
    )
