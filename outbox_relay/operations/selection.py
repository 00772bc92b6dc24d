"""Which events are meant, and which ids that leaves: so that no statement reads without a bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa

from outbox_relay.schema import Status, is_one_of

FIRST_SLICE_ROWS: Final = 1000
MOST_SLICE_ROWS: Final = 50_000
"""Rows that one statement passes at most: a tenth of a second, where they are in memory."""

SKEW_SECONDS: Final = 60.0
"""`created_at` follows the ids, but for transactions that ran side by side and clocks that were set."""

_SINCE_1582: Final = 0x01B21DD213814000
"""From the first day of version 1 UUIDs to 1970, in steps of 100 ns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Those that fit each of what is given; nothing given: all. Times are UTC, without a zone."""

    topics: tuple[str, ...] = ()
    keys: tuple[bytes, ...] = ()
    names: tuple[str, ...] = ()
    statuses: tuple[Status, ...] = ()
    since: datetime | None = None
    """Created then or later."""
    until: datetime | None = None
    """Created before."""
    first_id: int | None = None
    last_id: int | None = None

    def conditions(self, outbox: sa.Table) -> list[sa.ColumnElement[bool]]:
        """What a row must fit, but for its id."""
        c: Any = outbox.c
        found: list[sa.ColumnElement[bool]] = []
        if self.topics:
            found.append(is_one_of(c.topic, self.topics))
        for column, values in (
            # SQLite keeps text as text, where a writer inserted text.
            (sa.cast(c.key, sa.LargeBinary), self.keys),
            (c.event_name, self.names),
            (c.status, tuple(map(int, self.statuses))),
        ):
            if values:
                found.append(column.in_(values))
        if self.since is not None:
            found.append(c.created_at >= self.since)
        if self.until is not None:
            found.append(c.created_at < self.until)
        return found

    def described(self) -> dict[str, object]:
        """What is given, for a log line: of keys only how many, since they are the application's data."""
        given: dict[str, object] = {
            "topics": list(self.topics),
            "chosen_keys": len(self.keys) or None,
            "event_names": list(self.names),
            "statuses": [status.name.lower() for status in self.statuses],
            "since": self.since and f"{self.since.isoformat()}Z",
            "until": self.until and f"{self.until.isoformat()}Z",
            "from_id": self.first_id,
            "to_id": self.last_id,
        }
        return {name: value for name, value in given.items() if value is not None and value != []}


@dataclass(frozen=True, slots=True)
class Span:
    """Ids from *first* to *last*, both of them included."""

    first: int
    last: int

    @property
    def empty(self) -> bool:
        """Whether there is none."""
        return self.first > self.last

    def without(self, looked: Span) -> tuple[Span, Span]:
        """
        What is above *looked*, and what is below.

        >>> Span(1, 9).without(Span(4, 6))
        (Span(first=7, last=9), Span(first=1, last=3))
        """
        if looked.empty:
            return self, Span(1, 0)
        return (
            Span(max(self.first, looked.last + 1), self.last),
            Span(self.first, min(self.last, looked.first - 1)),
        )


def time_of(event_id: UUID) -> datetime | None:
    """
    When an id was made, UTC without a zone, where it says so: version 7, as the library's are, and
    version 1, as MySQL and MariaDB make them.

    >>> time_of(UUID("01936f3e-8a00-7000-8000-000000000000"))
    datetime.datetime(2024, 11, 27, 20, 9, 49, 824000)
    >>> time_of(UUID("d9428888-122b-11e1-b85c-61cd3cbb3210"))
    datetime.datetime(2011, 11, 18, 21, 25, 33, 573543)
    >>> time_of(UUID("3fa85f64-5717-4562-b3fc-2c963f66afa6")) is None
    True
    """
    if event_id.version == 7:
        microseconds = (event_id.int >> 80) * 1000
    elif event_id.version == 1:
        microseconds = (event_id.time - _SINCE_1582) // 10
    else:
        return None
    try:
        since = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
    except OverflowError:
        return None
    return since.replace(tzinfo=None)


def whole_span(connection: sa.Connection, outbox: sa.Table) -> Span:
    """The ids that there are, committed so far."""
    id_ = outbox.c.id
    least = sa.select(id_).order_by(id_).limit(1)
    most = sa.select(id_).order_by(id_.desc()).limit(1)
    first = connection.execute(least).scalar()
    if first is None:
        return Span(1, 0)
    return Span(first, connection.execute(most).scalar() or first)


def first_id_since(
    connection: sa.Connection, outbox: sa.Table, span: Span, moment: datetime
) -> int:
    """
    The first id of *span* whose row was created at *moment* or later; one above *span* if none was.

    By halves, on the primary key: one row a step. Right as far as times follow ids.
    """
    c: Any = outbox.c
    low, high = span.first, span.last + 1
    while low < high:
        middle = (low + high) // 2
        probe = sa.select(c.id, c.created_at).where(c.id >= middle, c.id <= span.last)
        row = connection.execute(probe.order_by(c.id).limit(1)).one_or_none()
        if row is None or row.created_at >= moment:
            high = middle
        else:
            low = row.id + 1
    return low


def span_of(
    connection: sa.Connection,
    outbox: sa.Table,
    which: EventFilter,
    *,
    skew_seconds: float = SKEW_SECONDS,
) -> Span:
    """The ids among which all rows of *which* are, as far as times are no more than that out of order."""
    span = whole_span(connection, outbox)
    if span.empty:
        return span
    first, last = span.first, span.last
    skew = timedelta(seconds=skew_seconds)
    if which.since is not None:
        first = first_id_since(connection, outbox, span, which.since - skew)
    if which.until is not None:
        last = first_id_since(connection, outbox, span, which.until + skew) - 1
    if which.first_id is not None:
        first = max(first, which.first_id)
    if which.last_id is not None:
        last = min(last, which.last_id)
    return Span(first, last)


def slice_of(
    connection: sa.Connection, outbox: sa.Table, span: Span, rows: int, *, status: Status | None
) -> Span:
    """
    The newest part of *span* that holds at most *rows*; with *status* so many of that status.

    With it, the index that the relay reads by leads, so that what lies between costs nothing.
    """
    id_ = outbox.c.id
    query = sa.select(id_).where(id_ >= span.first, id_ <= span.last)
    query = by_status(query, outbox, status).order_by(id_.desc()).offset(rows - 1).limit(1)
    first = connection.execute(query).scalar()
    return Span(span.first if first is None else first, span.last)


def next_slice_of(connection: sa.Connection, outbox: sa.Table, span: Span, rows: int) -> Span:
    """The oldest part of *span* that holds at most *rows*."""
    id_ = outbox.c.id
    query = sa.select(id_).where(id_ >= span.first, id_ <= span.last)
    last = connection.execute(query.order_by(id_).offset(rows - 1).limit(1)).scalar()
    return Span(span.first, span.last if last is None else last)


def by_status(query: Any, outbox: sa.Table, status: Status | None) -> Any:
    """*query* for rows of *status*, by the index on it where it is one that MySQL must be told."""
    if status is None:
        return query
    hint = f"FORCE INDEX ({outbox.name}_pending_ix)"
    return (
        query.where(outbox.c.status == int(status))
        .with_hint(outbox, hint, "mysql")
        .with_hint(outbox, hint, "mariadb")
    )


def leading_status(statuses: Sequence[Status]) -> Status | None:
    """The one status whose rows are few and in the index on every database; None for others."""
    one = statuses[0] if len(statuses) == 1 else None
    return one if one in (Status.PENDING, Status.DEAD) else None
