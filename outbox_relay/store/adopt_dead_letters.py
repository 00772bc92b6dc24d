"""
Dead letters of a table of python-cqrs: what this relay gave up, and what its own gave up before.

The reasons of the first are in a table beside it; the second have the reason ``abandoned``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from outbox_relay.errors import SchemaMismatch
from outbox_relay.python_cqrs import (
    AdoptedTables,
    adopted_in,
    adopted_tables,
    beside_problem,
    index_there,
    state,
)
from outbox_relay.relay.dead_letters import DeadLetter, Found, Selection
from outbox_relay.schema import SCHEMA_VERSION
from outbox_relay.store.dead_letters import Result, SqlDeadLetters, _chunks
from outbox_relay.store.options import DatabaseOptions


class AdoptedDeadLetters(SqlDeadLetters):
    """The `DeadLetters` port over an adopted table."""

    def __init__(self, engine: AsyncEngine, options: DatabaseOptions) -> None:
        names = adopted_tables(options.table, schema=options.schema or None)
        super().__init__(
            engine,
            names.beside,
            timeout_seconds=options.connect_timeout_seconds + options.timeout_seconds,
        )
        self._options = options
        self._names = names
        self._is_known = False

    def _checked(
        self, connection: sa.Connection, work: Callable[[sa.Connection], Result]
    ) -> Result:
        options = self._options
        names = adopted_in(connection, options.table, options.schema or None)
        if not sa.inspect(connection).has_table(names.dead.name, schema=names.dead.schema):
            raise SchemaMismatch(beside_problem(None, None, has_index=False))
        if connection.exec_driver_sql(index_there(connection.dialect.name, names)).first() is None:
            # Without it each page would pass the whole history.
            raise SchemaMismatch(beside_problem(SCHEMA_VERSION, 1, has_index=False))
        if not self._is_known:
            self._names = names
            self._outbox = names.dead_letters(options.layout_topic, options.layout_payload)
            self._is_known = True
        return work(connection)

    async def _recognise(self) -> None:
        if not self._is_known:
            await self._run(lambda _: None)

    async def find(
        self, selection: Selection, *, after_id: int = 0, limit: int = 1000
    ) -> list[Found]:
        """See DeadLetters."""
        await self._recognise()
        return await super().find(selection, after_id=after_id, limit=limit)

    async def read(self, ids: Sequence[int]) -> list[DeadLetter]:
        """See DeadLetters."""
        await self._recognise()
        return await super().read(ids)

    async def payload(self, row_id: int) -> bytes:
        """See DeadLetters."""
        await self._recognise()
        return await super().payload(row_id)

    def _key(self) -> sa.ColumnElement[Any]:
        key: sa.ColumnElement[Any] = self._outbox.c.key
        return key

    async def requeue(self, ids: Sequence[int]) -> int:
        """See DeadLetters. As if they had just been written: the other relay selects them too."""
        names = self._names
        change = sa.update(names.outbox).values(event_status=state("NEW"), flush_counter=0)
        return len(await self._settle(change, ids))

    async def discard(self, ids: Sequence[int]) -> list[int]:
        """See DeadLetters."""
        return await self._settle(sa.delete(self._names.outbox), ids)

    async def _settle(self, change: sa.Update | sa.Delete, ids: Sequence[int]) -> list[int]:
        settled: list[int] = []
        for some in _chunks(ids):
            settled += await self._run(partial(_settled, self._names, change, some))
        return settled


def _settled(
    names: AdoptedTables,
    change: sa.Update | sa.Delete,
    ids: Sequence[int],
    connection: sa.Connection,
) -> list[int]:
    c = names.outbox.c
    chosen = sa.select(c.id).where(c.id.in_(ids), names.given_up()).with_for_update()
    found = list(connection.execute(chosen).scalars())
    if found:
        connection.execute(sa.delete(names.dead).where(names.dead.c.id.in_(found)))
        connection.execute(change.where(c.id.in_(found)))
    return found
