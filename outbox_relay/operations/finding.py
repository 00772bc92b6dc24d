"""
Finding an event by its id, without an index on it.

Most ids say when they were made, and rows lie in the order of time: so what was written around that time is
looked at first, in windows that widen. Then, and for ids that say nothing, all other rows, newest first,
until a time is over.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa

from outbox_relay.operations.access import Access, Session
from outbox_relay.operations.selection import (
    MOST_SLICE_ROWS,
    Span,
    first_id_since,
    slice_of,
    time_of,
    whole_span,
)

WINDOWS_SECONDS: Final = (1.0, 10.0, 60.0, 600.0, 3600.0)
"""Before and after the time of an id: the clocks of application and database differ, and a transaction may
be open for long before it writes."""


@dataclass(frozen=True, slots=True)
class Lookup:
    """Which row it is; None if it was not found, among all rows or only down to *looked_to_id*."""

    id: int | None
    looked_to_id: int | None
    complete: bool


async def find_event(
    access: Access, event_id: UUID, *, seconds: float = 5.0, before_id: int | None = None
) -> Lookup:
    """
    The row of *event_id*, of several the newest that is found. Takes no lock.

    With *before_id* it goes on below a row down to which all were looked at.
    """
    give_up = time.monotonic() + seconds
    outbox = access.names.outbox
    # Who goes on has looked there already.
    made_at = time_of(event_id) if before_id is None else None
    async with access.session() as session:
        span = await session.run(lambda connection: whole_span(connection, outbox))
        if before_id is not None:
            span = Span(span.first, min(span.last, before_id - 1))
        looked = Span(1, 0)
        for window in WINDOWS_SECONDS if made_at is not None else ():
            assert made_at is not None
            wider = await session.run(partial(_window, outbox, span, made_at, window))
            if wider.empty:
                continue
            for part in _parts(wider, looked):
                found = await _scan(session, outbox, part, event_id, give_up)
                if found.id is not None:
                    return found
                if not found.complete:
                    # Of the newest rows, above the window, none was looked at.
                    return Lookup(None, span.last + 1, complete=False)
            looked = wider
        for part in _parts(span, looked):
            found = await _scan(session, outbox, part, event_id, give_up)
            if found.id is not None or not found.complete:
                return found
    return Lookup(None, None if span.empty else span.first, complete=True)


def _parts(span: Span, looked: Span) -> Iterator[Span]:
    return (part for part in span.without(looked) if not part.empty)


def _window(
    outbox: sa.Table, span: Span, made_at: datetime, seconds: float, connection: sa.Connection
) -> Span:
    width = timedelta(seconds=seconds)
    first = first_id_since(connection, outbox, span, made_at - width)
    return Span(first, first_id_since(connection, outbox, span, made_at + width) - 1)


async def _scan(
    session: Session, outbox: sa.Table, span: Span, event_id: UUID, give_up: float
) -> Lookup:
    """Look at *span* from its newest row, in slices."""
    c: Any = outbox.c
    looked_to: int | None = None
    while not span.empty:
        if looked_to is not None and time.monotonic() > give_up:
            return Lookup(None, looked_to, complete=False)
        part = await session.run(
            partial(slice_of, outbox=outbox, span=span, rows=MOST_SLICE_ROWS, status=None)
        )
        query = (
            sa.select(c.id)
            .where(c.id >= part.first, c.id <= part.last, c.event_id == event_id)
            .order_by(c.id.desc())
            .limit(1)
        )
        found = await session.run(partial(_scalar, query))
        if found is not None:
            return Lookup(found, None, complete=True)
        looked_to = part.first
        span = Span(span.first, part.first - 1)
    return Lookup(None, looked_to, complete=True)


def _scalar(query: sa.Select[Any], connection: sa.Connection) -> int | None:
    found: int | None = connection.execute(query).scalar()
    return found
