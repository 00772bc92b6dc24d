"""
Keys that wait for their dead letter, with ``on_dead_letter = "hold_key"``.

Later rows of a held (topic, key) stay pending and are skipped, like those of what is parked. Its own
dead letters are held at once, before the track goes on; what operators requeue or discard is learnt
from the store. A key goes on between two reads only, in `tick`: the read after it begins at the first
pending row, so that the requeued row comes first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from outbox_relay.relay.ports import DeadKeys, Row
from outbox_relay.relay.surroundings import Surroundings

MOST_DEAD_LETTERS = 10_000
"""Dead letters looked at. What has a key and comes after more of them waits: whose they are is not known."""


class HeldKeys:
    """The held keys of a term. `loaded` says whether the store was asked: read nothing before."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self.is_on = around.options.on_dead_letter == "hold_key"
        self.loaded = not self.is_on
        self._first_ids: Mapping[tuple[str, bytes], int] = {}
        self._unread_above: int | None = None
        self._own: dict[tuple[str, bytes], tuple[int, int]] = {}
        self._given_up = 0
        self._answer: tuple[DeadKeys, int] | None = None

    def holds(self, row: Row) -> bool:
        """Whether *row* comes after a dead letter of its topic and key."""
        if row.key is None:
            return False
        if self._unread_above is not None and row.id > self._unread_above:
            return True
        first = self._first_ids.get((row.topic, row.key))
        return first is not None and row.id > first

    def holds_key(self, topic: str, key: bytes | None) -> bool:
        """Whether rows of that topic and key wait for a dead letter."""
        return key is not None and (topic, key) in self._first_ids

    def any(self) -> bool:
        """Whether a key waits, so that an operator's word about it should be heard soon."""
        return bool(self._first_ids) or self._unread_above is not None

    def without_held(self, rows: Iterable[Row]) -> list[Row]:
        """The rows that may go on, in their order."""
        if not self._first_ids and self._unread_above is None:
            return list(rows)
        return [row for row in rows if not self.holds(row)]

    def give_up(self, row: Row) -> None:
        """*row* is a dead letter, durably: hold its key."""
        if not self.is_on or row.key is None:
            return
        self._given_up += 1
        key = (row.topic, row.key)
        self._own[key] = (row.id, self._given_up)
        first = min(row.id, self._first_ids.get(key, row.id))
        self._first_ids = {**self._first_ids, key: first}
        self._around.observer.blocked(len(self._first_ids))

    async def refresh(self) -> None:
        """Ask the store; the next `tick` follows."""
        if self.is_on:
            before = self._given_up
            self._answer = await self._around.store.dead_keys(limit=MOST_DEAD_LETTERS), before

    async def reload(self) -> bool:
        """
        Ask the store before rows of lanes are read that another relay had. Whether a row may go on, as
        `tick` says it.
        """
        if not self.is_on:
            return False
        await self.refresh()
        return self.tick(pass_done=True)

    def tick(self, *, pass_done: bool) -> bool:
        """
        Follow the store's answer. Whether a row may go on. Call it between two reads.

        One pass at a time: while one is under way the answer waits, or a newer one instead of it.
        """
        if self._answer is None or (self.loaded and not pass_done):
            return False
        (dead, before), self._answer = self._answer, None
        # The store was perhaps asked before these were written: hold them until it is asked again.
        self._own = {key: own for key, own in self._own.items() if own[1] > before}
        now = dict(dead.first_ids)
        for key, (row_id, _) in self._own.items():
            now[key] = min(row_id, now.get(key, row_id))
        goes_on = any(key not in now or now[key] > first for key, first in self._first_ids.items())
        if self._unread_above is not None:
            goes_on |= dead.unread_above is None or dead.unread_above > self._unread_above
        if dead.unread_above is not None and dead.unread_above != self._unread_above:
            self._around.observer.log("dead_letters_capped", looked_at=MOST_DEAD_LETTERS)
        self._first_ids, self._unread_above, self.loaded = now, dead.unread_above, True
        self._around.observer.blocked(len(now))
        return goes_on
