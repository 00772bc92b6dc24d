"""
Reading ahead of a transaction that stays open, where nothing reads what is not committed.

Up to `Holders.low` every transaction has ended. While one of them stays open, `low` stays where it
was, and a read that began there would pass all that others wrote and the relay published since:
more with each second. So once that is much, the cursor may go on, and what it passes is looked at as
where dirty reads are: an id that was given out and that no row has is perhaps open. It is asked for
with every later read until `low` has passed it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from outbox_relay.relay.ports import ReadPlan
from outbox_relay.store.holders import Holders

AHEAD_IDS = 10_000
"""How far `low` may stay behind before the cursor goes on without it."""

STEP_IDS = 50_000
"""How many ids it goes on at a time, and how many one statement looks at."""


@dataclass(slots=True)
class Ahead:
    """
    How far it has gone. Of one term, and of one reader: a look belongs to the read before it.

    >>> ahead = Ahead(Holders(low=5))
    >>> ahead.noted(9, {"3/5"}), ahead.noted(40_000, {"3/5"}), ahead.noted(90_000, {"3/5"})
    (5, 40000, 90000)
    """

    holders: Holders = field(default_factory=Holders)
    _upto: int = 0
    _low_at_read: int = 0
    _looked_upto: int = 0
    _deleted: set[int] = field(default_factory=set)

    @property
    def low(self) -> int:
        """Up to here every transaction has ended."""
        return self.holders.low

    def noted(self, largest: int, holders: set[str]) -> int:
        """As `Holders.seen`, but perhaps further. Up to there each id is seen, or may be open."""
        low = self.holders.seen(largest, holders)
        begun = max(low, self._upto)
        if largest - begun > AHEAD_IDS:
            self._upto = min(largest, begun + STEP_IDS)
        self._upto = min(self._upto, largest)
        self._deleted = set(self._not_looked_at(self._deleted))
        return max(low, self._upto)

    def settled(self, noted_id: int) -> int:
        """Of what was noted, what the next owner may rely on: it knows nothing of open ids."""
        return min(noted_id, self.low) if self._upto > self.low else noted_id

    def reads(self) -> None:
        """A read begins: what it does not return, up to `low`, is not there."""
        self._low_at_read = self.low

    def deletes(self, ids: Iterable[int]) -> None:
        """
        Rows of *ids* are deleted: that they are missing will not mean that they are open.

        What was looked at is forgotten. When it is looked at once more, after a rewind, they count as
        open until `low` has passed them: no more than the reader's limit.
        """
        self._deleted.update(self._not_looked_at(ids))

    def _not_looked_at(self, ids: Iterable[int]) -> list[int]:
        known = max(self.low, self._looked_upto)
        return [row_id for row_id in ids if row_id > known]

    def looked(self, upto: int) -> None:
        """Every id up to there was found, or is known to the reader as open."""
        self._looked_upto = max(self._looked_upto, upto)

    def pieces(self, plan: ReadPlan) -> list[tuple[int, int]]:
        """The ranges (after, upto) in which *plan* must look for what the read has not returned."""
        upto = plan.upto_id or 0
        if upto <= self._low_at_read:
            return []
        starts = range(plan.after_id, upto, STEP_IDS)
        return [(start, min(start + STEP_IDS, upto)) for start in starts]

    def open_of(self, found: Sequence[int]) -> list[int]:
        """Those of *found* that are not there for another reason."""
        return [row_id for row_id in found if row_id not in self._deleted]


class AheadStatements:
    """The SQL of it. Each statement is one snapshot of the rows and of the ids without one."""

    def __init__(self, table: str) -> None:
        self._table = table

    def range(self, pending: str, after: int, upto: int, *, low: int, limit: int) -> str:
        """The ids of *pending*, and those in (after, upto] that are given out and have no row."""
        table = self._table
        after = max(after, low)
        if after >= upto:
            return f"{pending} ORDER BY id LIMIT {limit:d}"
        given = f"FROM {table} WHERE id > {after:d} AND id <= {upto:d}"
        return (
            f"{pending} UNION ALL SELECT generate_series(before + 1, id - 1) FROM "
            f"(SELECT id, lag(id, 1, {after:d}::bigint) OVER (ORDER BY id) AS before {given}) AS given "
            f"WHERE id > before + 1 "
            f"UNION ALL SELECT generate_series((SELECT COALESCE(MAX(id), {after:d}) {given}) + 1, "
            f"{upto:d}::bigint) ORDER BY id LIMIT {limit:d}"
        )

    def open(self, pending: str, ids: Iterable[int], *, low: int) -> str:
        """The ids of *pending*, and those of *ids* above *low* that have no row."""
        numbers = ",".join([str(int(row_id)) for row_id in ids])
        return (
            f"{pending} UNION ALL SELECT id FROM unnest('{{{numbers}}}'::bigint[]) AS open(id) "
            f"WHERE id > {low:d} AND NOT EXISTS "
            f"(SELECT 1 FROM {self._table} AS given WHERE given.id = open.id)"
        )
