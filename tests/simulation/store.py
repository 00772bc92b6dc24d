"""
The `Store` port of one simulated relay: each call is a statement that travels to the database, takes
effect there at some instant, and whose answer travels back. Either way may fail.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any

from outbox_relay.errors import LeaseLost, SchemaMismatch, ServerChanged, StoreUnavailable
from outbox_relay.relay.lease import Lease, Past, Sharing, Suspects, Term
from outbox_relay.relay.ports import Aged, Backlog, DeadKeys, PurgePlan, ReadPlan, Row, Waiting
from outbox_relay.store.ahead import Ahead
from outbox_relay.store.holders import Holders
from tests.simulation.database import Database
from tests.simulation.loop import Process, VirtualLoop
from tests.simulation.network import Network
from tests.simulation.oracle import Event, TermSeen

MOST_IN_VAIN = 300
"""Reads in a second that bring no row that was not read before. Each pass over a backlog has some."""

READS, DIRTY, MARKS, MORE_MARKS, LEASES, SAMPLES, PURGES = range(7)
ENDS = (LeaseLost, SchemaMismatch)


class SimulatedStore:
    """As `outbox_relay.store.SqlStore`: a connection for each kind of work, checked when it is opened."""

    def __init__(
        self, process: Process, database: Database, network: Network, *, engine: str
    ) -> None:
        self._process = process
        self._database = database
        self._network = network
        self._loop: VirtualLoop = network.loop
        self._dirty = engine == "mariadb"
        self._holders = engine.startswith("postgresql")
        self.settle_seconds = 2.0 if self._dirty else 0.0
        self._ahead = Ahead()
        self._server: str | None = None
        self._connections: list[str | None] = [None] * 7
        self._locks = [asyncio.Lock() for _ in range(7)]
        self._under_way = 0
        self.term: TermSeen | None = None
        self.canary: Event | None = None
        """The last one that it wrote."""
        self._seen: set[int] = set()
        self._in_vain: deque[float] = deque()
        self.asked_at = self._loop.time()
        """When it last asked for a lease, or for more of it."""

    async def _ask(
        self,
        name: str,
        channel: int,
        effect: Callable[..., Any],
        *,
        first: Callable[[], Any] | None = None,
    ) -> Any:
        """
        Run one statement. *first* is its part that goes before a wait for a row lock; its result is
        *effect*'s argument.
        """
        async with self._locks[channel]:
            answer: asyncio.Future[Any] = self._loop.create_future()
            self._under_way += 1
            if name in ("acquire", "renew", "schema"):
                self.asked_at = self._loop.time()
            try:
                self._network.statement(self, name, channel, effect, first, answer)
                return await answer
            except ENDS:
                raise
            except BaseException:
                self._connections[channel] = None
                raise
            finally:
                self._under_way -= 1

    def arrives(self, channel: int) -> None:
        """The statement reaches the server, if it still is the one of this connection."""
        server = self._database.server
        connected = self._connections[channel]
        if connected == server:
            return
        if connected is not None:
            raise StoreUnavailable("the server has gone away")
        self.check_server(server)
        self._connections[channel] = server

    def check_server(self, server: str) -> None:
        """A connection is opened to *server*."""
        if self._server is not None and self._server != server:
            raise ServerChanged(f"{server} answers instead of {self._server}")

    @property
    def server(self) -> str:
        """Who answers now."""
        return self._database.server

    def lanes(self) -> dict[int, str]:
        """Whose each lane is, in truth."""
        return self._database.leases.owners_by_lane()

    @property
    def process(self) -> Process:
        """Whose store it is."""
        return self._process

    @property
    def under_way(self) -> int:
        """Statements without an answer."""
        return self._under_way

    # Schema and lease

    async def check_schema(self) -> None:
        await self._ask("schema", LEASES, self._database.check_schema)

    async def acquire(
        self, owner: str, *, wake_address: str, lease_seconds: float, slots: int = 1
    ) -> Lease | None:
        self._server = None
        database = self._database
        lease: Lease | None = await self._ask(
            "acquire",
            LEASES,
            lambda: database.acquire(
                owner, wake_address=wake_address, lease_seconds=lease_seconds, slots=slots
            ),
        )
        if lease is not None:
            self._server = lease.server
            self._ahead = Ahead(Holders(low=lease.noted_id))
            self.term = database.oracle.terms[lease.term.nonce]
            self._connections = [
                c if i == LEASES else None for i, c in enumerate(self._connections)
            ]
        return lease

    async def look(self, lease: Lease) -> Sharing:
        return await self._ask("look", LEASES, lambda: self._database.look(lease))

    async def take(
        self, lease: Lease, lanes: frozenset[int], *, lease_seconds: float
    ) -> frozenset[int]:
        database = self._database
        return await self._ask("take", LEASES, lambda: database.take(lease, lanes, lease_seconds))

    async def give(self, lease: Lease, lanes: frozenset[int]) -> None:
        await self._ask("give", LEASES, lambda: self._database.leases.give(lease, lanes))

    async def wake_addresses(self) -> frozenset[str]:
        return frozenset()

    async def renew(self, lease: Lease, *, noted_id: int, lease_seconds: float) -> None:
        noted_id = self._ahead.settled(noted_id)
        leases = self._database.leases
        await self._ask(
            "renew",
            LEASES,
            lambda: leases.renew(lease, noted_id=noted_id, lease_seconds=lease_seconds),
        )

    async def release(self, lease: Lease) -> None:
        await self._ask("release", LEASES, lambda: self._database.leases.release(lease))

    # Suspects

    async def past(self, term: Term) -> Past:
        return await self._ask("past", LEASES, lambda: self._database.leases.past(term))

    async def suspect(
        self, first_id: int, last_id: int, lanes: Collection[int], term: Term
    ) -> None:
        leases = self._database.leases
        await self._ask("suspect", LEASES, lambda: leases.suspect(first_id, last_id, lanes, term))

    async def acquit(
        self, lanes: Collection[int], term: Term, *, still: Suspects | None = None
    ) -> None:
        leases = self._database.leases
        await self._ask("acquit", LEASES, lambda: leases.acquit(lanes, term, still=still))

    async def recovered(self, term: Term) -> None:
        await self._ask("recovered", LEASES, lambda: self._database.leases.recovered(term))

    # Reading

    async def read(self, plan: ReadPlan) -> list[Row]:
        self._ahead.reads()
        self._database.oracle.asked(plan.limit, self._under_way)
        rows: list[Row] = await self._read(plan)
        ids = {row.id for row in rows}
        if ids <= self._seen:
            self._in_vain.append(self._loop.time())
            if (
                len(self._in_vain) > MOST_IN_VAIN
                and self._in_vain.popleft() > self._loop.time() - 1
            ):
                self._database.oracle.broken("I10", f"{self._process.name} reads without a rest")
        self._seen |= ids
        return rows

    async def _read(self, plan: ReadPlan) -> list[Row]:
        return await self._ask("read", READS, lambda: self._database.read(plan))

    async def uncommitted_ids(self, plan: ReadPlan) -> list[int]:
        if self._holders:
            return await self._maybe_open(plan)
        if not self._dirty:
            return []
        return await self._ask("peek", DIRTY, lambda: self._database.uncommitted_ids(plan))

    async def _maybe_open(self, plan: ReadPlan) -> list[int]:
        """As SqlStore's, which asks with the statements of `AheadStatements`."""
        found: list[int] = []
        ahead = self._ahead
        todo = ahead.pieces(plan)
        if plan.open_ids:
            found += await self._peek(plan, sorted(plan.open_ids))
        for after, upto in todo:
            ids = await self._peek(plan, range(after + 1, upto + 1))
            found += ahead.open_of(ids)
            ahead.looked(upto)
        return found

    async def _peek(self, plan: ReadPlan, ids: Sequence[int]) -> list[int]:
        low = self._ahead.low
        return await self._ask("peek", DIRTY, lambda: self._database.maybe_open(plan, ids, low))

    async def max_id(self, *, at_least: int = 0) -> int:
        database = self._database
        if self._holders:
            seen = await self._ask("max_id", DIRTY, lambda: database.holders(at_least))
            return self._ahead.noted(*seen)
        seen = database.max_id if self._dirty else database.max_committed_id
        return await self._ask("max_id", DIRTY, lambda: seen(at_least))

    async def payload(self, row_id: int) -> bytes | None:
        return await self._ask("payload", READS, lambda: self._database.payload(row_id))

    # Marking

    async def mark_produced(self, ids: Sequence[int], term: Term) -> None:
        await self._mark(ids, term, delete=False)

    async def delete_produced(self, ids: Sequence[int], term: Term) -> None:
        if self._holders:
            self._ahead.deletes(ids)
        await self._mark(ids, term, delete=True)

    async def _mark(self, ids: Sequence[int], term: Term, *, delete: bool) -> None:
        database = self._database
        await self._ask(
            "mark",
            MORE_MARKS if self._locks[MARKS].locked() else MARKS,
            lambda owners: database.mark(ids, term, owners, delete=delete),
            first=lambda: database.fence(ids, term),
        )

    async def mark_dead(
        self, row_id: int, error: str, term: Term, *, requeued_us: int | None = None
    ) -> None:
        database = self._database
        await self._ask(
            "dead",
            MARKS,
            lambda owners: database.mark_dead(row_id, error, term, owners, requeued_us),
            first=lambda: database.fence([row_id], term),
        )

    # Beside it

    async def paused_topics(self) -> frozenset[str]:
        return await self._ask("paused", DIRTY, lambda: frozenset(self._database.paused))

    async def dead_keys(self, *, limit: int) -> DeadKeys:
        return await self._ask("dead_keys", SAMPLES, lambda: self._database.dead_keys(limit))

    async def sample(self, *, cap: int) -> Backlog:
        return await self._ask("sample", SAMPLES, lambda: self._database.sample(cap))

    async def waiting(self, *, limit: int, by_key: bool) -> list[Waiting]:
        # With the sample's answer, as if it were one statement: chance is asked no more often than in
        # the worlds that are kept.
        return self._database.waiting(limit, by_key)

    async def write_canary(self, topic: str) -> int:
        self.canary = await self._ask("canary", SAMPLES, lambda: self._database.canary(topic))
        return self.canary.row.id

    async def canary_seconds(self, row_id: int) -> float | None:
        database = self._database
        return await self._ask("follow", SAMPLES, lambda: database.canary_seconds(row_id))

    async def aged(self, plan: PurgePlan) -> list[Aged]:
        return await self._ask("aged", PURGES, lambda: self._database.aged(plan))

    async def purge(self, ids: Sequence[int], plan: PurgePlan, term: Term) -> int:
        if self._holders:
            self._ahead.deletes(ids)
        return await self._ask("purge", PURGES, lambda: self._database.purge(ids, plan, term))

    async def close(self) -> None:
        self._connections = [None] * 7
