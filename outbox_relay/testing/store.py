"""The `Store` port in memory, with writers whose transactions commit when a test says so."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from outbox_relay.errors import SchemaMismatch, ServerChanged
from outbox_relay.events import uuid7
from outbox_relay.relay import ports
from outbox_relay.relay.lease import Lease, Past, Sharing, Suspects, Term
from outbox_relay.relay.ports import Aged, Backlog, DeadKeys, PurgePlan, ReadPlan, Row, Waiting
from outbox_relay.schema import LANES, Codec, Status
from outbox_relay.testing.clock import FakeClock
from outbox_relay.testing.leases import MemoryLeases


def grouped(rows: Iterable[Row], *, by_key: bool) -> list[Waiting]:
    """Of which topics, or of which topics and keys, *rows* are."""
    found: dict[tuple[str, bytes | None], Waiting] = {}
    for row in rows:
        name = (row.topic, row.key if by_key else None)
        before = found.get(name, Waiting(*name, 0, row.created_us or 0))
        oldest = min(before.oldest_us, row.created_us or 0)
        found[name] = Waiting(*name, before.rows + 1, oldest)
    return list(found.values())


@dataclass(slots=True)
class _Stored:
    row: Row
    committed: bool
    status: Status = Status.PENDING
    last_error: str | None = None
    settled_at: float = 0.0


@dataclass(slots=True)
class Transaction:
    """A writer's transaction on an `InMemoryStore`. Ids are given out at once, as databases do."""

    store: InMemoryStore
    ids: list[int] = field(default_factory=list)

    def insert(
        self,
        topic: str,
        *,
        key: bytes | None = None,
        payload: bytes = b"{}",
        name: str = "event",
        headers: Mapping[str, str] | None = None,
        codec: Codec = Codec.RAW,
    ) -> int:
        """Insert an event; its id."""
        row_id = self.store.next_id()
        event_id = uuid7().bytes
        row = Row(
            id=row_id,
            topic=topic,
            key=key,
            payload=payload,
            payload_bytes=len(payload),
            codec=codec,
            headers=None if headers is None else json.dumps(dict(headers)),
            event_id=event_id,
            event_name=name,
            content_type="application/json",
            created_us=self.store.clock.wall_us(),
            requeued_us=None,
            lane=zlib.crc32(event_id if key is None else key) % LANES,
        )
        self.store.rows[row_id] = _Stored(row, committed=False)
        self.ids.append(row_id)
        return row_id

    def commit(self) -> None:
        """Everyone sees the events from now on."""
        for row_id in self.ids:
            self.store.rows[row_id].committed = True

    def rollback(self) -> None:
        """The events never were; their ids do not come back."""
        for row_id in self.ids:
            del self.store.rows[row_id]


