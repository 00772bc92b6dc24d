"""Reading produced rows once more, oldest first, some at a time. Takes no lock and changes nothing."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import sqlalchemy as sa

from outbox_relay.operations.access import Access, Session
from outbox_relay.operations.selection import (
    MOST_SLICE_ROWS,
    EventFilter,
    Span,
    next_slice_of,
    span_of,
)
from outbox_relay.relay.canary_options import CANARY_NAME
from outbox_relay.relay.ports import LARGE_PAYLOAD_BYTES, Row
from outbox_relay.schema import Status

SKEW_SECONDS: Final = 600.0
"""A statement that inserts for minutes gives its ids all the time, and one `created_at`. Nothing may be left out."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Survey:
    """What there was when it was counted, by topic. Later events are not meant."""

    counts: Counter[str]
    last_id: int

    @property
    def rows(self) -> int:
        """All together."""
        return self.counts.total()


async def survey(
    access: Access, which: EventFilter, *, looked: Callable[[Span, Span], None] = lambda _, __: None
) -> Survey:
    """Count the produced events of *which*. *looked* is told of each slice, and of the whole span."""
    access.require_own_layout("replay")
    outbox = access.names.outbox
    counts: Counter[str] = Counter()
    async with access.session() as session:
        span = whole = await session.run(partial(_span, outbox, which))
        while not span.empty:
            part = await session.run(
                partial(next_slice_of, outbox=outbox, span=span, rows=MOST_SLICE_ROWS)
            )
            counts.update(await session.run(partial(_count, outbox, which, part)))
            looked(part, whole)
            span = Span(part.last + 1, span.last)
    return Survey(counts, max(whole.last, 0))


def _span(outbox: sa.Table, which: EventFilter, connection: sa.Connection) -> Span:
    return span_of(connection, outbox, which, skew_seconds=SKEW_SECONDS)


def _count(
    outbox: sa.Table, which: EventFilter, part: Span, connection: sa.Connection
) -> dict[str, int]:
    c: Any = outbox.c
    query = sa.select(c.topic, sa.func.count()).where(*_within(outbox, which, part))
    found: list[Any] = list(connection.execute(query.group_by(c.topic)).all())
    return dict(found)


def _within(outbox: sa.Table, which: EventFilter, part: Span) -> list[sa.ColumnElement[bool]]:
    c: Any = outbox.c
    found = [c.id >= part.first, c.id <= part.last, c.status == int(Status.PRODUCED)]
    is_one = which.first_id is not None and which.first_id == which.last_id
    if not (which.topics or which.names or is_one):
        # The relay's own: nobody means them, least of all on another topic.
        found.append(c.event_name != CANARY_NAME)
    return [*found, *which.conditions(outbox)]


class ReplayRows:
    """The produced rows of *which*, in pages, by one connection."""

    def __init__(self, access: Access, which: EventFilter) -> None:
        self._access = access
        self._outbox = access.names.outbox
        self._which = which
        self._session: Session | None = None
        self._one_at_a_time = asyncio.Lock()

    async def pages(
        self, *, after_id: int, last_id: int, rows: int
    ) -> AsyncIterator[tuple[list[Row], int]]:
        """
        Up to *rows* rows above *after_id*, up to *last_id*, again and again; with each page the id up to
        which nothing more is meant.

        A large payload is left behind: see `payload`. Rows that are purged meanwhile are left out.
        """
        async with self._access.session() as session:
            self._session = session
            try:
                span = await session.run(partial(_span, self._outbox, self._which))
                span = Span(max(span.first, after_id + 1), min(span.last, last_id))
                async for page in self._pages(session, span, rows):
                    yield page
            finally:
                self._session = None
        yield [], last_id

    async def _pages(
        self, session: Session, span: Span, rows: int
    ) -> AsyncIterator[tuple[list[Row], int]]:
        while not span.empty:
            part = await session.run(
                partial(next_slice_of, outbox=self._outbox, span=span, rows=MOST_SLICE_ROWS)
            )
            while not part.empty:
                page = await session.run(partial(self._page, part, rows))
                upto = page[-1].id if len(page) >= rows else part.last
                yield page, upto
                part = Span(upto + 1, part.last)
            span = Span(part.last + 1, span.last)

    async def payload(self, row_id: int) -> bytes | None:
        """A payload that was left behind; None if the row is gone."""
        query = sa.select(self._outbox.c.payload).where(self._outbox.c.id == row_id)

        def read(connection: sa.Connection) -> bytes | None:
            stored = connection.execute(query).scalar()
            return None if stored is None else _bytes(stored)

        # The connection does one thing at a time, and several partitions ask.
        async with self._one_at_a_time:
            return await (self._session or self._access).run(read)

    def _page(self, part: Span, rows: int, connection: sa.Connection) -> list[Row]:
        c: Any = self._outbox.c
        size = sa.func.length(c.payload)
        query = (
            sa.select(
                c.id, c.topic, c.key, c.codec, c.headers, c.event_id, c.event_name, c.content_type,
                c.created_at, c.available_at, c.attempts, c.lane, size.label("payload_bytes"),
                sa.case((size <= LARGE_PAYLOAD_BYTES, c.payload)).label("payload"),
            )
            .where(*_within(self._outbox, self._which, part))
            .order_by(c.id)
            .limit(rows)
        )  # fmt: skip
        return [_row(found) for found in connection.execute(query).all()]


def _row(found: Any) -> Row:
    return Row(
        id=found.id,
        topic=found.topic,
        key=None if found.key is None else _bytes(found.key),
        payload=None if found.payload is None else _bytes(found.payload),
        payload_bytes=found.payload_bytes or 0,
        codec=found.codec,
        headers=found.headers,
        event_id=found.event_id.bytes,
        event_name=found.event_name,
        content_type=found.content_type,
        created_us=_microseconds(found.created_at),
        requeued_us=_microseconds(found.available_at)
        if found.attempts and found.available_at
        else None,
        lane=found.lane,
    )


def _microseconds(moment: datetime) -> int:
    since = moment.replace(tzinfo=UTC) - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _bytes(value: bytes | str) -> bytes:
    # SQLite keeps text as text, where a writer inserted text.
    return value.encode() if isinstance(value, str) else bytes(value)
