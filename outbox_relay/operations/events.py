"""Searching the outbox, newest first, page by page; and one event with its life so far."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa

from outbox_relay.operations.access import Access, Session
from outbox_relay.operations.finding import Lookup, find_event
from outbox_relay.operations.life import EventLife, read_life
from outbox_relay.operations.selection import (
    FIRST_SLICE_ROWS,
    MOST_SLICE_ROWS,
    EventFilter,
    Span,
    by_status,
    leading_status,
    slice_of,
    span_of,
)
from outbox_relay.schema import NOT_YET, Status

WHAT: Final = "events"
SEARCH_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRow:
    """A row of the outbox, in short: without headers and payload."""

    id: int
    event_id: UUID
    event_name: str
    topic: str
    key: bytes | None
    status: Status
    created_at: datetime
    settled_at: datetime | None
    """When it was produced, or given up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """
    Events, newest first. `next_before_id` asks for the next page; None at the end.

    `looked_to_id` is the oldest row looked at; with `timed_out` there may be more events below it
    although the page is not full.
    """

    events: tuple[EventRow, ...]
    next_before_id: int | None
    looked_to_id: int | None
    timed_out: bool = False


async def search_events(
    access: Access,
    which: EventFilter,
    *,
    before_id: int | None = None,
    limit: int = 50,
    seconds: float = SEARCH_SECONDS,
) -> Page:
    """
    The newest events of *which* below *before_id*, at most *limit*.

    Looks at slices of ids until the page is full or *seconds* are over: then the page says how far it
    came, and the next one goes on there. Takes no lock.
    """
    access.require_own_layout(WHAT)
    give_up = time.monotonic() + seconds
    outbox = access.names.outbox
    found: list[EventRow] = []
    status = leading_status(which.statuses)
    async with access.session() as session:
        span = await session.run(lambda connection: span_of(connection, outbox, which))
        if before_id is not None:
            span = Span(span.first, min(span.last, before_id - 1))
        rows, looked_to = FIRST_SLICE_ROWS, None
        while not span.empty and len(found) < limit:
            if looked_to is not None and time.monotonic() > give_up:
                return _page(found, next_before_id=looked_to, looked_to=looked_to, timed_out=True)
            part = await session.run(
                partial(slice_of, outbox=outbox, span=span, rows=rows, status=status)
            )
            found += await _matching(session, outbox, which, part, limit - len(found))
            looked_to = part.first if len(found) < limit else found[-1].id
            span = Span(span.first, part.first - 1)
            rows = min(rows * 2, MOST_SLICE_ROWS)
    more = len(found) >= limit > 0
    return _page(found, next_before_id=found[-1].id if more else None, looked_to=looked_to)


def _page(
    found: Sequence[EventRow],
    *,
    next_before_id: int | None,
    looked_to: int | None,
    timed_out: bool = False,
) -> Page:
    return Page(
        events=tuple(found),
        next_before_id=next_before_id,
        looked_to_id=looked_to,
        timed_out=timed_out,
    )


async def _matching(
    session: Session, outbox: sa.Table, which: EventFilter, part: Span, limit: int
) -> list[EventRow]:
    c: Any = outbox.c
    columns = (
        c.id, c.event_id, c.event_name, c.topic, c.key, c.status, c.created_at, c.produced_at,
        c.dead_at,
    )  # fmt: skip
    query = sa.select(*columns).where(
        c.id >= part.first, c.id <= part.last, *which.conditions(outbox)
    )
    query = by_status(query, outbox, leading_status(which.statuses))
    query = query.order_by(c.id.desc()).limit(limit)
    return await session.run(
        lambda connection: [row_of(row) for row in connection.execute(query).all()]
    )


def row_of(row: Any) -> EventRow:
    """What a SELECT found, as an event."""
    status = Status(row.status)
    settled = {Status.PRODUCED: produced(row.produced_at), Status.DEAD: row.dead_at}
    return EventRow(
        id=row.id,
        event_id=row.event_id,
        event_name=row.event_name,
        topic=row.topic,
        key=None if row.key is None else _bytes(row.key),
        status=status,
        created_at=row.created_at,
        settled_at=settled.get(status),
    )


def produced(moment: datetime) -> datetime | None:
    """When it was acked; None for the value that says "not yet"."""
    return None if moment == NOT_YET.replace(tzinfo=None) else moment


def _bytes(value: bytes | str) -> bytes:
    # SQLite keeps text as text, where a writer inserted text.
    return value.encode() if isinstance(value, str) else bytes(value)


async def event(
    access: Access, which: int | UUID, *, seconds: float = SEARCH_SECONDS
) -> EventLife | Lookup:
    """
    One event by its row's id or its event id, with its life so far; how far was looked if it was not found.

    Its payload is not read: see `stored_payload`.
    """
    access.require_own_layout(WHAT)
    looked = Lookup(which if isinstance(which, int) else None, None, complete=True)
    if isinstance(which, UUID):
        looked = await find_event(access, which, seconds=seconds)
    if looked.id is None:
        return looked
    row_id = looked.id
    life = await access.run(lambda connection: read_life(connection, access.names, row_id))
    return Lookup(None, None, complete=True) if life is None else life


async def stored_payload(access: Access, row_id: int) -> bytes:
    """The payload as it is stored; nothing if the row is gone."""
    access.require_own_layout(WHAT)
    c: Any = access.names.outbox.c
    query = sa.select(c.payload).where(c.id == row_id)
    stored = await access.run(lambda connection: connection.execute(query).scalar())
    return _bytes(stored or b"")