class InMemoryStore:
    """
    The `Store` port in memory. Several relays may share one.

    `fail` makes the next calls of a method raise, `before` runs a hook ahead of each; both take the
    method's name. `server` may be changed, as a failover does; `leases` shows whose the lanes are.
    """

    def __init__(self, clock: FakeClock, *, settle_seconds: float = 2.0) -> None:
        self.clock = clock
        self.settle_seconds = settle_seconds
        self.rows: dict[int, _Stored] = {}
        self.server = "memory:1"
        self.paused: set[str] = set()
        self.schema_problem: str | None = None
        self.calls: list[str] = []
        self.before: dict[str, Callable[[], object]] = {}
        self._failures: dict[str, list[Exception]] = {}
        self._last_id = 0
        self.leases = MemoryLeases(clock)
        self._served_by = ""

    # For tests

    def begin(self) -> Transaction:
        """A writer's transaction."""
        return Transaction(self)

    def insert(self, topic: str, *, key: bytes | None = None, payload: bytes = b"{}") -> int:
        """Insert and commit one event; its id."""
        transaction = self.begin()
        row_id = transaction.insert(topic, key=key, payload=payload)
        transaction.commit()
        return row_id

    def next_id(self) -> int:
        """The id that an insert gets."""
        self._last_id += 1
        return self._last_id

    def status(self, row_id: int) -> Status:
        """Where a row stands."""
        return self.rows[row_id].status

    def error(self, row_id: int) -> str | None:
        """Why a row is a dead letter."""
        return self.rows[row_id].last_error

    def requeue(self, row_id: int) -> None:
        """Send a dead letter once more, as `outbox-relay dead-letters requeue` does."""
        stored = self.rows[row_id]
        if stored.status is Status.DEAD:
            stored.status, stored.last_error = Status.PENDING, None
            stored.row = stored.row._replace(requeued_us=self.clock.wall_us())

    def discard(self, row_id: int) -> None:
        """Delete a dead letter."""
        if self.rows[row_id].status is Status.DEAD:
            del self.rows[row_id]

    def pending(self) -> list[int]:
        """Ids of committed rows that wait."""
        return [i for i, s in self.rows.items() if s.committed and s.status is Status.PENDING]

    def fail(self, method: str, *errors: Exception) -> None:
        """Make the next calls of *method* raise *errors*, one each."""
        self._failures.setdefault(method, []).extend(errors)

    async def _enter(self, method: str) -> None:
        self.calls.append(method)
        hook = self.before.get(method)
        if hook is not None:
            result = hook()
            if asyncio.iscoroutine(result):
                await result
        await asyncio.sleep(0)
        waiting = self._failures.get(method)
        if waiting:
            raise waiting.pop(0)

    # The port

    async def check_schema(self) -> None:
        """See Store."""
        await self._enter("check_schema")
        self._same_server()
        if self.schema_problem is not None:
            raise SchemaMismatch(self.schema_problem)

    async def acquire(
        self, owner: str, *, wake_address: str, lease_seconds: float, slots: int = 1
    ) -> Lease | None:
        """See Store."""
        await self._enter("acquire")
        self._served_by = ""
        lease = self.leases.acquire(
            owner,
            wake_address=wake_address,
            lease_seconds=lease_seconds,
            slots=slots,
            server=self.server,
        )
        if lease is not None:
            self._served_by = lease.server
        return lease

    async def look(self, lease: Lease) -> Sharing:
        """See Store."""
        await self._enter("look")
        return self.leases.look(lease)

    async def take(
        self, lease: Lease, lanes: frozenset[int], *, lease_seconds: float
    ) -> frozenset[int]:
        """See Store."""
        await self._enter("take")
        return self.leases.take(lease, lanes, lease_seconds=lease_seconds)

    async def give(self, lease: Lease, lanes: frozenset[int]) -> None:
        """See Store."""
        await self._enter("give")
        self.leases.give(lease, lanes)

    async def wake_addresses(self) -> frozenset[str]:
        """See Store."""
        await self._enter("wake_addresses")
        return self.leases.wake_addresses()

    async def renew(self, lease: Lease, *, noted_id: int, lease_seconds: float) -> None:
        """See Store."""
        await self._enter("renew")
        self.leases.renew(lease, noted_id=noted_id, lease_seconds=lease_seconds)

    async def past(self, term: Term) -> Past:
        """See Store."""
        await self._enter("past")
        return self.leases.past(term)

    async def suspect(
        self, first_id: int, last_id: int, lanes: Collection[int], term: Term
    ) -> None:
        """See Store."""
        await self._enter("suspect")
        self.leases.suspect(first_id, last_id, lanes, term)

    async def acquit(
        self, lanes: Collection[int], term: Term, *, still: Suspects | None = None
    ) -> None:
        """See Store."""
        await self._enter("acquit")
        self.leases.acquit(lanes, term, still=still)

    async def recovered(self, term: Term) -> None:
        """See Store."""
        await self._enter("recovered")
        self.leases.recovered(term)

    async def release(self, lease: Lease) -> None:
        """See Store."""
        await self._enter("release")
        self.leases.release(lease)

    def _same_server(self) -> None:
        if self._served_by and self._served_by != self.server:
            raise ServerChanged(f"server {self.server} answers instead of {self._served_by}")

    def _matching(self, plan: ReadPlan) -> list[_Stored]:
        upto = plan.upto_id if plan.upto_id is not None else self._last_id
        return [
            stored
            for row_id, stored in sorted(self.rows.items())
            if stored.status is Status.PENDING
            and (plan.after_id < row_id <= upto or row_id in plan.open_ids)
            and stored.row.topic not in plan.skip_topics
            and stored.row.lane in plan.lanes
            and not any(first <= row_id <= last for first, last in plan.skip_ids)
        ]

    async def read(self, plan: ReadPlan) -> list[Row]:
        """See Store."""
        await self._enter("read")
        self._same_server()
        rows = [stored.row for stored in self._matching(plan) if stored.committed]
        return rows[: plan.limit]

    async def uncommitted_ids(self, plan: ReadPlan) -> list[int]:
        """See Store."""
        await self._enter("uncommitted_ids")
        self._same_server()
        return sorted(stored.row.id for stored in self._matching(plan))[: plan.limit]

    async def max_id(self, *, at_least: int = 0) -> int:
        """See Store."""
        await self._enter("max_id")
        return max(at_least, *self.rows, 0)

    async def payload(self, row_id: int) -> bytes | None:
        """See Store."""
        await self._enter("payload")
        stored = self.rows.get(row_id)
        return None if stored is None else stored.row.payload

    async def mark_produced(self, ids: Sequence[int], term: Term) -> None:
        """See Store."""
        await self._enter("mark_produced")
        self._same_server()
        self.leases.require(term)
        for stored in self._pending(ids):
            stored.status, stored.settled_at = Status.PRODUCED, self.clock.now()

    async def delete_produced(self, ids: Sequence[int], term: Term) -> None:
        """See Store."""
        await self._enter("delete_produced")
        self._same_server()
        self.leases.require(term)
        for stored in list(self._pending(ids)):
            del self.rows[stored.row.id]

    async def mark_dead(
        self, row_id: int, error: str, term: Term, *, requeued_us: int | None = None
    ) -> None:
        """See Store."""
        await self._enter("mark_dead")
        self._same_server()
        self.leases.require(term)
        for stored in self._pending([row_id]):
            if stored.row.requeued_us == requeued_us:
                stored.status, stored.last_error = Status.DEAD, error
                stored.settled_at = self.clock.now()

    def _pending(self, ids: Iterable[int]) -> Iterable[_Stored]:
        for row_id in ids:
            stored = self.rows.get(row_id)
            if stored is not None and stored.status is Status.PENDING:
                yield stored

    async def paused_topics(self) -> frozenset[str]:
        """See Store."""
        await self._enter("paused_topics")
        return frozenset(self.paused)

    async def dead_keys(self, *, limit: int) -> DeadKeys:
        """See Store."""
        await self._enter("dead_keys")
        dead = sorted(i for i, stored in self.rows.items() if stored.status is Status.DEAD)
        first_ids: dict[tuple[str, bytes], int] = {}
        for row_id in dead[:limit]:
            row = self.rows[row_id].row
            if row.key is not None:
                first_ids.setdefault((row.topic, row.key), row_id)
        unread_above = dead[limit - 1] if len(dead) > limit else None
        return DeadKeys(first_ids=first_ids, unread_above=unread_above)

    async def sample(self, *, cap: int) -> Backlog:
        """See Store."""
        await self._enter("sample")
        waiting = self.pending()
        dead = sum(1 for stored in self.rows.values() if stored.status is Status.DEAD)
        return Backlog(
            rows=min(len(waiting), cap),
            capped=len(waiting) > cap,
            oldest_us=self.rows[waiting[0]].row.created_us if waiting else None,
            dead_rows=min(dead, cap),
        )

    async def waiting(self, *, limit: int, by_key: bool) -> list[Waiting]:
        """See Store."""
        await self._enter("waiting")
        return grouped((self.rows[i].row for i in self.pending()[:limit]), by_key=by_key)

    async def write_canary(self, topic: str) -> int:
        """See Store."""
        await self._enter("write_canary")
        return self.insert(topic)

    async def canary_seconds(self, row_id: int) -> float | None:
        """See Store."""
        await self._enter("canary_seconds")
        stored = self.rows.get(row_id)
        if stored is None or stored.status is Status.DEAD:
            return ports.CANARY_GONE if stored is None else ports.CANARY_DEAD
        waits = stored.status is Status.PENDING
        return None if waits else stored.settled_at - stored.row.created_us / 1e6

    async def aged(self, plan: PurgePlan) -> list[Aged]:
        """See Store."""
        await self._enter("aged")
        self._same_server()
        until = self.clock.now() - plan.older_than_seconds
        found = [
            Aged(i, s.settled_at <= until, s.row.topic, s.row.event_id, s.last_error)
            for i, s in sorted(self.rows.items())
            if s.status is plan.status and i > plan.after_id
        ]
        return found[: plan.limit]

    async def purge(self, ids: Sequence[int], plan: PurgePlan, term: Term) -> int:
        """See Store."""
        await self._enter("purge")
        self._same_server()
        self.leases.require(replace(term, lanes=frozenset()))
        until = self.clock.now() - plan.older_than_seconds
        due = {i for i, s in self.rows.items() if s.settled_at <= until and s.status is plan.status}
        gone = due.intersection(ids)
        for row_id in gone:
            del self.rows[row_id]
        return len(gone)

    async def close(self) -> None:
        """See Store."""
