"""
When nothing moves: looking less often at what can only change together with the table.

Notes serve `safe`, and `safe` serves ids that move. The sweep serves rows that came late. In a table
where no id was given out and no row was found for a while, both may take their time: no rule of
reading is weakened, since a cursor that is noted less often only moves later. What an operator
paused is asked before the first rows after such a time are published.
"""

from __future__ import annotations

from dataclasses import dataclass

from outbox_relay.relay.held import HeldKeys
from outbox_relay.relay.reading import NOTE_SECONDS, Reading

SWEEP_SECONDS = 1.0
QUIET_SWEEP_SECONDS = 5.0
QUIET_NOTE_SECONDS = 10.0
MOST_REST_SECONDS = 60.0
SWEEP_REST = 20
"""After a sweep it rests so many times as long as that took: InnoDB passes every index entry of rows that
are gone and that a long transaction keeps, however few ids are asked for."""


@dataclass(slots=True)
class Quiet:
    """Whether a term is quiet, and what is due in it."""

    reading: Reading
    held: HeldKeys
    moved_at: float
    looked_at: float = float("-inf")
    swept_at: float = float("-inf")
    sweep_rests_until: float = float("-inf")
    rested: bool = False
    """Whether a look was left out since the last one."""
    _max_id: int | None = None

    def noted(self, max_id: int, *, now: float) -> None:
        """A look is done; *max_id* is what it found."""
        if max_id != self._max_id:
            self.moved_at = now
        self._max_id = max_id
        self.looked_at = now
        self.rested = False

    def found(self, rows: int, *, now: float) -> None:
        """A read found *rows*."""
        if rows:
            self.moved_at = now

    def lasts(self, now: float) -> bool:
        """Nothing moved for longer than `safe` takes to follow, and nothing waits or pauses."""
        still = self.reading.settle_seconds + 2 * NOTE_SECONDS
        at_rest = self.reading.at_rest() and not self.held.any()
        return now - self.moved_at >= still and at_rest

    def may_rest(self, now: float) -> bool:
        """Whether the look that is due may be left out."""
        # A little early rather than a turn late.
        due = self.looked_at + QUIET_NOTE_SECONDS - NOTE_SECONDS / 2
        rests = self.lasts(now) and now < due
        self.rested |= rests
        return rests

    def sweep_due(self, now: float) -> bool:
        """Whether to sweep now; True counts as done."""
        every = QUIET_SWEEP_SECONDS if self.lasts(now) else SWEEP_SECONDS
        if now < max(self.swept_at + every, self.sweep_rests_until):
            return False
        self.swept_at = now
        return True

    def swept(self, seconds: float, *, now: float) -> None:
        """The sweep's read was answered after *seconds*."""
        self.sweep_rests_until = now + min(MOST_REST_SECONDS, SWEEP_REST * seconds)
