"""The outbox over SQLAlchemy, for every database that has a `Dialect`."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import replace

from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from outbox_relay.errors import (
    ConfigError,
    SchemaMismatch,
    ServerChanged,
    ServerReadOnly,
    StoreUnavailable,
)
from outbox_relay.relay.canary_options import CANARY_NAME
from outbox_relay.relay.lease import Lease, Past, Sharing, Suspects, Term
from outbox_relay.relay.ports import (
    CANARY_DEAD,
    CANARY_GONE,
    Aged,
    Backlog,
    DeadKeys,
    Observer,
    PurgePlan,
    ReadPlan,
    Row,
    Waiting,
)
from outbox_relay.relay.watching import Silent
from outbox_relay.schema import MAX_ERROR_CHARS, SUSPECTS_VERSION, Status, schema_problem, tables
from outbox_relay.store import mysql, postgresql, sqlite
from outbox_relay.store.ahead import Ahead
from outbox_relay.store.channel import Channel, MissingTable
from outbox_relay.store.dead_letters import dead_keys_of
from outbox_relay.store.dialect import Dialect
from outbox_relay.store.holders import Holders
from outbox_relay.store.leases import Leases
from outbox_relay.store.login import log_in
from outbox_relay.store.options import DatabaseOptions
from outbox_relay.store.statements import Statements


def dialect_of(options: DatabaseOptions) -> Dialect:
    """What differs on the database that ``options.url`` names. Raises ConfigError for another one."""
    name = make_url(options.url).get_backend_name()
    if name in ("mysql", "mariadb"):
        return mysql.dialect(options)
    if name == "sqlite":
        return sqlite.dialect(options)
    if name == "postgresql":
        return postgresql.dialect(options)
    raise ConfigError(
        [
            f"database.url: {name} is not supported: use mysql+asyncmy, mariadb+asyncmy, "
            "postgresql+asyncpg or sqlite+aiosqlite"
        ]
    )


def engine_of(options: DatabaseOptions, dialect: Dialect) -> AsyncEngine:
    """An engine without a pool, whose connections log in and commit as *dialect* has it."""
    engine = create_async_engine(
        options.url,
        poolclass=NullPool,
        isolation_level="READ COMMITTED" if dialect.each_in_transaction else "AUTOCOMMIT",
        hide_parameters=True,
        connect_args=dict(dialect.connect_args),
        **dialect.engine_options,
    )
    log_in(engine, options)
    return engine


class SqlStore:
    """The `Store` port over one connection for each kind of work."""

    def __init__(self, options: DatabaseOptions, *, observer: Observer | None = None) -> None:
        self._observer = observer or Silent()
        self._dialect = dialect = dialect_of(options)
        self.settle_seconds = dialect.settle_seconds
        self._engine = engine_of(options, dialect)
        self._tables = tables(options.table, schema=options.schema or None)
        self._server: str | None = None
        self._ahead = Ahead()
        self._reads = self._channel(options)
        self._dirty = self._channel(options, *(dialect.dirty_session or ()))
        self._marks = self._channel(options)
        self._more_marks = self._channel(options) if dialect.writes_side_by_side else self._marks
        self._leases = self._channel(options)
        self._samples = self._channel(options)
        self._purges = self._channel(options)
        self._sql = Statements(dialect, self._tables, self._engine.dialect.identifier_preparer)
        self._lanes = Leases(dialect, self._sql.lease, self._leases, self._tables)

    def _channel(self, options: DatabaseOptions, *session: str) -> Channel:
        return Channel(
            self._engine,
            session=(*self._dialect.session, *session),
            timeout_seconds=options.timeout_seconds,
            connect_timeout_seconds=options.connect_timeout_seconds,
            no_such_table=self._dialect.no_such_table,
            on_connect=self._check_server,
            on_read_only=self._let_go,
            on_unexpected=self._unexpected,
            on_lost=self._observer.connection_lost,
            each_in_transaction=self._dialect.each_in_transaction,
        )

    @property
    def _channels(self) -> tuple[Channel, ...]:
        marks = {self._marks, self._more_marks}
        return (self._reads, self._dirty, *marks, self._leases, self._samples, self._purges)

    def _let_go(self) -> None:
        """No connection may stay with a server that only reads: names are looked up anew."""
        for channel in self._channels:
            channel.let_go()

    def _unexpected(self, word: str) -> None:
        self._observer.log("unexpected_error", source="database", error=word)

    async def _check_server(self, connection: AsyncConnection) -> None:
        identity = (await connection.exec_driver_sql(self._dialect.identity)).scalar_one()
        if identity is None:
            self._let_go()
            raise ServerReadOnly("the server is a standby, which only reads: name the primary")
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
        self._lanes.keeps_suspects = (version or 0) >= SUSPECTS_VERSION

    # Lease

    async def acquire(
        self, owner: str, *, wake_address: str, lease_seconds: float, slots: int = 1
    ) -> Lease | None:
        """See Store."""
        self._server = None
        lease = await self._lanes.acquire(
            owner, wake_address=wake_address, lease_seconds=lease_seconds, slots=slots
        )
        for channel in self._channels:
            if channel is not self._leases:
                # Perhaps opened to another server, when this one was not yet known. And who stands by
                # holds one connection, also after it was active: standbys are many.
                await channel.reconnect()
        if lease is None:
            return None
        self._server = lease.server
        self._ahead = Ahead(Holders(low=lease.noted_id))
        return lease

    async def look(self, lease: Lease) -> Sharing:
        """See Store."""
        return await self._lanes.look(lease)

    async def take(
        self, lease: Lease, lanes: frozenset[int], *, lease_seconds: float
    ) -> frozenset[int]:
        """See Store."""
        return await self._lanes.take(lease, lanes, lease_seconds=lease_seconds)

    async def give(self, lease: Lease, lanes: frozenset[int]) -> None:
        """See Store."""
        await self._lanes.give(lease, lanes)

    async def wake_addresses(self) -> frozenset[str]:
        """See Store."""
        return await self._lanes.wake_addresses()

    async def renew(self, lease: Lease, *, noted_id: int, lease_seconds: float) -> None:
        """See Store."""
        noted_id = self._ahead.settled(noted_id)
        await self._lanes.renew(lease, noted_id=noted_id, lease_seconds=lease_seconds)

    async def past(self, term: Term) -> Past:
        """See Store."""
        return await self._lanes.suspects.past(term)

    async def suspect(
        self, first_id: int, last_id: int, lanes: Collection[int], term: Term
    ) -> None:
        """See Store."""
        await self._lanes.suspects.suspect(first_id, last_id, lanes, term)

    async def acquit(
        self, lanes: Collection[int], term: Term, *, still: Suspects | None = None
    ) -> None:
        """See Store."""
        await self._lanes.suspects.acquit(lanes, term, still=still)

    async def recovered(self, term: Term) -> None:
        """See Store."""
        await self._lanes.suspects.recovered(term)

    async def release(self, lease: Lease) -> None:
        """See Store."""
        await self._lanes.release(lease)

    # Reading

    async def read(self, plan: ReadPlan) -> list[Row]:
        """See Store."""
        self._ahead.reads()
        sql, parameters = self._sql.read(plan)
        return list(map(Row._make, (await self._reads.execute(sql, parameters)).rows))

    async def uncommitted_ids(self, plan: ReadPlan) -> list[int]:
        """See Store."""
        if self._dialect.holders is not None:
            return await self._maybe_open(plan)
        if self._dialect.dirty_session is None:
            return []
        sql, parameters = self._sql.pending_ids(plan)
        return [row[0] for row in (await self._dirty.execute(sql, parameters)).rows]

    async def _maybe_open(self, plan: ReadPlan) -> list[int]:
        found: list[int] = []
        todo = self._ahead.pieces(plan)
        if plan.open_ids:
            sql, parameters = self._sql.open_ids(plan, low=self._ahead.low)
            found += [row[0] for row in (await self._dirty.execute(sql, parameters)).rows]
        while todo and len(found) < plan.limit:
            after, upto = todo.pop(0)
            sql, parameters = self._sql.open_range(plan, after, upto, low=self._ahead.low)
            ids = [row[0] for row in (await self._dirty.execute(sql, parameters)).rows]
            found += self._ahead.open_of(ids)
            if len(ids) < plan.limit:
                self._ahead.looked(upto)
            else:
                todo.insert(0, (ids[-1], upto))
        return found

    async def max_id(self, *, at_least: int = 0) -> int:
        """See Store."""
        if self._dialect.holders is not None:
            row = (await self._dirty.execute(self._sql.holders(at_least))).rows[0]
            holders = set(row[1].split(",")) if row[1] else set()
            return self._ahead.noted(max(int(row[0] or 0), at_least), holders)
        if at_least and not (await self._dirty.execute(self._sql.any_above(at_least))).rows:
            return at_least
        row = (await self._dirty.execute(self._sql.max_id)).rows[0]
        return max(int(row[0] or 0), at_least)

    async def payload(self, row_id: int) -> bytes | None:
        """See Store."""
        rows = (await self._reads.execute(self._sql.payload, (row_id,))).rows
        return bytes(rows[0][0]) if rows else None

    # Marking

    async def mark_produced(self, ids: Sequence[int], term: Term) -> None:
        """See Store."""
        await self._record(self._sql.mark_produced(ids, self._lanes.sql.fence(term)), ids, term)

    async def delete_produced(self, ids: Sequence[int], term: Term) -> None:
        """See Store."""
        self._deletes(ids)
        await self._record(self._sql.delete_produced(ids, self._lanes.sql.fence(term)), ids, term)

    async def _record(self, sql: str, ids: Sequence[int], term: Term) -> None:
        channel = self._more_marks if self._marks.is_busy() else self._marks
        answer = await channel.execute(sql, (term.nonce,))
        if answer.matched < len(ids):
            await self._lanes.check(term, channel)

    def _deletes(self, ids: Sequence[int]) -> None:
        if self._dialect.holders is not None:
            self._ahead.deletes(ids)

    async def mark_dead(
        self, row_id: int, error: str, term: Term, *, requeued_us: int | None = None
    ) -> None:
        """See Store."""
        # PostgreSQL's text holds no NUL.
        error = error.replace("\0", "")[:MAX_ERROR_CHARS]
        requeued = -1 if requeued_us is None else requeued_us
        parameters = (error, row_id, requeued, term.nonce)
        sql = self._sql.mark_dead(self._lanes.sql.fence(term))
        answer = await self._marks.execute(sql, parameters)
        if not answer.matched:
            await self._lanes.check(term, self._marks)

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

    async def waiting(self, *, limit: int, by_key: bool) -> list[Waiting]:
        """See Store."""
        rows = (await self._samples.execute(self._sql.waiting(limit, by_key=by_key))).rows
        return [
            Waiting(row[0], None if row[1] is None else bytes(row[1]), row[2], int(row[3] or 0))
            for row in rows
        ]

    async def write_canary(self, topic: str) -> int:
        """See Store."""
        answer = await self._samples.execute(self._sql.canary, (CANARY_NAME, topic, b"{}"))
        if not answer.rows:
            # On the same connection, else there is no such id.
            answer = await self._samples.execute(self._sql.canary_id)
        if not answer.rows[0][0]:
            raise StoreUnavailable("the connection of the canary broke: its id is not known")
        return int(answer.rows[0][0])

    async def canary_seconds(self, row_id: int) -> float | None:
        """See Store."""
        rows = (await self._samples.execute(self._sql.canary_seconds, (row_id,))).rows
        if not rows:
            return CANARY_GONE
        status, microseconds = rows[0]
        if status == Status.PRODUCED:
            return max(0, int(microseconds)) / 1_000_000
        return CANARY_DEAD if status == Status.DEAD else None

    async def aged(self, plan: PurgePlan) -> list[Aged]:
        """See Store."""
        parameters = (-plan.older_than_seconds,)
        rows = (await self._purges.execute(self._sql.aged(plan), parameters)).rows
        return [Aged(row[0], bool(row[1]), row[2], bytes(row[3]), row[4]) for row in rows]

    async def purge(self, ids: Sequence[int], plan: PurgePlan, term: Term) -> int:
        """See Store."""
        # Rows that are due are due, whoever has their lanes.
        await self._lanes.check(replace(term, lanes=frozenset()), self._purges)
        return await self.purge_by_hand(ids, plan)

    async def purge_by_hand(self, ids: Sequence[int], plan: PurgePlan) -> int:
        """As `purge`, by an operator's word instead of a term's. Not part of the port."""
        self._deletes(ids)
        sql = self._sql.purge(ids, plan)
        return (await self._purges.execute(sql, (-plan.older_than_seconds,))).matched

    async def close(self) -> None:
        """See Store."""
        await asyncio.gather(*(channel.close() for channel in self._channels))
        await self._engine.dispose()
