"""The outbox over SQLAlchemy, for every database that has a `Dialect`."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from typing import Any

from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool
from sqlalchemy.sql.compiler import IdentifierPreparer

from outbox_relay.errors import (
    ConfigError,
    LeaseLost,
    SchemaMismatch,
    ServerChanged,
    StoreUnavailable,
)
from outbox_relay.relay.ports import (
    Aged,
    Backlog,
    DeadKeys,
    Lease,
    PurgePlan,
    ReadPlan,
    Row,
    Term,
)
from outbox_relay.schema import LANES, MAX_ERROR_CHARS, Status, Tables, schema_problem, tables
from outbox_relay.store import mysql, sqlite
from outbox_relay.store.channel import Channel, MissingTable
from outbox_relay.store.dead_letters import dead_keys_of, dead_keys_sql
from outbox_relay.store.dialect import Dialect
from outbox_relay.store.login import log_in
from outbox_relay.store.options import DatabaseOptions
from outbox_relay.store.retention import Retention

LARGE_PAYLOAD_BYTES = 16 * 1024
"""Larger payloads stay behind when rows are read, and are fetched one by one within the budget."""


def _dialect_of(options: DatabaseOptions) -> Dialect:
    name = make_url(options.url).get_backend_name()
    if name in ("mysql", "mariadb"):
        return mysql.dialect(options)
    if name == "sqlite":
        return sqlite.dialect(options)
    raise ConfigError(
        [
            f"database.url: {name} is not supported: use mysql+asyncmy, mariadb+asyncmy or sqlite+aiosqlite"
        ]
    )


def _ids(ids: Sequence[int] | frozenset[int]) -> str:
    """Integers of ours, as SQL text: the only data that becomes part of a statement."""
    return ",".join([str(int(row_id)) for row_id in ids])


class SqlStore:
    """The `Store` port over one connection for each kind of work."""

    def __init__(self, options: DatabaseOptions) -> None:
        self._dialect = dialect = _dialect_of(options)
        self.settle_seconds = dialect.settle_seconds
        self._engine = create_async_engine(
            options.url,
            poolclass=NullPool,
            isolation_level="AUTOCOMMIT",
            hide_parameters=True,
            connect_args=dict(dialect.connect_args),
            **dialect.engine_options,
        )
        log_in(self._engine, options)
        self._tables = tables(options.table, schema=options.schema or None)
        self._server: str | None = None
        self._reads = self._channel(options)
        self._dirty = self._channel(options, *(dialect.dirty_session or ()))
        self._marks = self._channel(options)
        self._leases = self._channel(options)
        self._samples = self._channel(options)
        self._purges = self._channel(options)
        self._sql = _Statements(dialect, self._tables, self._engine.dialect.identifier_preparer)

    def _channel(self, options: DatabaseOptions, *session: str) -> Channel:
        return Channel(
            self._engine,
            session=(*self._dialect.session, *session),
            timeout_seconds=options.timeout_seconds,
            connect_timeout_seconds=options.connect_timeout_seconds,
            no_such_table=self._dialect.no_such_table,
            on_connect=self._check_server,
        )

    @property
    def _channels(self) -> tuple[Channel, ...]:
        return (self._reads, self._dirty, self._marks, self._leases, self._samples, self._purges)

    async def _check_server(self, connection: AsyncConnection) -> None:
        identity = (await connection.exec_driver_sql(self._dialect.identity)).scalar_one()
        if self._server is not None and identity != self._server:
            # A promoted replica may give ids out again: a queued mark would mark new events.
            raise ServerChanged(f"server {identity} answers instead of {self._server}")

    # Schema

    async def check_schema(self) -> None:
        """See Store."""
        try:
            rows = (await self._leases.execute(self._sql.version)).rows
        except MissingTable:
            rows = ()
        version, min_reader = rows[0] if rows else (None, None)
        problem = schema_problem(version, min_reader)
        if problem is not None:
            raise SchemaMismatch(problem)

    # Lease

    async def acquire(self, owner: str, *, wake_address: str, lease_seconds: float) -> Lease | None:
        """See Store."""
        self._server = None
        lanes, held = (await self._leases.execute(self._sql.held)).rows[0]
        if not lanes:
            raise SchemaMismatch(
                f"{self._tables.lease.name} has no lanes: empty {self._tables.version.name} and run "
                "`outbox-relay migrate`, which completes the tables"
            )
        if held:
            return None
        server = (await self._leases.execute(self._dialect.identity)).rows[0][0]
        nonce = secrets.token_hex(16)
        parameters = (server, owner, nonce, lease_seconds, wake_address, server)
        answer = await self._leases.execute(self._sql.acquire, parameters)
        if answer.matched == 0:
            return None
        rows = (await self._leases.execute(self._sql.lease, (nonce,))).rows
        if not rows:
            return None
        self._server = server
        for channel in self._channels:
            if channel is not self._leases:
                # Perhaps opened to another server, when this one was not yet known.
                await channel.reconnect()
        return self._lease_of(rows, nonce, server)

    @staticmethod
    def _lease_of(rows: Sequence[Any], nonce: str, server: str) -> Lease:
        lanes = [row[0] for row in rows]
        term, noted_id, crash_count = (max(row[i] for row in rows) for i in (1, 2, 3))
        return Lease(
            term=Term(term, nonce),
            # SQLite has one lane; its owner holds them all.
            lanes=frozenset(lanes) if len(lanes) > 1 else frozenset(range(LANES)),
            server=server,
            noted_id=noted_id,
            crash_count=crash_count,
        )

    async def renew(self, lease: Lease, *, noted_id: int, lease_seconds: float) -> None:
        """See Store."""
        parameters = (lease_seconds, noted_id, lease.term.nonce)
        if not (await self._leases.execute(self._sql.renew, parameters)).matched:
            raise LeaseLost(f"another relay took the lanes from term {lease.term.number}")

    async def release(self, lease: Lease) -> None:
        """See Store."""
        await self._leases.execute(self._sql.release, (lease.term.nonce,))

    # Reading

    async def read(self, plan: ReadPlan) -> list[Row]:
        """See Store."""
        sql, parameters = self._sql.read(plan)
        return list(map(Row._make, (await self._reads.execute(sql, parameters)).rows))

    async def uncommitted_ids(self, plan: ReadPlan) -> list[int]:
        """See Store."""
        if self._dialect.dirty_session is None:
            return []
        sql, parameters = self._sql.pending_ids(plan)
        return [row[0] for row in (await self._dirty.execute(sql, parameters)).rows]

    async def max_id(self) -> int:
        """See Store."""
        return int((await self._dirty.execute(self._sql.max_id)).rows[0][0] or 0)

    async def payload(self, row_id: int) -> bytes | None:
        """See Store."""
        rows = (await self._reads.execute(self._sql.payload, (row_id,))).rows
        return bytes(rows[0][0]) if rows else None

    # Marking

    async def mark_produced(self, ids: Sequence[int], term: Term) -> None:
        """See Store."""
        answer = await self._marks.execute(self._sql.mark_produced(ids), (term.nonce,))
        if answer.matched < len(ids):
            await self._check_term(term, self._marks)

    async def delete_produced(self, ids: Sequence[int], term: Term) -> None:
        """See Store."""
        answer = await self._marks.execute(self._sql.delete_produced(ids), (term.nonce,))
        if answer.matched < len(ids):
            await self._check_term(term, self._marks)

    async def mark_dead(self, row_id: int, error: str, term: Term) -> None:
        """See Store."""
        parameters = (error[:MAX_ERROR_CHARS], row_id, term.nonce)
        answer = await self._marks.execute(self._sql.mark_dead, parameters)
        if not answer.matched:
            await self._check_term(term, self._marks)

    async def _check_term(self, term: Term, channel: Channel) -> None:
        """Raise unless *term* is current: rows that did not match were then settled before."""
        rows = (await channel.execute(self._sql.term_is_current, (term.nonce,))).rows
        if not rows:
            raise LeaseLost(f"another relay took the lanes from term {term.number}")
        if not rows[0][0]:
            raise StoreUnavailable(
                f"the lease of term {term.number} ran out and is not yet renewed"
            )

    # Beside it

    async def paused_topics(self) -> frozenset[str]:
        """See Store."""
        return frozenset(row[0] for row in (await self._dirty.execute(self._sql.paused)).rows)

    async def dead_keys(self, *, limit: int) -> DeadKeys:
        """See Store."""
        # Not on the dirty connection: a requeue that is not committed must not let its key go on.
        return dead_keys_of((await self._samples.execute(self._sql.dead_keys(limit))).rows, limit)

    async def sample(self, *, cap: int) -> Backlog:
        """See Store."""
        row = (await self._samples.execute(self._sql.sample(cap))).rows[0]
        return Backlog(
            rows=min(row[0], cap), capped=row[0] > cap, dead_rows=min(row[1], cap), oldest_us=row[2]
        )

    async def aged(self, plan: PurgePlan) -> list[Aged]:
        """See Store."""
        parameters = (-plan.older_than_seconds,)
        rows = (await self._purges.execute(self._sql.retention.aged(plan), parameters)).rows
        return [Aged(row[0], bool(row[1]), row[2], bytes(row[3]), row[4]) for row in rows]

    async def purge(self, ids: Sequence[int], plan: PurgePlan, term: Term) -> int:
        """See Store."""
        await self._check_term(term, self._purges)
        sql = self._sql.retention.purge(_ids(ids), plan)
        return (await self._purges.execute(sql, (-plan.older_than_seconds,))).matched

    async def close(self) -> None:
        """See Store."""
        await asyncio.gather(*(channel.close() for channel in self._channels))
        await self._engine.dispose()


class _Statements:
    """The SQL of one outbox in one dialect."""

    def __init__(self, dialect: Dialect, names: Tables, preparer: IdentifierPreparer) -> None:
        d, p = dialect, dialect.placeholder
        self._d = d
        quote = preparer.quote_identifier
        name, lease, control, version = [
            ".".join(quote(part) for part in (table.schema, table.name) if part)
            for table in (names.outbox, names.lease, names.control, names.version)
        ]
        self._pending = f"{name} {d.pending_hint.format(quote(names.pending_index))}"
        current = f"EXISTS (SELECT 1 FROM {lease} WHERE nonce = {p} AND expires_at > {d.now})"
        self._mark = (
            f"UPDATE {name} {d.primary_hint} "
            f"SET status = {Status.PRODUCED:d}, produced_at = {d.now} "
            f"WHERE id IN ({{}}) AND status = {Status.PENDING:d} AND {current}"
        )
        self.retention = Retention(d, table=name, by_status=self._pending, current=current)
        self.mark_dead = (
            f"UPDATE {name} SET status = {Status.DEAD:d}, attempts = attempts + 1, "
            f"dead_at = {d.now}, last_error = {p} "
            f"WHERE id = {p} AND status = {Status.PENDING:d} AND {current}"
        )
        self.term_is_current = f"SELECT expires_at > {d.now} FROM {lease} WHERE nonce = {p} LIMIT 1"
        self.version = f"SELECT version, min_reader FROM {version} ORDER BY version DESC LIMIT 1"
        # Not COUNT(CASE ...): beside COUNT(*), MySQL 8.0.15 counts the NULLs too.
        self.held = (
            f"SELECT COUNT(*), SUM(CASE WHEN expires_at > {d.now} THEN 1 ELSE 0 END) FROM {lease}"
        )
        # MySQL assigns from left to right: what looks at the old nonce and server comes first.
        self.acquire = (
            f"UPDATE {lease} SET "
            f"crash_count = CASE WHEN nonce = '' THEN 0 ELSE crash_count + 1 END, "
            f"noted_id = CASE WHEN server = {p} THEN noted_id ELSE 0 END, "
            f"term = term + 1, owner = {p}, nonce = {p}, expires_at = {d.seconds_ahead}, "
            f"wake_address = {p}, server = {p} WHERE expires_at <= {d.now}"
        )
        self.lease = f"SELECT lane, term, noted_id, crash_count FROM {lease} WHERE nonce = {p}"
        self.renew = (
            f"UPDATE {lease} SET expires_at = {d.seconds_ahead}, noted_id = {p} WHERE nonce = {p}"
        )
        self.release = (
            f"UPDATE {lease} SET owner = '', nonce = '', wake_address = '', crash_count = 0, "
            f"expires_at = '1970-01-01 00:00:00.000000' WHERE nonce = {p}"
        )
        self.max_id = f"SELECT MAX(id) FROM {name}"
        self.payload = f"SELECT {d.blob.format('payload')} FROM {name} WHERE id = {p}"
        self.paused = f"SELECT topic FROM {control}"
        self._columns = self._row_columns()

    def _row_columns(self) -> str:
        d = self._d
        length = f"LENGTH({d.blob.format('payload')})"
        return ", ".join(
            (
                "id",
                "topic",
                d.blob.format(d.key),
                f"CASE WHEN {length} <= {LARGE_PAYLOAD_BYTES} THEN {d.blob.format('payload')} END",
                length,
                "codec",
                "headers",
                d.blob.format("event_id"),
                "event_name",
                "content_type",
                d.microseconds.format("created_at"),
                f"CASE WHEN attempts > 0 THEN {d.microseconds.format('available_at')} END",
            )
        )

    def _where(self, plan: ReadPlan) -> tuple[str, tuple[str, ...]]:
        upto = "" if plan.upto_id is None else f" AND id <= {plan.upto_id:d}"
        which = f"id > {plan.after_id:d}{upto}"
        if plan.open_ids:
            which = f"({which}) OR id IN ({_ids(plan.open_ids)})"
        where = f"status = {Status.PENDING:d} AND ({which})"
        for first, last in plan.skip_ids:
            where += f" AND (id < {first:d} OR id > {last:d})"
        topics = tuple(sorted(plan.skip_topics))
        if topics:
            where += f" AND topic NOT IN ({','.join([self._d.placeholder] * len(topics))})"
        return where, topics

    def read(self, plan: ReadPlan) -> tuple[str, tuple[str, ...]]:
        """One statement, so one snapshot."""
        where, topics = self._where(plan)
        return (
            f"SELECT {self._columns} FROM {self._pending} WHERE {where} "
            f"ORDER BY id LIMIT {plan.limit:d}"
        ), topics

    def pending_ids(self, plan: ReadPlan) -> tuple[str, tuple[str, ...]]:
        """Served by the index alone unless topics pause."""
        where, topics = self._where(plan)
        return f"SELECT id FROM {self._pending} WHERE {where}", topics

    def mark_produced(self, ids: Sequence[int]) -> str:
        """The term's test alone does not fence: a statement that waited for a row lock goes on with
        what it read before. With ``status = 0`` it then touches nothing."""
        return self._mark.format(_ids(ids))

    def delete_produced(self, ids: Sequence[int]) -> str:
        """With the same fence as `mark_produced`."""
        return self.retention.delete_produced(_ids(ids))

    def dead_keys(self, limit: int) -> str:
        """The first *limit* dead letters and one more, by the index."""
        return dead_keys_sql(self._d, self._pending, limit)

    def sample(self, cap: int) -> str:
        """Counts no more than *cap* + 1 rows of each kind."""
        counts = ", ".join(
            f"(SELECT COUNT(*) FROM (SELECT 1 FROM {self._pending} "
            f"WHERE status = {status:d} LIMIT {cap + 1:d}) AS s{status:d})"
            for status in (Status.PENDING, Status.DEAD)
        )
        oldest = self._d.microseconds.format("created_at")
        return (
            f"SELECT {counts}, (SELECT {oldest} FROM {self._pending} "
            f"WHERE status = {Status.PENDING:d} ORDER BY id LIMIT 1)"
        )
