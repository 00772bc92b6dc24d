"""
How many ids one read may pass, and which it leaves out.

A read that returns few rows may have passed very many: rows of a topic that pauses, or index entries
of rows that are produced and that a long transaction elsewhere keeps from being cleared away. Nobody
can count those from outside, but they take time. So a read passes more ids while it is answered
fast, and fewer when it is slow: no statement runs into its time-out, and no read keeps others waiting.

Pure: time comes in as an argument.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Final

from outbox_relay.relay.ports import Row

LEAST_IDS: Final = 10_000
FIRST_IDS: Final = 50_000
MOST_IDS: Final = 1 << 40
FAST_SECONDS: Final = 0.02
SLOW_SECONDS: Final = 0.06


MAX_OPEN_IDS = 5000
"""The cursor stops below a transaction with more rows, so that no statement grows without bound."""

MOST_SKIP_RANGES = 100
"""Ranges of ids in flight that a read leaves out in SQL; the rest is skipped when it is returned."""


def id_ranges(ids: list[int]) -> tuple[tuple[tuple[int, int], ...], int]:
    """
    The ranges without a gap in *ids*, which are sorted, and how many ids are left over.

    >>> id_ranges([3, 4, 5, 9])
    (((3, 5), (9, 9)), 0)
    """
    ranges: list[tuple[int, int]] = []
    first = last = -2
    for row_id in ids:
        if row_id != last + 1:
            if first >= 0:
                ranges.append((first, last))
                if len(ranges) == MOST_SKIP_RANGES:
                    return tuple(ranges), sum(1 for i in ids if i > last)
            first = row_id
        last = row_id
    if first >= 0:
        ranges.append((first, last))
    return tuple(ranges), 0


def fitting(
    rows: Sequence[Row], wanted: int, in_flight: Container[int], left: Container[int]
) -> Sequence[Row]:
    """
    *rows* up to *wanted* that are neither in flight nor *left* behind. A read asks for more, by those
    that it may return; when others come first instead, there is no room for all of them.
    """
    if len(rows) <= wanted:
        return rows
    fresh = 0
    for index, row in enumerate(rows):
        fresh += row.id not in in_flight and row.id not in left
        if fresh > wanted:
            return rows[:index]
    return rows


@dataclass(slots=True)
class Window:
    """
    Ids that a read may pass. How long each answer takes at least does not count: the network's part.

    >>> window = Window()
    >>> window.passed(50_000, seconds=0.001)
    >>> window.ids
    100000
    """

    ids: int = FIRST_IDS
    _fastest: float = float("inf")

    def passed(self, ids: int, *, seconds: float) -> None:
        """A read that passed *ids* was answered after *seconds*."""
        self._fastest = min(self._fastest, seconds)
        longer = seconds - self._fastest
        if longer > SLOW_SECONDS:
            self.failed(ids)
        elif longer < FAST_SECONDS and ids >= self.ids:
            self.ids = min(MOST_IDS, self.ids * 2)

    def failed(self, ids: int) -> None:
        """A read over *ids* was too much. One over hardly any was slow for another reason."""
        if ids >= LEAST_IDS:
            self.ids = max(LEAST_IDS, min(ids, self.ids) // 2)
