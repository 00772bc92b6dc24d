"""
The outbox table as an audit reads it: by id, a bounded number of rows at a time, without payloads.

Takes no lock and writes nothing, so it may be a replica. A statement that is slow is the caller's to see:
it asks for fewer rows the next time.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox_relay.errors import SchemaMismatch
from outbox_relay.schema import Status, schema_problem, tables
from outbox_relay.store.channel import Answer, Channel, MissingTable
from outbox_relay.store.options import DatabaseOptions
from outbox_relay.store.sql import dialect_of, engine_of
from outbox_relay.store.statements import Statements

MARGIN_US: Final = 600 * 1_000_000
"""
How far ids may be out of the order of `created_at`: both are given by one statement, which may last.
"""


class SqlAuditedTable:
    """The audit's table over one connection. Its rows are plain tuples, in the order of `TableRow`."""

    def __init__(
        self, options: DatabaseOptions, *, make_row: Any = tuple, make_state: Any = tuple
    ) -> None:
        self._dialect = d = dialect_of(options)
        self._make_row, self._make_state = make_row, make_state
        self._engine = engine_of(options, d)
        self._channel = Channel(
            self._engine,
            session=() if d.name == "sqlite" else d.session,
            timeout_seconds=options.timeout_seconds,
            connect_timeout_seconds=options.connect_timeout_seconds,
            no_such_table=d.no_such_table,
            on_connect=self._connected,
            each_in_transaction=d.each_in_transaction,
        )
        names = tables(options.table, schema=options.schema or None)
        self._sql = Statements(d, names, self._engine.dialect.identifier_preparer)
        quote = self._engine.dialect.identifier_preparer.quote_identifier
        parts = (names.outbox.schema, names.outbox.name)
        self._name = ".".join(quote(part) for part in parts if part)
        self._created = d.microseconds.format("created_at")
        self._event = d.uuid.format("event_id")
        url = make_url(options.url)
        self._file = Path(url.database or "") if d.name == "sqlite" else None

    async def _connected(self, connection: AsyncConnection) -> None:
        """Any server will do: a replica too."""

    async def _ask(self, sql: str) -> Answer:
        try:
            return await self._channel.execute(sql)
        except MissingTable as error:
            raise SchemaMismatch(schema_problem(None, None)) from error

    async def check(self) -> None:
        """See AuditedTable."""
        if self._file is not None and not self._file.exists():
            raise SchemaMismatch(schema_problem(None, None))  # SQLite would create it
        rows = (await self._ask(self._sql.version)).rows
        version, min_reader = rows[0] if rows else (None, None)
        if problem := schema_problem(version, min_reader):
            raise SchemaMismatch(problem)

    async def last_id(self) -> int:
        """See AuditedTable."""
        return (await self._ask(self._sql.max_id)).rows[0][0] or 0

    async def now(self) -> int:
        """See AuditedTable."""
        sql = f"SELECT {self._dialect.microseconds.format(self._dialect.now)}"
        return int((await self._ask(sql)).rows[0][0])

    async def id_before(self, instant: int) -> int:
        """See AuditedTable. Halves the range of ids: there is no index on `created_at`."""
        low = (await self._ask(f"SELECT MIN(id) FROM {self._name}")).rows[0][0]
        if low is None:
            return 0
        low, high = low - 1, await self.last_id()
        while high - low > 1:
            middle = (low + high) // 2
            found = await self._ask(
                f"SELECT id, {self._created} FROM {self._name} {self._dialect.primary_hint} "
                f"WHERE id > {middle:d} ORDER BY id LIMIT 1"
            )
            if found.rows and int(found.rows[0][1]) < instant - MARGIN_US:
                low = int(found.rows[0][0])
            else:
                high = middle
        return max(0, int(low))

    async def read(self, after_id: int, upto_id: int, limit: int) -> Sequence[Any]:
        """See AuditedTable."""
        d = self._dialect
        published = f"CASE WHEN status = {Status.PRODUCED:d} THEN {d.microseconds.format('produced_at')} END"
        answer = await self._ask(
            f"SELECT id, {self._event}, topic, {d.blob.format(d.key)}, status, {self._created}, "
            f"{published}, codec FROM {self._name} {d.primary_hint} "
            f"WHERE id > {after_id:d} AND id <= {upto_id:d} ORDER BY id LIMIT {limit:d}"
        )
        return [self._make_row(row) for row in answer.rows]

    async def states(self, ids: Sequence[int]) -> Sequence[Any]:
        """See AuditedTable."""
        if not ids:
            return []
        listed = ",".join(str(int(row_id)) for row_id in ids)
        answer = await self._ask(
            f"SELECT id, {self._event}, topic, {self._dialect.status_by_id} "
            f"FROM {self._name} {self._dialect.primary_hint} WHERE id IN ({listed})"
        )
        return [self._make_state(row) for row in answer.rows]

    async def close(self) -> None:
        """See AuditedTable."""
        await self._channel.close()
        await self._engine.dispose()
