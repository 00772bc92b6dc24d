"""
The inbox: makes a handler's effect happen once, although an event may be delivered several times.

It works because it shares the handler's transaction: the row that says "handled" and what the handler
wrote are committed together, or neither is. Two deliveries at the same time meet at the primary key:
the second waits until the first transaction has ended, and then inserts its row or finds it there.
No snapshot is asked, so the isolation level of the handler's transaction does not matter; under
REPEATABLE READ, PostgreSQL ends the second transaction instead (40001), and its repetition finds it.
"""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Awaitable, Generator
from dataclasses import replace
from typing import Any, TypeVar, overload

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from outbox_relay.consumer import inbox_purge
from outbox_relay.consumer.deliveries import read_record
from outbox_relay.consumer.inbox_sql import Statements, latest_values
from outbox_relay.consumer.record import ConsumedRecord, identity
from outbox_relay.errors import AutocommitHandle, UnidentifiedRecord
from outbox_relay.events import Event
from outbox_relay.handles import AsyncHandle, SyncHandle, autocommits, resolve
from outbox_relay.inbox_schema import MAX_CONSUMER_CHARS, InboxTables, inbox_tables

EventIdentity = uuid.UUID | str

_T = TypeVar("_T")


class Pending(Awaitable[_T]):
    """Work of the inbox on an async handle, to be awaited. Has no truth of its own until it is."""

    __slots__ = ("_call", "_run")

    def __init__(self, call: str, run: Any) -> None:
        self._call = call
        self._run = run

    def __await__(self) -> Generator[Any, None, _T]:
        run, self._run = self._run, None
        if run is None:
            raise RuntimeError(f"this {self._call}(...) was awaited already")
        result: Generator[Any, None, _T] = run().__await__()
        return result

    def __bool__(self) -> bool:
        # Any other object is true: `if inbox.first_time(...)` would handle every duplicate.
        raise TypeError(f"{self._call} was not awaited: write `await {self._call}(...)`")

    def __del__(self) -> None:
        if getattr(self, "_run", None) is not None:
            warnings.warn(
                f"{self._call}(...) was never awaited", RuntimeWarning, stacklevel=2, source=self
            )


