"""How the outbox stands, read from the database alone: what `status` shows, and a dashboard."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import sqlalchemy as sa

from outbox_relay.adoption_prepare import missing
from outbox_relay.migrate import read_version, refuse_python_cqrs
from outbox_relay.operations.access import Access
from outbox_relay.operations.pausing import THE_PURGE, Pause, read_pauses
from outbox_relay.operations.selection import by_status
from outbox_relay.python_cqrs import adopted_in, beside_problem
from outbox_relay.schema import LANES, NOT_YET, Status, Tables, schema_problem, utc_now

MOST_ROWS: Final = 100_000
"""Rows are counted up to here: an exact count of ten million would take seconds."""

MOST_ROWS_BY_TOPIC: Final = 20_000
"""So many of the oldest are counted by topic, since the topic is in no index."""

NEWEST_ROWS: Final = 1000
"""So many rows are looked at for the last one that was produced, at each of two places."""


@dataclass(frozen=True, slots=True)
class TopicBacklog:
    """What waits, or is dead, of one topic, among the rows that were counted."""

    topic: str
    rows: int
    oldest_id: int
    oldest_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """By topic, of the oldest rows; `capped`: there are more, perhaps of other topics."""

    topics: tuple[TopicBacklog, ...] = ()
    capped: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What `status` shows. `--json` prints these fields. Counts end at 100,000."""

    schema_version: int | None
    schema_problem: str | None
    backlog_rows: int = 0
    oldest_pending_seconds: float | None = None
    backlog_by_topic: Backlog = Backlog()
    dead_letter_rows: int = 0
    dead_letters_by_topic: Backlog = Backlog()
    owner: str | None = None
    owners: dict[str, int] = dataclasses.field(default_factory=dict)
    lanes_owned: int = 0
    lease_seconds_left: float | None = None
    leases: dict[str, float] = dataclasses.field(default_factory=dict)
    """Of each owner, for how long its lease holds."""
    crash_count: int = 0
    paused_topics: tuple[str, ...] = ()
    paused: tuple[Pause, ...] = ()
    """What an operator paused; the purge is here too."""
    newest_id: int = 0
    last_produced_seconds: float | None = None
    """How long ago a row was produced, as far as the newest rows say it."""
    oldest_produced_seconds: float | None = None
    """Age of the first produced row that is still there, since its ack."""
    purge_paused: bool = False
    retention_seconds: float | None = None
    """``relay.retention_seconds`` of the settings at hand."""
    read_at: datetime | None = None
    """By the database's clock, UTC, without a zone."""


async def read_standing(access: Access, *, retention_seconds: float | None = None) -> Standing:
    """How the outbox stands; with `schema_problem` and nothing else if the tables do not fit."""
    if not access.exists():
        return Standing(schema_version=None, schema_problem=schema_problem(None, None))
    async with access.session(checked=False) as session:
        if access.options.layout == "python-cqrs":
            return await session.run(lambda connection: _read_adopted(connection, access))
        standing = await session.run(lambda connection: _read(connection, access.names))
    if standing.schema_problem:
        return standing
    return dataclasses.replace(standing, retention_seconds=retention_seconds)


async def backlog(
    access: Access, status: Status = Status.PENDING, *, most_rows: int = MOST_ROWS_BY_TOPIC
) -> Backlog:
    """What waits by topic, or with `Status.DEAD` the dead letters, of the oldest *most_rows*."""
    access.require_own_layout("backlog")
    outbox = access.names.outbox
    return await access.run(
        lambda connection: _by_topic(
            connection, outbox, status, database_now(connection), most_rows
        )
    )


def _read(connection: sa.Connection, names: Tables) -> Standing:
    refuse_python_cqrs(connection, names.outbox)
    version, min_reader = read_version(connection, names)
    problem = schema_problem(version, min_reader)
    if version is None or problem:
        return Standing(schema_version=version, schema_problem=problem)
    now = database_now(connection)
    return Standing(
        schema_version=version,
        schema_problem=None,
        **_pauses(connection, names),
        **_rows(connection, names.outbox, now),
        **_produced(connection, names.outbox, now),
        **_lease(connection, names.lease, now),
        read_at=now.replace(tzinfo=None),
    )


def _read_adopted(connection: sa.Connection, access: Access) -> Standing:
    options = access.options
    names = adopted_in(connection, options.table, options.schema or None)
    version, min_reader = read_version(connection, names.beside)
    has_index = version is not None and not missing(connection, names)
    problem = beside_problem(version, min_reader, has_index=has_index)
    if problem:
        return Standing(schema_version=version, schema_problem=problem)
    now, id_ = database_now(connection), names.outbox.c.id
    waits = connection.execute(sa.select(names.seconds_waited(connection))).scalar_one()
    return Standing(
        schema_version=version,
        schema_problem=None,
        **_pauses(connection, names.beside),
        backlog_rows=_count(connection, sa.select(id_).where(names.pending())),
        oldest_pending_seconds=None if waits is None else float(waits),
        dead_letter_rows=_count(connection, sa.select(id_).where(names.given_up())),
        **_lease(connection, names.beside.lease, now),
        read_at=now.replace(tzinfo=None),
    )


def database_now(connection: sa.Connection) -> datetime:
    """The database's clock."""
    clock = sa.select(sa.type_coerce(utc_now(), sa.DateTime()))
    return utc(connection.execute(clock).scalar_one())


def _pauses(connection: sa.Connection, names: Tables) -> dict[str, Any]:
    found = tuple(read_pauses(connection, names.control))
    return {
        "paused": found,
        "paused_topics": tuple(pause.topic for pause in found if pause.topic != THE_PURGE),
        "purge_paused": any(pause.topic == THE_PURGE for pause in found),
    }


