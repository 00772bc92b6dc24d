"""
For tests, ours and yours: an outbox in memory, a broker that records, a clock that you move.

`InMemoryStore` and `RecordingBroker` pass the same contract suites as the real ones.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from outbox_relay.errors import (
    LeaseLost,
    SchemaMismatch,
    ServerChanged,
    StoreUnavailable,
    TopicUnavailable,
)
from outbox_relay.events import uuid7
from outbox_relay.relay.outcomes import Acked, Fault, Outcome, Rejected, RejectReason, Unknown
from outbox_relay.relay.ports import Backlog, Lease, ReadPlan, Record, Row, Term
from outbox_relay.relay.watching import Silent
from outbox_relay.schema import LANES, Codec, Status


class FakeClock:
    """Time that stands still until `advance`."""

    def __init__(self, start: float = 1000.0) -> None:
        self._now = start
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def now(self) -> float:
        """Seconds."""
        return self._now

    def wall_us(self) -> int:
        """Microseconds."""
        return int(self._now * 1_000_000)

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock is moved so far."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now + seconds, next(self._order), waiter))
        await waiter

    async def wait(self, event: asyncio.Event, seconds: float) -> bool:
        """Wait for *event*, or until the clock is moved so far."""
        waiting = asyncio.ensure_future(event.wait())
        sleeping = asyncio.ensure_future(self.sleep(seconds))
        try:
            await asyncio.wait([waiting, sleeping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            sleeping.cancel()
        return event.is_set()

    async def advance(self, seconds: float) -> None:
        """Move the clock, stopping wherever somebody wakes up, so that all of them act in order."""
        until = self._now + seconds
        await settle()
        while self._sleepers and self._sleepers[0][0] <= until:
            at, _, waiter = heapq.heappop(self._sleepers)
            if waiter.done():
                continue
            self._now = max(self._now, at)
            waiter.set_result(None)
            await settle()
        self._now = until
        await settle()


async def settle(rounds: int = 30) -> None:
    """Let every task that can go on do so."""
    for _ in range(rounds):
        await asyncio.sleep(0)


@dataclass(slots=True)
class _Stored:
    row: Row
    committed: bool
    status: Status = Status.PENDING
    last_error: str | None = None


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
        row = Row(
            id=row_id,
            topic=topic,
            key=key,
            payload=payload,
            payload_bytes=len(payload),
            codec=codec,
            headers=None if headers is None else json.dumps(dict(headers)),
            event_id=uuid7().bytes,
            event_name=name,
            content_type="application/json",
            created_us=self.store.clock.wall_us(),
            requeued_us=None,
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


@dataclass(slots=True)
class _Held:
    nonce: str = ""
    term: int = 0
    expires_at: float = 0.0
    noted_id: int = 0
    crash_count: int = 0
    server: str = ""


class InMemoryStore:
    """
    The `Store` port in memory. Several relays may share one.

    `fail` makes the next calls of a method raise, `before` runs a hook ahead of each; both take the
    method's name. `server` may be changed, as a failover does.
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
        self._held = _Held()
        self._nonces = itertools.count(1)

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
        if self.schema_problem is not None:
            raise SchemaMismatch(self.schema_problem)

    async def acquire(self, owner: str, *, wake_address: str, lease_seconds: float) -> Lease | None:
        """See Store."""
        await self._enter("acquire")
        held = self._held
        if held.expires_at > self.clock.now():
            return None
        held.crash_count = held.crash_count + 1 if held.nonce else 0
        if held.server != self.server:
            held.noted_id = 0
        held.nonce = f"nonce-{next(self._nonces)}"
        held.term += 1
        held.server = self.server
        held.expires_at = self.clock.now() + lease_seconds
        return Lease(
            term=Term(held.term, held.nonce),
            lanes=frozenset(range(LANES)),
            server=held.server,
            noted_id=held.noted_id,
            crash_count=held.crash_count,
        )

    async def renew(self, lease: Lease, *, noted_id: int, lease_seconds: float) -> None:
        """See Store."""
        await self._enter("renew")
        self._require(lease.term, unexpired=False)
        self._held.expires_at = self.clock.now() + lease_seconds
        self._held.noted_id = noted_id

    async def release(self, lease: Lease) -> None:
        """See Store."""
        await self._enter("release")
        if self._held.nonce == lease.term.nonce:
            self._held.nonce, self._held.expires_at, self._held.crash_count = "", 0.0, 0

    def _require(self, term: Term, *, unexpired: bool = True) -> None:
        if self._held.nonce != term.nonce:
            raise LeaseLost(f"another relay took the lanes from term {term.number}")
        if unexpired and self._held.expires_at <= self.clock.now():
            raise StoreUnavailable(f"the lease of term {term.number} ran out")

    def _same_server(self) -> None:
        if self._held.server and self._held.server != self.server:
            raise ServerChanged(f"server {self.server} answers instead of {self._held.server}")

    def _matching(self, plan: ReadPlan) -> list[_Stored]:
        upto = plan.upto_id if plan.upto_id is not None else self._last_id
        return [
            stored
            for row_id, stored in sorted(self.rows.items())
            if stored.status is Status.PENDING
            and (plan.after_id < row_id <= upto or row_id in plan.open_ids)
            and stored.row.topic not in plan.skip_topics
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
        return [stored.row.id for stored in self._matching(plan)]

    async def max_id(self) -> int:
        """See Store."""
        await self._enter("max_id")
        return max(self.rows, default=0)

    async def payload(self, row_id: int) -> bytes | None:
        """See Store."""
        await self._enter("payload")
        stored = self.rows.get(row_id)
        return None if stored is None else stored.row.payload

    async def mark_produced(self, ids: Sequence[int], term: Term) -> None:
        """See Store."""
        await self._enter("mark_produced")
        self._same_server()
        self._require(term)
        for stored in self._pending(ids):
            stored.status = Status.PRODUCED

    async def mark_dead(self, row_id: int, error: str, term: Term) -> None:
        """See Store."""
        await self._enter("mark_dead")
        self._same_server()
        self._require(term)
        for stored in self._pending([row_id]):
            stored.status, stored.last_error = Status.DEAD, error

    def _pending(self, ids: Iterable[int]) -> Iterable[_Stored]:
        for row_id in ids:
            stored = self.rows.get(row_id)
            if stored is not None and stored.status is Status.PENDING:
                yield stored

    async def paused_topics(self) -> frozenset[str]:
        """See Store."""
        await self._enter("paused_topics")
        return frozenset(self.paused)

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

    async def close(self) -> None:
        """See Store."""


@dataclass(frozen=True, slots=True)
class Published:
    """A record that a `RecordingBroker` acked."""

    topic: str
    partition: int
    record: Record

    @property
    def seq(self) -> int:
        """The row's id, from the header ``outbox-seq``."""
        return int(dict(self.record.headers)["outbox-seq"])


class RecordingBroker:
    """
    The `Broker` port in memory: keeps what it acks, refuses what it is told to.

    `down` takes the broker away: nothing is answered within the deadline. `answer` may decide each
    batch: it gets (topic, partition, records) and returns an outcome, or None to ack; `hold` keeps
    batches of a partition under way until `let_go`.
    """

    def __init__(
        self,
        clock: FakeClock,
        topics: Mapping[str, int],
        *,
        publish_deadline_seconds: float = 10.0,
        max_record_bytes: int | None = None,
    ) -> None:
        self.clock = clock
        self.topics = dict(topics)
        self.down = False
        self.published: list[Published] = []
        self.batches: list[int] = []
        self.max_record_bytes = max_record_bytes
        self.answer: Callable[[str, int, Sequence[Record]], Outcome | None] | None = None
        self._deadline_seconds = publish_deadline_seconds
        self._held: dict[tuple[str, int], asyncio.Event] = {}

    def seqs(self, topic: str | None = None) -> list[int]:
        """Row ids in the order in which they were acked."""
        return [p.seq for p in self.published if topic in (None, p.topic)]

    def values(self, topic: str) -> list[bytes | None]:
        """Values in the order in which they were acked."""
        return [p.record.value for p in self.published if p.topic == topic]

    def hold(self, topic: str, partition: int = 0) -> None:
        """Keep the partition's batches under way."""
        self._held[(topic, partition)] = asyncio.Event()

    def let_go(self, topic: str, partition: int = 0) -> None:
        """Answer what `hold` kept."""
        self._held.pop((topic, partition)).set()

    async def partitions(self, topic: str) -> int:
        """See Broker."""
        await asyncio.sleep(0)
        if topic not in self.topics:
            raise TopicUnavailable(f"topic {topic} does not exist")
        return self.topics[topic]

    def known_partitions(self, topic: str) -> int | None:
        """See Broker."""
        return self.topics.get(topic)

    async def publish(self, topic: str, partition: int, records: Sequence[Record]) -> Outcome:
        """See Broker."""
        await asyncio.sleep(0)
        held = self._held.get((topic, partition))
        if held is not None and not await self.clock.wait(held, self._deadline_seconds):
            return Unknown(fault=Fault.PARTITION, detail="no answer in time")
        if self.down:
            await self.clock.sleep(self._deadline_seconds)
            return Unknown(fault=Fault.PARTITION, detail="no answer in time")
        if topic not in self.topics:
            return Unknown(fault=Fault.TOPIC, detail=f"topic {topic} does not exist")
        outcome = self.answer(topic, partition, records) if self.answer else None
        outcome = outcome or self._refuse_large(records)
        if outcome is not None and not isinstance(outcome, Acked):
            return outcome
        self.batches.append(len(records))
        self.published += [Published(topic, partition, record) for record in records]
        return Acked()

    def _refuse_large(self, records: Sequence[Record]) -> Outcome | None:
        limit = self.max_record_bytes
        if limit is None or all(record.byte_count <= limit for record in records):
            return None
        return Rejected(reason=RejectReason.TOO_LARGE, detail=f"more than {limit} bytes")

    async def probe(self) -> bool:
        """See Broker."""
        await asyncio.sleep(0)
        return not self.down

    async def close(self, *, timeout_seconds: float) -> None:
        """See Broker."""


class Watcher(Silent):
    """An observer that keeps what was logged."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, object]]] = []

    def log(self, event: str, **fields: object) -> None:
        """Keep it."""
        self.events.append((event, fields))

    def names(self) -> list[str]:
        """The names of what was logged, in order."""
        return [name for name, _ in self.events]
