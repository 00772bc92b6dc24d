"""Pages of rows, with totals that are counted once and not each time."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession


class MetadataModel(BaseModel):
    """Where a page stands among all."""

    page: int
    per_page: int
    total: int
    pages: int


@dataclass(frozen=True, slots=True)
class _Count:
    total: int
    expires_at: float


class CountCache:
    """
    Totals by table and filters, kept until the table changes, and *seconds* at most.

    Belongs to one process: what others commit shows when the seconds are over. Keeps *entries* at
    most; then it starts anew.
    """

    def __init__(
        self,
        seconds: float,
        *,
        entries: int = 1000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._seconds = seconds
        self._entries = entries
        self._clock = clock
        self._counts: dict[tuple[str, Hashable], _Count] = {}
        self._changes: dict[str, int] = {}

    async def total(
        self, table: str, filters: Hashable, count: Callable[[], Awaitable[int]]
    ) -> int:
        """The total for *filters*: the kept one, or what *count* says."""
        kept = self._counts.get((table, filters))
        if kept is not None and self._clock() < kept.expires_at:
            return kept.total
        before = self._changes.get(table, 0)
        total = await count()
        # A commit in between has invalidated a count that may have been taken before it.
        if self._changes.get(table, 0) == before:
            if len(self._counts) >= self._entries:
                self._counts.clear()
            self._counts[table, filters] = _Count(total, self._clock() + self._seconds)
        return total

    def invalidate(self, table: str) -> None:
        """Rows of *table* were added or removed, and that is committed."""
        self._changes[table] = self._changes.get(table, 0) + 1
        for key in [key for key in self._counts if key[0] == table]:
            del self._counts[key]


async def get_paginated_results(
    session: AsyncSession,
    statement: sa.Select[Any],
    *,
    page: int,
    per_page: int,
    counts: CountCache,
    filters: Hashable,
) -> tuple[list[Any], MetadataModel]:
    """
    Page number *page* of *statement*, which selects one ordered entity, and its place among all.

    A page after the last one is empty.
    """
    table: str = statement.column_descriptions[0]["entity"].__tablename__

    async def count() -> int:
        found = await session.execute(
            sa.select(sa.func.count()).select_from(statement.order_by(None).subquery())
        )
        return found.scalar_one()

    total = await counts.total(table, filters, count)
    rows = await session.scalars(statement.limit(per_page).offset((page - 1) * per_page))
    meta = MetadataModel(page=page, per_page=per_page, total=total, pages=-(-total // per_page))
    return list(rows), meta
