"""
Dead letters: whose keys they hold, for the relay, and what operators do with them.

Operators need no lease: only rows that are dead are touched, and a relay touches only pending ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from outbox_relay.errors import SchemaMismatch, StoreUnavailable
from outbox_relay.relay.dead_letters import DeadLetter, Found, Selection, reason_of
from outbox_relay.relay.ports import DeadKeys
from outbox_relay.schema import Status, Tables, is_one_of, schema_problem, utc_now
from outbox_relay.store.dialect import Dialect
from outbox_relay.store.login import hint, said

ROWS_A_STATEMENT: Final = 500

Result = TypeVar("Result")


def dead_keys_sql(dialect: Dialect, pending: str, limit: int) -> str:
    """Id, topic and key of the first dead letters, one more than *limit*."""
    return (
        f"SELECT id, topic, {dialect.blob.format(dialect.key)} FROM {pending} "
        f"WHERE status = {Status.DEAD:d} ORDER BY id LIMIT {limit + 1:d}"
    )


def dead_keys_of(rows: Sequence[Any], limit: int) -> DeadKeys:
    """What the answer to `dead_keys_sql` means."""
    first_ids: dict[tuple[str, bytes], int] = {}
    for row_id, topic, key in rows[:limit]:
        if key is not None:
            first_ids.setdefault((topic, bytes(key)), row_id)
    return DeadKeys(
        first_ids=first_ids, unread_above=rows[limit - 1][0] if len(rows) > limit else None
    )


class SqlDeadLetters:
    """The `DeadLetters` port over SQLAlchemy, for every database."""

    def __init__(self, engine: AsyncEngine, names: Tables, *, timeout_seconds: float) -> None:
        self._engine = engine
        self._outbox: Any = names.outbox
        self._timeout_seconds = timeout_seconds

    async def find(
        self, selection: Selection, *, after_id: int = 0, limit: int = 1000
    ) -> list[Found]:
        """See DeadLetters."""
        c = self._outbox.c
        query = (
            self._select(selection, c.id, c.topic, c.event_id, c.last_error, c.dead_at)
            .where(c.id > after_id)
            .order_by(c.id)
            .limit(limit)
        )
        rows = await self._run(lambda connection: connection.execute(query).all())
        return [
            Found(row.id, row.topic, row.event_id, reason_of(row.last_error), row.dead_at)
            for row in rows
        ]

    async def read(self, ids: Sequence[int]) -> list[DeadLetter]:
        """See DeadLetters."""
        c = self._outbox.c
        names = [name for name in DeadLetter.__dataclass_fields__ if name != "payload_bytes"]
        columns = [*(c[name] for name in names), sa.func.length(c.payload).label("payload_bytes")]

        def read(connection: sa.Connection) -> list[DeadLetter]:
            return [
                DeadLetter(**row._mapping)
                for some in _chunks(ids)
                for row in connection.execute(
                    self._select(Selection(ids=some), *columns).order_by(c.id)
                )
            ]

        return await self._run(read)

    async def payload(self, row_id: int) -> bytes:
        """See DeadLetters."""
        query = self._select(Selection(ids=(row_id,)), self._outbox.c.payload)
        stored = await self._run(lambda connection: connection.execute(query).scalar())
        return stored.encode() if isinstance(stored, str) else bytes(stored or b"")

    async def requeue(self, ids: Sequence[int]) -> int:
        """See DeadLetters."""
        c = self._outbox.c
        change = sa.update(self._outbox).values(
            status=Status.PENDING,
            last_error=None,
            dead_at=None,
            available_at=utc_now(),
            # By it the relay knows a requeued row from a new one.
            attempts=sa.case((c.attempts > 0, c.attempts), else_=1),
        )
        return await self._change(change, ids)

    async def discard(self, ids: Sequence[int]) -> list[int]:
        """See DeadLetters."""
        c = self._outbox.c
        gone: list[int] = []
        for some in _chunks(ids):
            which = sa.and_(c.id.in_(some), c.status == Status.DEAD)
            gone += await self._run(partial(_deleted, self._outbox, which))
        return gone

    async def close(self) -> None:
        """See DeadLetters."""
        await self._engine.dispose()

    def _select(self, selection: Selection, *columns: sa.ColumnElement[Any]) -> sa.Select[Any]:
        c = self._outbox.c
        query = sa.select(*columns).where(c.status == Status.DEAD)
        if selection.ids:
            query = query.where(c.id.in_(selection.ids))
        if selection.topics:
            query = query.where(is_one_of(c.topic, selection.topics))
        if selection.keys:
            query = query.where(self._key().in_(selection.keys))
        if selection.first_id is not None:
            query = query.where(c.id >= selection.first_id)
        if selection.last_id is not None:
            query = query.where(c.id <= selection.last_id)
        if selection.since is not None:
            query = query.where(c.dead_at >= selection.since)
        if selection.until is not None:
            query = query.where(c.dead_at < selection.until)
        if selection.known_at is not None:
            query = query.where(sa.or_(c.dead_at.is_(None), c.dead_at <= selection.known_at))
        if selection.reasons:
            query = query.where(sa.or_(*map(self._is_given_up_for, selection.reasons)))
        return query

    def _key(self) -> sa.ColumnElement[Any]:
        # SQLite keeps text as text, where a writer inserted text.
        return sa.cast(self._outbox.c.key, sa.LargeBinary)

    def _is_given_up_for(self, reason: str) -> sa.ColumnElement[bool]:
        error = self._outbox.c.last_error
        return sa.or_(error == reason, error.startswith(f"{reason}:", autoescape=True))

    async def _change(self, change: sa.Update, ids: Sequence[int]) -> int:
        c = self._outbox.c
        changed = 0
        for some in _chunks(ids):
            statement = change.where(c.id.in_(some), c.status == Status.DEAD)
            changed += await self._run(partial(_matched, statement))
        return changed

    async def _run(self, work: Callable[[sa.Connection], Result]) -> Result:
        """*work* in a transaction of its own, committed."""
        try:
            async with asyncio.timeout(self._timeout_seconds), self._begin() as connection:
                return await connection.run_sync(lambda sync: self._checked(sync, work))
        except TimeoutError as error:
            raise StoreUnavailable("the database does not answer in time: is it up?") from error
        except (sa.exc.DBAPIError, OSError) as error:
            cause = getattr(error, "orig", None) or error
            raise StoreUnavailable(
                f"the database refuses or does not answer: {said(cause)}{hint(cause)}"
            ) from error

    def _begin(self) -> AbstractAsyncContextManager[AsyncConnection]:
        url = self._engine.url
        if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
            # SQLite would create the file.
            raise SchemaMismatch(schema_problem(None, None))
        return self._engine.begin()

    def _checked(
        self, connection: sa.Connection, work: Callable[[sa.Connection], Result]
    ) -> Result:
        if not sa.inspect(connection).has_table(self._outbox.name, schema=self._outbox.schema):
            raise SchemaMismatch(schema_problem(None, None))
        return work(connection)


def _chunks(ids: Sequence[int]) -> Iterator[tuple[int, ...]]:
    for start in range(0, len(ids), ROWS_A_STATEMENT):
        yield tuple(ids[start : start + ROWS_A_STATEMENT])


def _matched(change: sa.Update, connection: sa.Connection) -> int:
    return connection.execute(change).rowcount


def _deleted(
    outbox: sa.Table, which: sa.ColumnElement[bool], connection: sa.Connection
) -> list[int]:
    """Delete the rows of *which*; their ids."""
    id_ = outbox.c.id
    if connection.dialect.delete_returning:
        return list(connection.execute(sa.delete(outbox).where(which).returning(id_)).scalars())
    # MySQL: locked, so that nobody else deletes or requeues them in between.
    found = list(connection.execute(sa.select(id_).where(which).with_for_update()).scalars())
    if found:
        connection.execute(sa.delete(outbox).where(id_.in_(found)))
    return found
