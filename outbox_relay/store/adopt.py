"""The `Store` port over a table of python-cqrs, which its applications go on to write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy.engine import make_url

from outbox_relay.compression import UnreadablePayload, inflate
from outbox_relay.errors import ConfigError, SchemaMismatch
from outbox_relay.python_cqrs import (
    NEWEST,
    Layout,
    adopted_tables,
    beside_problem,
    recognise,
)
from outbox_relay.relay.envelope import ENVELOPES, Parts
from outbox_relay.relay.lease import Term
from outbox_relay.relay.ports import Aged, Observer, PurgePlan, ReadPlan, Row
from outbox_relay.schema import MAX_ERROR_CHARS, MAX_PAYLOAD_BYTES, Codec
from outbox_relay.store.adopt_statements import AdoptedStatements
from outbox_relay.store.channel import MissingTable
from outbox_relay.store.options import DatabaseOptions
from outbox_relay.store.sql import SqlStore
from outbox_relay.store.statements import Statements

FIELDS = len(Row._fields)


class AdoptedStore(SqlStore):
    """
    Relays a table of python-cqrs in place: marks rows PRODUCED as its own relay would.

    One relay is active; others stand by. Rows that are PRODUCED are never touched, so nothing is purged.
    Where a key is asked for, or the document has to be made, each row is looked into.
    """

    def __init__(self, options: DatabaseOptions, *, observer: Observer | None = None) -> None:
        if make_url(options.url).get_backend_name() == "sqlite":
            raise ConfigError(
                [
                    'database.layout = "python-cqrs": python-cqrs cannot write to SQLite: name the server'
                ]
            )
        super().__init__(options, observer=observer)
        self._options = options
        path = options.layout_key_path.split(".") if options.layout_key_path else []
        self._path = path
        self._layout = NEWEST
        self._adopt(NEWEST)

    def _adopt(self, layout: Layout) -> None:
        names = adopted_tables(
            self._options.table, schema=self._options.schema or None, layout=layout
        )
        self._layout = layout
        self._adopted = AdoptedStatements(
            self._dialect,
            names,
            self._engine.dialect.identifier_preparer,
            layout=layout,
            options=self._options,
        )
        self._sql: Statements = self._adopted
        shape = layout.envelope(self._options.layout_envelope)
        self._envelope = ENVELOPES[shape] if shape else None

    async def check_schema(self) -> None:
        """See Store. Also finds out which release made the table."""
        rows = (await self._leases.execute(self._adopted.types)).rows
        types = {str(name).lower(): _word(kind) for name, kind in rows}
        layout = recognise(self._options.table, types)
        if not layout.has_topic and not self._options.layout_topic:
            raise SchemaMismatch(
                f"{self._options.table} has no column topic: set database.layout_topic to the topic that "
                "the events go to"
            )
        if layout != self._layout:
            self._adopt(layout)
        try:
            there = (await self._leases.execute(self._sql.version)).rows
        except MissingTable:
            there = ()
        version, min_reader = there[0] if there else (None, None)
        has_index = bool((await self._leases.execute(self._adopted.index_there)).rows)
        problem = beside_problem(version, min_reader, has_index=has_index)
        if problem is not None:
            raise SchemaMismatch(problem)
        self._lanes.keeps_suspects = True

    # Reading

    async def read(self, plan: ReadPlan) -> list[Row]:
        """See Store."""
        self._ahead.reads()
        sql, parameters = self._sql.read(plan)
        found = sorted((await self._reads.execute(sql, parameters)).rows, key=_id)
        if not self._path and self._envelope is None:
            return list(map(Row._make, found))
        return [await self._looked_into(columns) for columns in found]

    async def _looked_into(self, columns: Sequence[Any]) -> Row:
        row = Row._make(columns[:FIELDS])
        # A large one alone: it is looked into now, and taken along only when there is room for it.
        stored = await self._stored(row.id) if row.payload is None else row.payload
        return row if stored is None else self._as_sent(row, stored, columns)

    def _as_sent(self, row: Row, stored: bytes, columns: Sequence[Any]) -> Row:
        """The row with its key, and with the document that python-cqrs would have sent."""
        try:
            is_zlib = row.codec == Codec.ZLIB
            plain = inflate(stored, max_bytes=MAX_PAYLOAD_BYTES) if is_zlib else stored
        except UnreadablePayload:
            return row  # the encoder says so, and it becomes a dead letter
        if self._path:
            row = row._replace(key=self._layout.key_of(plain, self._path))
        if self._envelope is None:
            return row
        if row.payload is not None:
            document = self._document(row, plain, columns)
            row = row._replace(payload=document, payload_bytes=len(document))
        return row._replace(codec=int(Codec.RAW))

    def _document(self, row: Row, plain: bytes, columns: Sequence[Any]) -> bytes:
        assert self._envelope is not None
        kind, created = columns[FIELDS:]
        parts = Parts(
            event_id=row.event_id,
            event_name=row.event_name,
            topic=row.topic,
            timestamp=created,
            message_type=_word(kind).lower(),
        )
        return self._envelope(plain, parts)

    async def _stored(self, row_id: int) -> bytes | None:
        return await super().payload(row_id)

    async def payload(self, row_id: int) -> bytes | None:
        """See Store."""
        stored = await self._stored(row_id)
        if stored is None or self._envelope is None:
            return stored
        rows = (await self._reads.execute(self._adopted.row, (row_id,))).rows
        if not rows:
            return None
        row = Row._make(rows[0][:FIELDS])._replace(payload=stored)
        return self._as_sent(row, stored, rows[0]).payload

    # Marking

    async def mark_dead(
        self, row_id: int, error: str, term: Term, *, requeued_us: int | None = None
    ) -> None:
        """
        See Store. The reason is written first: without it nobody would know why.

        These tables do not say when somebody took a dead letter back.
        """
        del requeued_us
        key = None
        if self._path:
            rows = (await self._reads.execute(self._adopted.row, (row_id,))).rows
            key = (await self._looked_into(rows[0])).key if rows else None
        error = error.replace("\0", "")[:MAX_ERROR_CHARS]
        fence = self._lanes.sql.fence(term)
        await self._marks.execute(self._adopted.reason(fence), (key, error, row_id, term.nonce))
        sql = self._sql.mark_dead(fence)
        answer = await self._marks.execute(sql, (row_id, term.nonce))
        if not answer.matched:
            await self._lanes.check(term, self._marks)

    async def aged(self, plan: PurgePlan) -> list[Aged]:
        """Nothing: its rows do not say when they were produced, and are not ours to delete."""
        return []

    async def purge(self, ids: Sequence[int], plan: PurgePlan, term: Term) -> int:
        """Nothing either."""
        return 0


def _id(columns: Sequence[Any]) -> int:
    return int(columns[0])


def _word(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
