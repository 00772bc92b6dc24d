"""
The cache of totals: what is kept, for how long, and what a commit does to it.
"""

from __future__ import annotations

from examples.bookstore.paging import CountCache


class Table:
    """A table with so many rows; `counted` says how often somebody counted them."""

    def __init__(self) -> None:
        self.rows = 0
        self.counted = 0

    async def count(self) -> int:
        """As the database does it."""
        self.counted += 1
        return self.rows


class Clock:
    """Time that somebody sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_a_total_is_counted_once() -> None:
    """
    For each table and filters, until its time is over.
    """
    table, clock = Table(), Clock()
    counts = CountCache(30, clock=clock)
    await counts.total("books", None, table.count)
    await counts.total("books", None, table.count)
    await counts.total("books", "filter", table.count)
    table.rows = 7
    clock.now = 29.9
    kept = await counts.total("books", None, table.count)
    clock.now = 30.0
    new = await counts.total("books", None, table.count)

    assert (kept, new, table.counted) == (0, 7, 3)


async def test_a_commit_makes_it_count_again() -> None:
    """
    Of its own table; the totals of others stay.
    """
    table, other = Table(), Table()
    counts = CountCache(30, clock=Clock())
    await counts.total("books", None, table.count)
    await counts.total("authors", None, other.count)
    table.rows = 1
    counts.invalidate("books")
    total = await counts.total("books", None, table.count)
    await counts.total("authors", None, other.count)

    assert (total, table.counted, other.counted) == (1, 2, 1)


async def test_a_count_from_before_a_commit_is_not_kept() -> None:
    """
    It may have missed the row; who asked gets it, nobody after.
    """
    counts = CountCache(30, clock=Clock())
    table = Table()

    async def overtaken() -> int:
        seen = table.rows
        table.rows = 1
        counts.invalidate("books")
        return seen

    first = await counts.total("books", None, overtaken)
    second = await counts.total("books", None, table.count)

    assert (first, second) == (0, 1)


async def test_it_does_not_grow_for_ever() -> None:
    """
    Filters are what clients say: no number of them fills the memory.
    """
    counts = CountCache(30, entries=10, clock=Clock())
    table = Table()
    for number in range(100):
        await counts.total("books", number, table.count)

    assert len(counts._counts) <= 10
