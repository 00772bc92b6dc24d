"""
The simulated database: one set of tables for all relays and writers of a world.

What is done here is done at one instant, as one statement is on a server: `tests.simulation.store`
decides when, and whether anybody learns of it.
"""

from __future__ import annotations

import copy
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from outbox_relay.errors import SchemaMismatch, StoreUnavailable
from outbox_relay.relay.lease import Lease, Sharing, Term
from outbox_relay.relay.ports import (
    CANARY_DEAD,
    CANARY_GONE,
    Aged,
    Backlog,
    DeadKeys,
    PurgePlan,
    ReadPlan,
    Row,
    Waiting,
)
from outbox_relay.schema import LANES, Status
from outbox_relay.testing.leases import MemoryLeases
from outbox_relay.testing.store import grouped
from tests.simulation.loop import VirtualLoop
from tests.simulation.oracle import Event, Oracle, TermSeen
from tests.simulation.scenario import RowPlan

BEGAN_US = 1_700_000_000_000_000


class DatabaseClock:
    """The server's own clock, which may jump."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.ahead = 0.0

    def now(self) -> float:
        return 5_000.0 + self._loop.time() + self.ahead

    def wall_us(self) -> int:
        return BEGAN_US + int(self.now() * 1_000_000)


class Stored:
    """A row of the table."""

    __slots__ = ("committed", "error", "event", "row", "settled_at", "status")

    def __init__(self, event: Event) -> None:
        self.event = event
        self.row: Row = event.row
        self.status = Status.PENDING
        self.committed = False
        self.error: str | None = None
        self.settled_at = 0.0


class Leases(MemoryLeases):
    """The lease table, whose rows the oracle may look at."""

    def owners_by_lane(self) -> dict[int, str]:
        return {lane: self._rows[lane].nonce for lane in range(LANES)}

    def owner_of(self, lane: int) -> str:
        return self._rows[lane].nonce

    def is_free(self) -> bool:
        return not any(row.nonce for row in self._rows.values())

    def snapshot(self) -> object:
        return {lane: replace(row) for lane, row in self._rows.items()}

    def restore(self, rows: object) -> None:
        self._rows = rows


class Database:
    """Rows, leases and the control table, as of now."""

    def __init__(self, loop: VirtualLoop, oracle: Oracle) -> None:
        self._loop = loop
        self.oracle = oracle
        self.clock = DatabaseClock(loop)
        self.leases = Leases(self.clock)
        self.rows: dict[int, Stored] = {}
        self.pending: list[int] = []
        self.dead: list[int] = []
        self.last_id = 0
        self.incarnation = 1
        self.paused: set[str] = set()
        self.schema_problem: str | None = None
        self.open_transactions: set[str] = set()
        self.writer_is_busy: Callable[[], bool] = lambda: False
        """Whether the one writer that there may be is somebody else."""
        self.make_event: Callable[[int, RowPlan], Event]

    @property
    def server(self) -> str:
        return f"server:{self.incarnation}"

    # Writers and operators

    def next_id(self) -> int:
        self.last_id += 1
        return self.last_id

    def place(self, event: Event) -> None:
        self.rows[event.row.id] = Stored(event)
        insort(self.pending, event.row.id)
        self.oracle.placed(event)

    def commit(self, ids: Iterable[int]) -> None:
        for row_id in ids:
            stored = self.rows[row_id]
            stored.committed = True
            self.oracle.committed(stored.event, self._loop.time())

    def canary(self, topic: str) -> Event:
        """An event of a relay's own, committed at once."""
        if self.writer_is_busy():
            raise StoreUnavailable("database is locked")
        event = self.make_event(self.next_id(), RowPlan(topic, None))
        self.place(event)
        self.commit([event.row.id])
        return event

    def canary_seconds(self, row_id: int) -> float | None:
        stored = self.rows.get(row_id)
        if stored is None:
            return CANARY_GONE
        if stored.status is not Status.PRODUCED:
            return CANARY_DEAD if stored.status is Status.DEAD else None
        return max(0.0, stored.settled_at - (stored.row.created_us - BEGAN_US) / 1e6)

    def roll_back(self, ids: Iterable[int]) -> None:
        for row_id in ids:
            self._leave(self.pending, row_id)
            self.oracle.vanished(self.rows.pop(row_id).event)

    def requeue(self, row_id: int) -> None:
        stored = self.rows[row_id]
        self._leave(self.dead, row_id)
        insort(self.pending, row_id)
        stored.status, stored.error = Status.PENDING, None
        stored.row = stored.row._replace(requeued_us=self.clock.wall_us())
        self.oracle.requeued(stored.event)

    def discard(self, row_id: int) -> None:
        self._leave(self.dead, row_id)
        self.oracle.vanished(self.rows.pop(row_id).event)

    @staticmethod
    def _leave(ids: list[int], row_id: int) -> None:
        at = bisect_left(ids, row_id)
        if at < len(ids) and ids[at] == row_id:
            del ids[at]

    # Failover

    def snapshot(self) -> tuple[object, ...]:
        """What a replica has by now: what is committed."""
        rows = {i: copy.copy(stored) for i, stored in self.rows.items() if stored.committed}
        return rows, self.leases.snapshot(), set(self.paused)

    def promote(self, replica: tuple[object, ...]) -> int:
        """The replica takes over: later commits are lost, and their ids come back. How many."""
        rows, leases, paused = replica
        lost = [stored for i, stored in self.rows.items() if i not in rows]
        oracle = self.oracle
        for stored in lost:
            if stored.status is not Status.DEAD and not stored.event.marked:
                oracle.vanished(stored.event)
            stored.event.gone = True
        self.rows = {i: s for i, s in rows.items() if not s.event.gone}
        for stored in self.rows.values():
            event = stored.event
            if event.status is not stored.status:
                oracle.unsettled += (stored.status is Status.PENDING) - (
                    event.status is Status.PENDING
                )
                event.status = stored.status
                event.marked = stored.status is Status.PRODUCED
        self.pending = sorted(i for i, s in self.rows.items() if s.status is Status.PENDING)
        self.dead = sorted(i for i, s in self.rows.items() if s.status is Status.DEAD)
        self.last_id = max(self.rows, default=0)
        self.leases.restore(leases)
        self.paused = paused
        self.incarnation += 1
        self.open_transactions.clear()
        return len(lost)

    # Statements

    def check_schema(self) -> None:
        if self.schema_problem is not None:
            raise SchemaMismatch(self.schema_problem)

    def acquire(self, owner: str, **terms: object) -> Lease | None:
        before = self.leases.owners_by_lane()
        lease = self.leases.acquire(owner, server=self.server, **terms)
        if lease is not None:
            self._took(TermSeen(lease.term.nonce, owner), before)
        return lease

    def take(self, lease: Lease, lanes: frozenset[int], lease_seconds: float) -> frozenset[int]:
        before = self.leases.owners_by_lane()
        taken = self.leases.take(lease, lanes, lease_seconds=lease_seconds)
        self._took(self.oracle.terms[lease.term.nonce], before)
        return taken

    def _took(self, term: TermSeen, before: dict[int, str]) -> None:
        passed: dict[str, set[int]] = {}
        for lane, nonce in self.leases.owners_by_lane().items():
            if nonce == term.nonce != before[lane]:
                passed.setdefault(before[lane], set()).add(lane)
        self.oracle.took(term, passed)

    def look(self, lease: Lease) -> Sharing:
        return self.leases.look(lease)

    def _matching(self, plan: ReadPlan) -> list[Stored]:
        pending = self.pending
        start = bisect_right(pending, plan.after_id)
        end = len(pending) if plan.upto_id is None else bisect_right(pending, plan.upto_id)
        ids = pending[start:end]
        if plan.open_ids:
            ids = sorted([i for i in plan.open_ids if i not in ids and i in pending] + ids)
        rows = [self.rows[i] for i in ids]
        if plan.skip_topics:
            rows = [s for s in rows if s.row.topic not in plan.skip_topics]
        if len(plan.lanes) < LANES:
            rows = [s for s in rows if s.row.lane in plan.lanes]
        for first, last in plan.skip_ids:
            rows = [s for s in rows if not first <= s.row.id <= last]
        return rows

    def read(self, plan: ReadPlan) -> list[Row]:
        return [s.row for s in self._matching(plan) if s.committed][: plan.limit]

    def uncommitted_ids(self, plan: ReadPlan) -> list[int]:
        return [s.row.id for s in self._matching(plan)][: plan.limit]

    def max_id(self, at_least: int) -> int:
        return max(at_least, *self.rows, 0)

    def max_committed_id(self, at_least: int) -> int:
        return max([at_least, *[i for i, s in self.rows.items() if s.committed]])

    def holders(self, at_least: int) -> tuple[int, set[str]]:
        """PostgreSQL's: the largest committed id, and the transactions that may still insert."""
        return self.max_committed_id(at_least), set(self.open_transactions)

    def maybe_open(self, plan: ReadPlan, ids: Iterable[int], low: int) -> list[int]:
        """Committed and pending among *ids*, or above *low* and without a row: PostgreSQL's view."""
        seen = {s.row.id for s in self._matching(plan) if s.committed}
        rows = self.rows
        return [i for i in ids if i in seen or (i > low and not (i in rows and rows[i].committed))]

    def payload(self, row_id: int) -> bytes | None:
        stored = self.rows.get(row_id)
        return None if stored is None else payload_of(stored.event)

    def fence(self, ids: Sequence[int], term: Term) -> dict[int, str]:
        """Whether *term* has its lanes: raises, or returns whose the lanes of *ids* are."""
        self.leases.require(term)
        return self.owners(ids)

    def owners(self, ids: Sequence[int]) -> dict[int, str]:
        """By id: the nonce that has the row's lane."""
        rows, owner_of = self.rows, self.leases.owner_of
        return {i: owner_of(rows[i].row.lane) for i in ids if i in rows}

    def mark(self, ids: Sequence[int], term: Term, owners: dict[int, str], *, delete: bool) -> None:
        for stored in self.to_mark(ids):
            row_id = stored.row.id
            if not stored.committed:
                continue
            self.oracle.marked(stored.event, nonce=term.nonce, owner=owners.get(row_id, term.nonce))
            self._leave(self.pending, row_id)
            self._leave(self.dead, row_id)
            if delete:
                del self.rows[row_id]
            else:
                stored.status, stored.settled_at = Status.PRODUCED, self.clock.now()

    def mark_dead(
        self,
        row_id: int,
        error: str,
        term: Term,
        owners: dict[int, str],
        requeued_us: int | None,
    ) -> None:
        for stored in self.to_give_up(row_id, requeued_us):
            owner = owners.get(row_id, term.nonce)
            self.oracle.died(stored.event, error, nonce=term.nonce, owner=owner)
            self._leave(self.pending, row_id)
            self._leave(self.dead, row_id)
            insort(self.dead, row_id)
            stored.status, stored.error = Status.DEAD, error
            stored.settled_at = self.clock.now()

    def to_mark(self, ids: Sequence[int]) -> list[Stored]:
        """``WHERE id IN (...) AND status = 0``."""
        found = [self.rows[i] for i in dict.fromkeys(ids) if i in self.rows]
        return [stored for stored in found if stored.status is Status.PENDING]

    def to_give_up(self, row_id: int, requeued_us: int | None) -> list[Stored]:
        """Likewise, and as it was when it was read."""
        return [s for s in self.to_mark([row_id]) if s.row.requeued_us == requeued_us]

    def dead_keys(self, limit: int) -> DeadKeys:
        first_ids: dict[tuple[str, bytes], int] = {}
        for row_id in self.dead[:limit]:
            row = self.rows[row_id].row
            if row.key is not None:
                first_ids.setdefault((row.topic, row.key), row_id)
        more = len(self.dead) > limit
        return DeadKeys(first_ids=first_ids, unread_above=self.dead[limit - 1] if more else None)

    def sample(self, cap: int) -> Backlog:
        waiting = [i for i in self.pending if self.rows[i].committed]
        return Backlog(
            rows=min(len(waiting), cap),
            capped=len(waiting) > cap,
            oldest_us=self.rows[waiting[0]].row.created_us if waiting else None,
            dead_rows=len(self.dead),
        )

    def waiting(self, limit: int, by_key: bool) -> list[Waiting]:
        waiting = [i for i in self.pending if self.rows[i].committed]
        return grouped((self.rows[i].row for i in waiting[:limit]), by_key=by_key)

    def aged(self, plan: PurgePlan) -> list[Aged]:
        until = self.clock.now() - plan.older_than_seconds
        found = [
            Aged(i, s.settled_at <= until, s.row.topic, s.row.event_id, s.error)
            for i, s in sorted(self.rows.items())
            if s.status is plan.status and i > plan.after_id
        ]
        return found[: plan.limit]

    def purge(self, ids: Sequence[int], plan: PurgePlan, term: Term) -> int:
        self.leases.require(replace(term, lanes=frozenset()))
        return self.purge_by_hand(ids, plan)

    def purge_by_hand(self, ids: Sequence[int], plan: PurgePlan) -> int:
        """Whoever deletes them, rows that are due are due."""
        gone = self.to_purge(ids, plan)
        for stored in gone:
            self.oracle.deleted(stored.event, plan.status)
            self._leave(self.pending, stored.row.id)
            self._leave(self.dead, stored.row.id)
            del self.rows[stored.row.id]
        return len(gone)

    def to_purge(self, ids: Sequence[int], plan: PurgePlan) -> list[Stored]:
        """Those of *ids* that have the status of *plan* still, and are old enough."""
        until = self.clock.now() - plan.older_than_seconds
        found = [self.rows[i] for i in ids if i in self.rows]
        return [s for s in found if s.status is plan.status and s.settled_at <= until]


def payload_of(event: Event) -> bytes:
    """What the row of *event* holds, also when a read leaves it behind."""
    return event.row.payload or b"x" * event.row.payload_bytes


Statement = Callable[[], object]
