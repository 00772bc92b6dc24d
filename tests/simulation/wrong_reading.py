"""Relays that read wrongly. Each is the real one with one rule taken out."""

from __future__ import annotations

from typing import Any

from outbox_relay.relay import reading
from outbox_relay.relay.held import HeldKeys
from outbox_relay.relay.pauses import Pauses
from outbox_relay.relay.reading import Reading
from outbox_relay.relay.term import TermRun
from outbox_relay.store import ahead
from outbox_relay.store.holders import Holders

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


def open_ids_of_gained_lanes_forgotten(patch: Patch) -> None:
    """Which open ids were rolled back is asked for the lanes that were there before, not for gained ones."""
    patch.setattr(Reading, "parts", lambda self: (self,))


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


def reads_more_than_fits(patch: Patch) -> None:
    """Of a read that may return rows in flight, all others are taken, however many they are."""
    patch.setattr(reading, "fitting", lambda rows, wanted, in_flight, left: rows)


def parked_rows_fill_the_page(patch: Patch) -> None:
    """Rows that were read and cannot go are read again and again while the cursor waits."""

    def dispatched(self: Reading, rows: Any) -> None:
        self.open_ids.difference_update([row.id for row in rows])

    patch.setattr(Reading, "dispatched", dispatched)


def key_goes_on_unnoticed(patch: Patch) -> None:
    """A key that goes on as lanes are gained is not read from its first row."""
    original = HeldKeys.reload

    async def reload(self: HeldKeys) -> bool:
        await original(self)
        return False

    patch.setattr(HeldKeys, "reload", reload)


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