def _count(connection: sa.Connection, ids: Any) -> int:
    some = ids.limit(MOST_ROWS).subquery()
    return connection.execute(sa.select(sa.func.count()).select_from(some)).scalar_one()


def _rows(connection: sa.Connection, outbox: sa.Table, now: datetime) -> dict[str, Any]:
    c: Any = outbox.c

    def count(wanted: Status) -> int:
        return _count(connection, by_status(sa.select(c.id), outbox, wanted))

    first = by_status(sa.select(c.created_at), outbox, Status.PENDING).order_by(c.id).limit(1)
    oldest = connection.execute(first).scalar_one_or_none()
    newest = sa.select(c.id).order_by(c.id.desc()).limit(1)
    dead = count(Status.DEAD)
    return {
        "backlog_rows": count(Status.PENDING),
        "oldest_pending_seconds": (now - utc(oldest)).total_seconds() if oldest else None,
        "backlog_by_topic": _by_topic(connection, outbox, Status.PENDING, now, MOST_ROWS_BY_TOPIC),
        "dead_letter_rows": dead,
        "dead_letters_by_topic": _by_topic(
            connection, outbox, Status.DEAD, now, MOST_ROWS_BY_TOPIC if dead else 0
        ),
        "newest_id": connection.execute(newest).scalar() or 0,
    }


def _by_topic(
    connection: sa.Connection, outbox: sa.Table, status: Status, now: datetime, most_rows: int
) -> Backlog:
    c: Any = outbox.c
    since = c.dead_at if status is Status.DEAD else c.created_at
    some = (
        by_status(sa.select(c.id, c.topic, since.label("since")), outbox, status)
        .order_by(c.id)
        .limit(most_rows)
        .subquery()
    )
    grouped = sa.select(
        some.c.topic,
        sa.func.count().label("rows"),
        sa.func.min(some.c.id).label("oldest_id"),
        sa.func.min(some.c.since).label("since"),
    ).group_by(some.c.topic)
    found = [
        TopicBacklog(
            row.topic,
            row._mapping["rows"],
            row.oldest_id,
            0.0 if row.since is None else (now - utc(row.since)).total_seconds(),
        )
        for row in connection.execute(grouped).all()
    ]
    found.sort(key=lambda topic: (-topic.rows, topic.topic))
    total = sum(topic.rows for topic in found)
    return Backlog(topics=tuple(found), capped=0 < most_rows <= total)


def _produced(connection: sa.Connection, outbox: sa.Table, now: datetime) -> dict[str, Any]:
    """When a row was produced last, and since when the oldest is kept. Looks at few rows."""
    c: Any = outbox.c
    pending = by_status(sa.select(c.id), outbox, Status.PENDING).order_by(c.id).limit(1)
    first_pending = connection.execute(pending).scalar()
    below = [] if first_pending is None else [c.id < first_pending]
    last: list[datetime] = []
    # At the end of the table, and where the relay works if much waits.
    for conditions in ([], below) if below else ([],):
        found = _first_of(connection, outbox, conditions, c.id.desc(), sa.func.max)
        last += [] if found is None else [found]
    oldest = _first_of(connection, outbox, [], c.id, sa.func.min)
    return {
        "last_produced_seconds": (now - max(last)).total_seconds() if last else None,
        "oldest_produced_seconds": (now - oldest).total_seconds() if oldest else None,
    }


def _first_of(
    connection: sa.Connection, outbox: sa.Table, conditions: list[Any], order: Any, which: Any
) -> datetime | None:
    c: Any = outbox.c
    some = (
        sa.select(c.status, c.produced_at)
        .where(*conditions)
        .order_by(order)
        .limit(NEWEST_ROWS)
        .subquery()
    )
    query = sa.select(which(some.c.produced_at)).where(
        some.c.status == int(Status.PRODUCED), some.c.produced_at > NOT_YET.replace(tzinfo=None)
    )
    found = connection.execute(query).scalar()
    return None if found is None else utc(found)


def _lease(connection: sa.Connection, lease: sa.Table, now: datetime) -> dict[str, Any]:
    # By name: tables of an older version lack some.
    columns = (lease.c.lane, lease.c.owner, lease.c.expires_at, lease.c.crash_count)
    lanes = connection.execute(sa.select(*columns).where(lease.c.lane < LANES)).all()
    held = [lane for lane in lanes if utc(lane.expires_at) > now]
    if not held:
        return {"crash_count": max((lane.crash_count for lane in lanes), default=0)}
    # SQLite has one lane, whose owner holds them all.
    each = 1 if len(lanes) > 1 else LANES
    owners = Counter(sorted(lane.owner for lane in held))
    left: dict[str, float] = {}
    for lane in held:
        seconds = (utc(lane.expires_at) - now).total_seconds()
        left[lane.owner] = min(seconds, left.get(lane.owner, seconds))
    return {
        "owner": ", ".join(owners),
        "owners": {owner: count * each for owner, count in owners.items()},
        "lanes_owned": len(held) * each,
        "lease_seconds_left": min(left.values()),
        "leases": {owner: left[owner] for owner in owners},
        "crash_count": max(lane.crash_count for lane in held),
    }


def utc(instant: datetime | str) -> datetime:
    """An aware time. SQLite has no type for instants, so what an expression returns is text."""
    parsed = datetime.fromisoformat(instant) if isinstance(instant, str) else instant
    return parsed.replace(tzinfo=UTC)
