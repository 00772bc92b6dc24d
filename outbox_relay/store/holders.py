"""
Up to which id every transaction has ended, on a database that shows who may still insert.

PostgreSQL has no dirty read. It needs none: an INSERT holds a lock on the table from before it takes
an id until its transaction has ended, and everybody can see who holds it. Once all have ended who
held it after some id was committed, every id up to that one is committed or gone.
"""

from __future__ import annotations

from dataclasses import dataclass, field

_PREPARED = "-1/"
"""How PostgreSQL names the holder of a lock that is a prepared transaction."""


@dataclass(slots=True)
class Holders:
    """
    What was seen, and what follows from it. Of one term: another server has other transactions.

    >>> holders = Holders()
    >>> [holders.seen(7, {"3/5"}), holders.seen(9, {"3/6"}), holders.seen(9, set())]
    [0, 7, 9]
    """

    low: int = 0
    _next: int | None = None
    _waits_for: set[str] = field(default_factory=set)
    _prepared: frozenset[str] = frozenset()

    def seen(self, max_id: int, holders: set[str]) -> int:
        """
        *max_id* is the largest committed id, *holders* are the transactions that were open after
        it was read. Returns the id up to which all have ended.
        """
        prepared = frozenset(holder for holder in holders if holder.startswith(_PREPARED))
        if self._next is not None:
            ended = self._waits_for - holders
            self._waits_for &= holders
            if any(not holder.startswith(_PREPARED) for holder in ended):
                # Prepared, it goes on under another name.
                self._waits_for |= prepared - self._prepared
            if not self._waits_for:
                self.low, self._next = self._next, None
        self._prepared = prepared
        if self._next is None:
            if holders:
                self._next, self._waits_for = max_id, set(holders)
            else:
                self.low = max_id
        # The table was emptied or restored: ids above may be given out again.
        self.low = min(self.low, max_id)
        return self.low
