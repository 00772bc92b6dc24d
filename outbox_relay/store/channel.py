"""
A connection of its own for one kind of work.

Marks must not wait behind a read, nor a renewal behind either. After any error the connection is
thrown away: a statement that was cut off leaves it in a state that nobody knows, and a read-only
ex-primary would go on to answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from outbox_relay.errors import CredentialsError, ServerReadOnly, StoreUnavailable
from outbox_relay.relay.known import Known, Meaning
from outbox_relay.store import known_errors
from outbox_relay.store.dialect import numbered
from outbox_relay.store.login import hint, said

CLOSE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Answer:
    """Rows of a SELECT; for other statements how many rows matched."""

    rows: Sequence[Any]
    matched: int


class MissingTable(StoreUnavailable):
    """A table or column is not there (yet)."""

    ends_term = True


_ONLY_READS = (1290, 1792, 1836, "25006")


def _what_ends_the_term(row: Known) -> str:
    """What is in the way: a server that only reads, or a table that is not as it was."""
    if row.code in _ONLY_READS:
        return "the server only reads: name the primary"
    return f"{row.why}; `outbox-relay doctor` says what is missing"


def describe(error: BaseException) -> str:
    """What the driver said, without the statement and its parameters: they may hold payloads."""
    if isinstance(error, TimeoutError):
        return "the database did not answer in time"
    original = getattr(error, "orig", None) or error
    return f"{said(original)[:500]}{hint(original)}"


def _cancellations() -> int:
    """How often the current task was asked to end."""
    task = asyncio.current_task()
    return task.cancelling() if task else 0


class Channel:
    """One connection, opened when needed and again after an error. One statement at a time."""

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        session: Sequence[str],
        timeout_seconds: float,
        connect_timeout_seconds: float,
        no_such_table: Sequence[int | str],
        on_connect: Callable[[AsyncConnection], Awaitable[None]],
        on_read_only: Callable[[], None] = lambda: None,
        on_unexpected: Callable[[str], None] = lambda _: None,
        on_lost: Callable[[str], None] = lambda _: None,
        each_in_transaction: bool = False,
    ) -> None:
        self._engine = engine
        self._session = session
        self._timeout_seconds = timeout_seconds
        self._connect_timeout_seconds = connect_timeout_seconds
        self._no_such_table = no_such_table
        self._on_connect = on_connect
        self._on_read_only = on_read_only
        self._on_unexpected = on_unexpected
        self._on_lost = on_lost
        self._let_go = False
        self._each_in_transaction = each_in_transaction
        self._connection: AsyncConnection | None = None
        self._lock = asyncio.Lock()

    def is_busy(self) -> bool:
        """Whether a statement is under way."""
        return self._lock.locked()

    async def execute(self, sql: str, parameters: tuple[Any, ...] = ()) -> Answer:
        """
        Run one statement, committed at once.

        Raises StoreUnavailable, and MissingTable, after which the next call connects anew.
        """
        cancellations = _cancellations()
        async with self._lock:
            if self._let_go:
                await self._drop()
            try:
                connection = self._connection or await self._connect()
                async with asyncio.timeout(self._timeout_seconds):
                    answer = await self._run(connection, sql, parameters)
                if _cancellations() > cancellations:
                    # A driver that waits with asyncio.wait_for loses a cancellation that arrives
                    # together with the answer (Python 3.11). Our task would go on for ever.
                    raise asyncio.CancelledError
                return answer
            except StoreUnavailable as error:
                await self._lose(error)
                raise
            except CredentialsError as error:
                await self._lose(error)
                raise StoreUnavailable(str(error)) from error
            except Exception as error:
                # Whatever it is: a driver raises what it likes, and no event is the worse for it.
                await self._lose(error)
                raise self._unavailable(error) from error
            except BaseException:
                # Cancelled in the middle: the answer is still under way on this connection.
                await self._drop()
                raise

    def _unavailable(self, error: Exception) -> StoreUnavailable:
        """What *error* means, by the table of `known_errors`."""
        if self._is_missing_table(error):
            return MissingTable(describe(error))
        row = known_errors.known(error)
        if row is not None and row.meaning is Meaning.NEW_TERM:
            self._on_read_only()
            return ServerReadOnly(f"{describe(error)}: {_what_ends_the_term(row)}")
        word = known_errors.unexpected(error)
        if word is not None:
            self._on_unexpected(word)
        return StoreUnavailable(describe(error))

    async def _run(
        self, connection: AsyncConnection, sql: str, parameters: tuple[Any, ...]
    ) -> Answer:
        if not self._each_in_transaction:
            return await self._run_alone(connection, sql, parameters)
        async with connection.begin():
            # The pooler may have gone over to another server.
            await self._on_connect(connection)
            return await self._run_alone(connection, sql, parameters)

    @staticmethod
    async def _run_alone(
        connection: AsyncConnection, sql: str, parameters: tuple[Any, ...]
    ) -> Answer:
        if parameters:
            sql = numbered(sql)
        result = await connection.exec_driver_sql(sql, parameters)
        if not result.returns_rows:
            return Answer((), result.rowcount)
        # The driver's own tuples: SQLAlchemy's rows would cost half as much again as the read, and
        # nothing here has a type of SQLAlchemy's to convert.
        rows = result.cursor.fetchall()
        result.close()
        return Answer(rows, 0)

    async def _connect(self) -> AsyncConnection:
        async with asyncio.timeout(self._connect_timeout_seconds):
            connection = await self._engine.connect()
            self._connection = connection
            for statement in self._session:
                await connection.exec_driver_sql(statement)
            if not self._each_in_transaction:
                await self._on_connect(connection)
        return connection

    def _is_missing_table(self, error: BaseException) -> bool:
        if not isinstance(error, DBAPIError) or error.orig is None:
            return False
        state = getattr(error.orig, "sqlstate", None)
        if state in self._no_such_table:
            return True
        code = error.orig.args[0] if error.orig.args else None
        return code in self._no_such_table or any(
            isinstance(part, str) and part in str(error.orig) for part in self._no_such_table
        )

    async def _lose(self, error: Exception) -> None:
        """Give the connection up because of *error*, and count it."""
        if self._connection is None:
            reason = "connect"
        elif isinstance(error, TimeoutError):
            reason = "timeout"
        else:
            reason = "server" if isinstance(error, StoreUnavailable) else "error"
        self._on_lost(reason)
        await self._drop()

    async def _drop(self) -> None:
        self._let_go = False
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await connection.invalidate()
                await connection.close()
        except (SQLAlchemyError, OSError, TimeoutError):
            pass  # it is gone either way

    def let_go(self) -> None:
        """Give the connection up before the next statement, whatever is under way on it now."""
        self._let_go = True

    async def reconnect(self) -> None:
        """Let the next statement open a new connection."""
        async with self._lock:
            await self._drop()

    async def close(self) -> None:
        """Close the connection, without waiting for a statement that is under way."""
        await self._drop()
