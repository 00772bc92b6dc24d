"""Relays that read wrongly. Each is the real one with one rule taken out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from outbox_relay.relay.held import HeldKeys
from outbox_relay.relay.pauses import Pauses
from outbox_relay.relay.reading import Reading
from outbox_relay.relay.term import TermRun
from outbox_relay.store import ahead
from outbox_relay.store.holders import Holders
from tests.simulation.database import Database

Patch = Any


def cursor_as_truth(patch: Patch) -> None:
    """The cursor goes to the last row that was read, and nothing looks behind it."""
    cursor_past_safe(patch)
    patch.setattr(Reading, "sweep", lambda self, limit: None)
    patch.setattr(Reading, "rewind", lambda self: None)


def cursor_past_safe(patch: Patch) -> None:
    """The cursor goes past `safe`, to the last row that was read."""
    original = Reading.page

    def page(self: Reading, plan: Any, rows: Any) -> Any:
        fresh, peek = original(self, plan, rows)
        if rows:
            self.cursor = self.safe = max(self.cursor, rows[-1].id)
        return fresh, peek

    patch.setattr(Reading, "page", page)


def safe_by_the_clock(patch: Patch) -> None:
    """What was noted counts as seen once its time is over, whether anybody has read since or not."""
    original = Reading.plan

    def plan(self: Reading, *, now: float) -> Any:
        self._advance_safe(now)
        self.cursor = max(self.cursor, self.safe)
        return original(self, now=now)

    patch.setattr(Reading, "plan", plan)


def safe_at_once(patch: Patch) -> None:
    """An id counts as seen by every read as soon as it was noted."""
    original = Reading.note

    def note(self: Reading, max_id: int, *, now: float) -> None:
        original(self, max_id, now=now)
        self.safe = max_id

    patch.setattr(Reading, "note", note)
    patch.setattr(Holders, "seen", lambda self, max_id, holders: max_id)


def open_ids_not_carried(patch: Patch) -> None:
    """The cursor passes ids of open transactions, and no later read asks for them."""

    def peeked(self: Reading, plan: Any, ids: Any) -> None:
        self.cursor = max(self.cursor, plan.upto_id or 0)
        self.pass_done |= self.cursor >= min(self._pass_to, self.safe)

    patch.setattr(Reading, "peeked", peeked)
    patch.setattr(Holders, "seen", lambda self, max_id, holders: max_id)
    patch.setattr(ahead.Ahead, "pieces", lambda self, plan: [])


def cursor_inherited(patch: Patch) -> None:
    """A new term begins where the last owner was."""
    original = TermRun.__init__

    def init(self: TermRun, around: Any, **parts: Any) -> None:
        original(self, around, **parts)
        self.reading.cursor = around.lease.noted_id

    patch.setattr(TermRun, "__init__", init)


def cursor_shared_by_all_lanes(patch: Patch) -> None:
    """Lanes that are gained are read from where the others are."""

    def gain(self: Reading, lanes: frozenset[int]) -> None:
        self._read_lanes(self.lanes | lanes)

    patch.setattr(Reading, "gain", gain)


def sweep_without_keyset(patch: Patch) -> None:
    """Each sweep looks at the first rows again."""
    patch.setattr(Reading, "swept_to", lambda self, plan, rows: None)


def no_sweep(patch: Patch) -> None:
    """Nothing looks below the cursor."""
    patch.setattr(Reading, "sweep", lambda self, limit: None)


def forgets_at_the_commit(patch: Patch) -> None:
    """An id in flight is forgotten as soon as its mark has committed."""
    original = Reading.settled

    def settled(self: Reading, ids: Any) -> None:
        original(self, ids)
        self.forget_settled()

    patch.setattr(Reading, "settled", settled)


def room_without_end(patch: Patch) -> None:
    """Rows are read however many are in flight."""
    patch.setattr(Reading, "room", lambda self: self.in_flight_rows)


def goes_on_during_a_read(patch: Patch) -> None:
    """What paused goes on at any moment, and not from its first pending row."""
    patch.setattr(Reading, "rewind", lambda self: None)


def held_keys_not_learnt(patch: Patch) -> None:
    """A new term knows nothing of the keys that wait for a dead letter."""

    async def refresh(self: HeldKeys) -> None:
        self.loaded = True

    patch.setattr(HeldKeys, "refresh", refresh)
    patch.setattr(HeldKeys, "reload", refresh)


def partitions_at_once(patch: Patch) -> None:
    """More partitions are used before what is under way on the old ones is settled."""

    def watch(self: Pauses, route: Any) -> None:
        known = self._around.broker.known_partitions(route.topic)
        if route.partitions is not None and known not in (None, route.partitions.partitions):
            route.partitions = type(route.partitions)(known)

    patch.setattr(Pauses, "_watch_partitions", watch)


def skip_locked_by_row(patch: Patch) -> None:
    """No lease: every relay reads the rows that no other has locked."""
    leases = Database.__init__

    def init(self: Database, *parts: Any) -> None:
        leases(self, *parts)
        patch.setattr(self.leases, "_lives", lambda lane: False)
        patch.setattr(self.leases, "_take", lambda *_: None)
        patch.setattr(self.leases, "require", lambda *_, **__: None)
        patch.setattr(self.leases, "renew", lambda *_, **__: None)
        patch.setattr(self.leases, "acquire", _everybody(self.leases))
        self.locked = {}  # type: ignore[attr-defined]

    def read(self: Database, plan: Any) -> Any:
        rows = [s.row for s in self._matching(plan) if s.committed]
        free = [row for row in rows if row.id not in self.locked][: plan.limit]  # type: ignore[attr-defined]
        self.locked.update(dict.fromkeys(row.id for row in free))  # type: ignore[attr-defined]
        return free

    patch.setattr(Database, "__init__", init)
    patch.setattr(Database, "read", read)


def _everybody(leases: Any) -> Any:
    from outbox_relay.relay.lease import ALL_LANES, Lease, Term

    def acquire(owner: str, *, server: str, **terms: object) -> Lease:
        nonce = f"nonce-{next(leases._nonces)}"
        return Lease(term=Term(1, nonce, ALL_LANES), server=server, noted_id=0, crash_count=0)

    return acquire


def filtered_by_available_at(patch: Patch) -> None:
    """A row without an ack is tried later by itself, and reads leave it out until then."""
    from outbox_relay.relay import decide as decisions
    from outbox_relay.relay.dispatch import Dispatcher
    from outbox_relay.relay.outcomes import Unknown

    page = Reading.page
    attempt = Dispatcher._attempt

    def later_page(self: Reading, plan: Any, rows: Any) -> Any:
        fresh, peek = page(self, plan, rows)
        later = getattr(type(self), "_later", {})
        return [row for row in fresh if later.pop(row.event_id, 0) <= 0], peek

    async def later_attempt(self: Dispatcher, route: Any, track: Any, batch: Any) -> Any:
        outcome = await attempt(self, route, track, batch)
        if isinstance(outcome, Unknown):
            patch.setattr(Reading, "_later", {}, raising=False)
            Reading._later.update(dict.fromkeys([r.event_id for r in batch.rows], 1))  # type: ignore[attr-defined]
            self._reading.dropped([row.id for row in batch.rows])
            return decisions.MarkProduced()
        return outcome

    original = Dispatcher._publish

    async def publish(self: Dispatcher, route: Any, track: Any, batch: Any) -> bool:
        while await self._may_publish():
            outcome = await self._attempt(route, track, batch)
            if isinstance(outcome, decisions.MarkProduced):
                return True
            return await original(self, route, track, replace(batch, rows=batch.rows))
        return False

    patch.setattr(Reading, "page", later_page)
    patch.setattr(Dispatcher, "_attempt", later_attempt)
    patch.setattr(Dispatcher, "_publish", publish)
