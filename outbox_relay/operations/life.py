"""One event, and its life so far: what it waits for, or when it was produced or given up."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa

from outbox_relay.operations.pausing import ALL_TOPICS, read_pauses
from outbox_relay.operations.selection import Span, by_status, slice_of
from outbox_relay.operations.standing import database_now, utc
from outbox_relay.schema import NOT_YET, Status, Tables

MOST_EARLIER: Final = 100_000
"""Earlier pending rows, of all keys, among which those of its key are looked for."""

MOST_DEAD: Final = 10_000
"""Dead letters that are looked at, as the relay does with ``on_dead_letter = "hold_key"``."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Something that a pending event waits for: a word of a closed set, and a line for people."""

    reason: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EventLife:
    """
    All that is known of one event but its payload. Times are UTC, without a zone.

    `waits_for` is empty for what is settled, and for what the relay takes next. `earlier_of_its_key`
    are pending rows of its topic and key before it, among the last 100,000 pending rows of all keys
    (`earlier_capped`: there are more than that).
    """

    id: int
    event_id: UUID
    event_name: str
    topic: str
    key: bytes | None
    headers: str | None
    content_type: str
    codec: int
    payload_bytes: int
    status: Status
    attempts: int
    created_at: datetime
    requeued_at: datetime | None
    produced_at: datetime | None
    dead_at: datetime | None
    last_error: str | None
    lane: int
    lane_owner: str | None
    lane_lease_seconds_left: float | None
    earlier_of_its_key: int | None = None
    earlier_capped: bool = False
    waits_for: tuple[Waiting, ...] = ()

    @property
    def seconds_to_produced(self) -> float | None:
        """From created to acked."""
        if self.produced_at is None:
            return None
        return (self.produced_at - self.created_at).total_seconds()


def read_life(connection: sa.Connection, names: Tables, row_id: int) -> EventLife | None:
    """The event in row *row_id*; None if there is none."""
    c: Any = names.outbox.c
    wanted = [
        c.id, c.event_id, c.event_name, c.topic, c.key, c.headers, c.content_type, c.codec, c.status,
        c.attempts, c.available_at, c.created_at, c.produced_at, c.dead_at, c.last_error, c.lane,
    ]  # fmt: skip
    query = sa.select(*wanted, sa.func.length(c.payload).label("payload_bytes"))
    row = connection.execute(query.where(c.id == row_id)).one_or_none()
    if row is None:
        return None
    values = dict(row._mapping)
    available_at, key = values.pop("available_at"), values.pop("key")
    status = values["status"] = Status(row.status)
    values["key"] = key.encode() if isinstance(key, str) else key
    values["requeued_at"] = available_at if row.attempts else None
    if row.produced_at == NOT_YET.replace(tzinfo=None) or status is not Status.PRODUCED:
        values["produced_at"] = None
    owner, left, suspects = _lane(connection, names.lease, row.lane)
    values |= {"lane_owner": owner, "lane_lease_seconds_left": left}
    if status is Status.PENDING:
        count, capped = _earlier(connection, names.outbox, row)
        values |= {"earlier_of_its_key": count, "earlier_capped": capped}
        values["waits_for"] = tuple(
            _waits(connection, names, row, owned=owner is not None, suspects=suspects)
        )
    return EventLife(**values)


def _lane(
    connection: sa.Connection, lease: sa.Table, lane: int
) -> tuple[str | None, float | None, tuple[int, int]]:
    """The owner of *lane*, for how long its lease holds, and the rows that are suspected in it."""
    c: Any = lease.c
    first = sa.select(c.owner, c.expires_at).where(c.lane == lane)
    row = connection.execute(first).one_or_none()
    left = None
    if row is not None:
        left = (utc(row.expires_at) - database_now(connection)).total_seconds()
    suspects = (0, 0)
    there = {
        column["name"] for column in sa.inspect(connection).get_columns(lease.name, lease.schema)
    }
    if {"suspect_first_id", "suspect_last_id"} <= there:
        which = sa.select(c.suspect_first_id, c.suspect_last_id).where(c.lane == lane)
        found = connection.execute(which).one_or_none()
        suspects = suspects if found is None else (found[0], found[1])
    if row is None or left is None or left <= 0 or not row.owner:
        return None, None, suspects
    return row.owner, left, suspects


def _earlier(connection: sa.Connection, outbox: sa.Table, row: Any) -> tuple[int | None, bool]:
    """How many earlier rows of its topic and key are pending, of those that are looked at."""
    if row.key is None:
        return None, False
    before = Span(1, row.id - 1)
    part = slice_of(connection, outbox, before, MOST_EARLIER, status=Status.PENDING)
    c: Any = outbox.c
    # The lane, which is in the index, leaves one in 64 to look at.
    query = by_status(sa.select(sa.func.count()), outbox, Status.PENDING).where(
        c.id >= part.first,
        c.id <= part.last,
        c.lane == row.lane,
        c.topic == row.topic,
        c.key == row.key,
    )
    return connection.execute(query).scalar_one(), part.first > before.first


def _waits(
    connection: sa.Connection, names: Tables, row: Any, *, owned: bool, suspects: tuple[int, int]
) -> list[Waiting]:
    found = [
        Waiting("paused", _paused_text(pause.topic, pause.reason))
        for pause in read_pauses(connection, names.control)
        if pause.topic in (row.topic, ALL_TOPICS)
    ]
    if not owned:
        found.append(
            Waiting(
                "no_relay", f"no relay holds lane {row.lane}: start one, see outbox-relay status"
            )
        )
    dead = _dead_before(connection, names.outbox, row)
    if dead is not None:
        found.append(
            Waiting(
                "held_key",
                f"row {dead} of its topic and key is a dead letter: with relay.on_dead_letter = "
                '"hold_key" this waits until that is requeued or discarded',
            )
        )
    if suspects[0] and suspects[0] <= row.id <= suspects[1]:
        found.append(
            Waiting(
                "careful", "relays died while it was looked at: it is tried with care, see the log"
            )
        )
    return found


def _paused_text(topic: str, reason: str) -> str:
    what = "all topics are" if topic == ALL_TOPICS else "its topic is"
    return f"{what} paused" + (f": {reason}" if reason else "")


def _dead_before(connection: sa.Connection, outbox: sa.Table, row: Any) -> int | None:
    """The first dead letter of its topic and key before it."""
    if row.key is None:
        return None
    c: Any = outbox.c
    dead = (
        sa.select(c.id, c.topic, c.key)
        .where(c.status == int(Status.DEAD), c.id < row.id)
        .order_by(c.id)
        .limit(MOST_DEAD)
        .subquery()
    )
    query = sa.select(sa.func.min(dead.c.id)).where(
        dead.c.topic == row.topic, dead.c.key == row.key
    )
    return connection.execute(query).scalar()