class Inbox:
    """
    Remembers which events *consumer* has handled, in the database that its handlers write to.

    Holds no connection; one for the whole application will do.

    * consumer: who handles, such as "billing". Two handlers that have transactions of their own need
      two names, else one of them would drop what the other has handled
    * table, schema: where the inbox is
    * reject_stale: an event that comes after a later one of its topic and key, by `outbox-seq`, is not
      handled either: for handlers that store the latest state. Events without a key have no order. Of
      what is replayed as new, the latest is handled once more

    `duplicates` and `stale` count what this object has dropped since it was made.
    """

    def __init__(
        self,
        consumer: str,
        *,
        table: str = "inbox",
        schema: str | None = None,
        reject_stale: bool = False,
    ) -> None:
        if not consumer or len(consumer) > MAX_CONSUMER_CHARS:
            raise ValueError(
                f"consumer = {consumer!r}: name who handles, in 1 to {MAX_CONSUMER_CHARS} characters"
            )
        self.consumer = consumer
        self.reject_stale = reject_stale
        self.tables: InboxTables = inbox_tables(table, schema=schema)
        self.duplicates = 0
        self.stale = 0
        self._statements = Statements(self.tables)

    @property
    def metadata(self) -> sa.MetaData:
        """The tables' metadata, for `create_all` and for Alembic's `target_metadata`."""
        return self.tables.metadata

    @overload
    def first_time(
        self, handle: SyncHandle, record: object, *, event_id: EventIdentity | None = None
    ) -> bool: ...

    @overload
    def first_time(
        self, handle: AsyncHandle, record: object, *, event_id: EventIdentity | None = None
    ) -> Awaitable[bool]: ...

    def first_time(
        self,
        handle: SyncHandle | AsyncHandle,
        record: object,
        *,
        event_id: EventIdentity | None = None,
    ) -> bool | Awaitable[bool]:
        """
        Whether *record* is to be handled: True once, in the transaction that *handle* is in.

        Executes at once and never commits: what is remembered stands and falls with the caller's own
        writes. To be awaited on async handles. *record* is a `ConsumedRecord`, a client's own message,
        or an event; *event_id* is its identity where it says none.

        Raises UnidentifiedRecord if nobody says an identity, UnreadableRecord if the record cannot be
        read, AutocommitHandle if the handle commits each statement by itself, TypeError for an event
        where `reject_stale` asks for its record.
        """
        sync, asynchronous = resolve(handle, "inbox.first_time")
        seen = self._seen(record, event_id)
        if asynchronous is None:
            return self._first_time(sync, seen)
        return Pending("inbox.first_time", lambda: self._first_time_async(asynchronous, seen))

    @overload
    def create(self, engine: Engine) -> None: ...

    @overload
    def create(self, engine: AsyncEngine) -> Awaitable[None]: ...

    def create(self, engine: Engine | AsyncEngine) -> Awaitable[None] | None:
        """Make the tables that are missing. For Alembic, see `outbox_relay.inbox_schema.upgrade`."""
        if isinstance(engine, AsyncEngine):
            return Pending("inbox.create", lambda: self._create_async(engine))
        self.metadata.create_all(engine)
        return None

    @overload
    def purge(
        self, engine: Engine, *, older_than_seconds: float, batch_rows: int = 1000
    ) -> int: ...

    @overload
    def purge(
        self, engine: AsyncEngine, *, older_than_seconds: float, batch_rows: int = 1000
    ) -> Awaitable[int]: ...

    def purge(
        self, engine: Engine | AsyncEngine, *, older_than_seconds: float, batch_rows: int = 1000
    ) -> int | Awaitable[int]:
        """
        Forget what this consumer received longer ago; how many rows that were.

        A delivery that is repeated after that is handled again, so keep rows for longer than any
        repetition may take. Each batch is a transaction of its own, and locks no other row.
        """
        if older_than_seconds < 0 or batch_rows < 1:
            raise ValueError(
                f"older_than_seconds = {older_than_seconds} must be at least 0, "
                f"batch_rows = {batch_rows} at least 1"
            )
        job = inbox_purge.Job(self.tables, self.consumer, older_than_seconds, batch_rows)
        if isinstance(engine, AsyncEngine):
            return Pending("inbox.purge", lambda: inbox_purge.run_async(engine, job))
        return inbox_purge.run(engine, job)

    def _seen(self, record: object, event_id: EventIdentity | None) -> ConsumedRecord | uuid.UUID:
        """The record with its identity, or the identity alone if there is no record."""
        if isinstance(event_id, str):
            event_id = identity(event_id, "")
        if isinstance(record, Event):
            if self.reject_stale:
                raise TypeError(
                    "inbox.first_time: reject_stale needs the record: an event has no outbox-seq"
                )
            return event_id or record.event_id
        read = read_record(record)
        if event_id is not None and event_id != read.event_id:
            return replace(read, event_id=event_id)
        if read.event_id is None:
            raise UnidentifiedRecord(
                f"{read.place}: it has neither ce_id nor an envelope with an id, so nobody can say "
                "whether it came before: pass inbox.first_time(..., event_id=...)"
            )
        return read

    def _first_time(self, handle: Session | Connection, seen: ConsumedRecord | uuid.UUID) -> bool:
        event_id = seen if isinstance(seen, uuid.UUID) else seen.event_id
        values = {"consumer": self.consumer, "event_id": event_id}
        connection = _connection(handle, self._statements.remember_any)
        if not self._statements.is_first(connection, values):
            self.duplicates += 1
            return False
        if not self.reject_stale or isinstance(seen, uuid.UUID):
            return True
        if seen.sequence is None or seen.key is None:
            return True  # without a key there is no order that it could have come too late for
        original = {"event_id": _original_id(seen)}
        if self._statements.is_latest(connection, {**values, **latest_values(seen), **original}):
            return True
        self.stale += 1
        return False

    async def _first_time_async(
        self, handle: AsyncSession | AsyncConnection, seen: ConsumedRecord | uuid.UUID
    ) -> bool:
        return await handle.run_sync(self._first_time, seen)

    async def _create_async(self, engine: AsyncEngine) -> None:
        async with engine.begin() as connection:
            await connection.run_sync(self.metadata.create_all)


def _original_id(record: ConsumedRecord) -> uuid.UUID | None:
    """The id that the event has had from its beginning, also if it is replayed as a new one."""
    if record.replay_of is None:
        return record.event_id
    return identity(record.replay_of, record.source)


def _connection(handle: Session | Connection, statement: sa.Executable) -> Connection:
    if isinstance(handle, Session):
        # The connection that the session's own writes use: the inbox is bound as they are.
        connection = handle.connection(bind_arguments={"clause": statement})
    else:
        connection = handle
    if autocommits(connection):
        raise AutocommitHandle(
            "inbox.first_time: the handle is in AUTOCOMMIT, so what is remembered and what the "
            "handler writes could part: use one with transactions"
        )
    return connection
