"""
The account: what the shop committed against what a consumer received. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    """One event: who it is, its key, and its place among the events of that key."""

    event_id: str
    key: str
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """
    What became of the events. Counts events; `duplicates` counts deliveries beyond the first.

    `booked` is what the consumer's own database holds in the end, `dropped` what its inbox dropped.
    `ghosts` arrived and were never committed; `lost` were committed and never arrived;
    `order_violations` arrived for the first time after a later event of their key.
    """

    committed: int
    rolled_back: int
    delivered: int
    ghosts: int
    lost: int
    order_violations: int
    duplicates: int
    booked: int | None = None
    dropped: int = 0

    @property
    def balanced(self) -> bool:
        """Whether all that was committed arrived, in order, and nothing else. Allows duplicates."""
        return (
            self.committed > 0
            and self.committed == self.delivered
            and self.ghosts == self.lost == self.order_violations == 0
            and self.booked in (None, self.delivered)
        )


def balance(
    committed: Iterable[Entry],
    delivered: Iterable[Entry],
    *,
    rolled_back: int,
    booked: int | None = None,
    dropped: int = 0,
) -> Account:
    """
    The account of *committed* (in any order) against *delivered* (in the order of arrival).

    >>> paid = Entry("e1", "customer-1", 1)
    >>> balance([paid], [paid, paid], rolled_back=0).duplicates
    1
    """
    committed_ids = {entry.event_id for entry in committed}
    firsts, deliveries = _first_deliveries(delivered)
    delivered_ids = {entry.event_id for entry in firsts}
    return Account(
        committed=len(committed_ids),
        rolled_back=rolled_back,
        delivered=len(delivered_ids),
        ghosts=len(delivered_ids - committed_ids),
        lost=len(committed_ids - delivered_ids),
        order_violations=_order_violations(firsts),
        duplicates=deliveries - len(delivered_ids),
        booked=booked,
        dropped=dropped,
    )


def _first_deliveries(delivered: Iterable[Entry]) -> tuple[list[Entry], int]:
    firsts: dict[str, Entry] = {}
    deliveries = 0
    for entry in delivered:
        deliveries += 1
        firsts.setdefault(entry.event_id, entry)
    return list(firsts.values()), deliveries


def _order_violations(firsts: Iterable[Entry]) -> int:
    newest: dict[str, int] = {}
    violations = 0
    for entry in firsts:
        # Two events under one number would mean that the shop did not serialise the key.
        if entry.number <= newest.get(entry.key, 0):
            violations += 1
        newest[entry.key] = max(entry.number, newest.get(entry.key, 0))
    return violations
