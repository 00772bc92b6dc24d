"""What is in the table, and who relays it. Each question reads a bounded number of rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import sqlalchemy as sa

from outbox_relay.config import Config
from outbox_relay.doctor.facts import DeadCount, LeaseFacts, Paused, RowsFacts, TableFacts, TopicUse
from outbox_relay.python_cqrs import AdoptedTables
from outbox_relay.relay.dead_letters import reason_of
from outbox_relay.schema import LANES, SUSPECTS_VERSION, Status, Tables, is_one_of, utc_now

MOST_PENDING: Final = 10_000
MOST_BEHIND: Final = 100_000
MOST_RECENT: Final = 2_000
MOST_DEAD: Final = 10_000
MOST_TOPICS: Final = 200
ALL: Final = "*"


def now_of(connection: sa.Connection) -> datetime:
    """The database's clock."""
    return _utc(
        connection.execute(sa.select(sa.type_coerce(utc_now(), sa.DateTime()))).scalar_one()
    )


def _utc(instant: datetime | str) -> datetime:
    # SQLite has no type for instants, so what an expression returns is text.
    parsed = datetime.fromisoformat(instant) if isinstance(instant, str) else instant
    return parsed.replace(tzinfo=UTC)


def look_at_lease(connection: sa.Connection, names: Tables, version: int) -> LeaseFacts:
    """Who holds which lanes."""
    c = names.lease.c
    columns = [c.lane, c.owner, c.expires_at, c.crash_count, c.wake_address]
    if version >= SUSPECTS_VERSION:
        columns += [c.suspect_first_id, c.suspect_last_id]
    now = now_of(connection)
    rows = connection.execute(sa.select(*columns).order_by(c.lane)).all()
    lanes = [row for row in rows if row.lane < LANES]
    held = [row for row in lanes if _utc(row.expires_at) > now]
    suspects = [row for row in lanes if getattr(row, "suspect_last_id", 0)]
    has_one = connection.dialect.name == "sqlite" or len(rows) <= 1
    ended = [] if held else [row for row in lanes if row.owner]
    last = max(ended, key=lambda row: row.expires_at, default=None)
    return LeaseFacts(
        lane_rows=len(lanes),
        slot_rows=len(rows) - len(lanes),
        owners=Counter(row.owner for row in held),
        lanes=1 if has_one else LANES,
        crash_count=max((row.crash_count for row in held or lanes), default=0),
        suspects=(suspects[0].suspect_first_id, suspects[0].suspect_last_id) if suspects else None,
        wake_addresses=tuple(sorted({row.wake_address for row in held if row.wake_address})),
        last_owner=last.owner if last else "",
        ended_seconds=(now - _utc(last.expires_at)).total_seconds() if last else 0.0,
    )


def look_at_rows(
    connection: sa.Connection, names: Tables, there: Mapping[str, TableFacts]
) -> RowsFacts:
    """Of our own table."""
    c = names.outbox.c
    now = now_of(connection)
    unkeyed = c.key.is_(None).label("unkeyed")
    waiting = (
        sa.select(c.id, c.topic, unkeyed, c.created_at)
        .where(c.status == Status.PENDING)
        .order_by(c.id)
        .limit(MOST_PENDING)
    )
    pending = connection.execute(_by_index(waiting, names, there)).all()
    recent = connection.execute(
        sa.select(c.topic, unkeyed).order_by(c.id.desc()).limit(MOST_RECENT)
    ).all()
    dead = connection.execute(
        sa.select(c.topic, c.last_error)
        .where(c.status == Status.DEAD)
        .order_by(c.id)
        .limit(MOST_DEAD)
    ).all()
    produced = connection.execute(
        sa.select(c.produced_at).where(c.status == Status.PRODUCED).order_by(c.id).limit(1)
    ).scalar_one_or_none()
    paused = _paused(connection, names, now)
    ages = [
        (now - _utc(row.created_at)).total_seconds()
        for row in pending
        if not {row.topic, ALL} & {item.topic for item in paused}
    ]
    if not ages and len(pending) >= MOST_PENDING:
        # What paused topics left waiting may hide that the others do not flow either.
        behind = _behind(names, there, pending[-1].id, [item.topic for item in paused])
        found = connection.execute(behind).scalar()
        ages = [] if found is None else [(now - _utc(found)).total_seconds()]
    return RowsFacts(
        pending=len(pending),
        oldest_pending_seconds=ages[0] if ages else None,
        oldest_produced_seconds=None
        if produced is None
        else (now - _utc(produced)).total_seconds(),
        dead=_dead([(row.topic, reason_of(row.last_error or "")) for row in dead]),
        topics=uses(
            [(row.topic, bool(row.unkeyed)) for row in pending],
            [(row.topic, bool(row.unkeyed)) for row in recent],
        ),
        paused=paused,
        oldest_of_paused=bool(pending) and not ages,
    )


def _behind(
    names: Tables, there: Mapping[str, TableFacts], row_id: int, paused: Sequence[str]
) -> sa.Select[Any]:
    """When the first row behind *row_id* was created that no operator wants to wait, of a bounded number."""
    c = names.outbox.c
    some = sa.select(c.id, c.topic, c.created_at).where(c.status == Status.PENDING, c.id > row_id)
    rows = _by_index(some.order_by(c.id).limit(MOST_BEHIND), names, there).subquery()
    goes = sa.false() if ALL in paused else sa.not_(is_one_of(rows.c.topic, paused))
    return sa.select(rows.c.created_at).where(goes).order_by(rows.c.id).limit(1)


def _by_index(
    select: sa.Select[Any], names: Tables, there: Mapping[str, TableFacts]
) -> sa.Select[Any]:
    # Where many produced rows are kept, MySQL would read through them.
    outbox = there.get(names.outbox.name)
    if outbox is None or names.pending_index not in outbox.indexes:
        return select
    hint = f"FORCE INDEX (`{names.pending_index}`)"
    return select.with_hint(names.outbox, hint, "mysql").with_hint(names.outbox, hint, "mariadb")


def _paused(connection: sa.Connection, names: Tables, now: datetime) -> tuple[Paused, ...]:
    c = names.control.c
    rows = connection.execute(sa.select(c.topic, c.reason, c.paused_at).order_by(c.topic)).all()
    return tuple(
        Paused(
            topic=row.topic,
            reason=row.reason,
            seconds=max(0.0, (now - _utc(row.paused_at)).total_seconds()),
        )
        for row in rows
    )


def _dead(rows: Sequence[tuple[str, str]]) -> tuple[DeadCount, ...]:
    return tuple(
        DeadCount(topic=topic, reason=reason, rows=count)
        for (topic, reason), count in Counter(rows).most_common()
    )


def uses(
    pending: Sequence[tuple[str, bool]], recent: Sequence[tuple[str, bool]]
) -> tuple[TopicUse, ...]:
    """
    The topics of *pending* and of *recent* rows, each as (topic, whether it has no key).

    >>> uses([("a", True), ("a", False)], [("b", False)])[0].unkeyed
    1
    """
    waiting = Counter(topic for topic, _ in pending)
    without = Counter(topic for topic, unkeyed in pending if unkeyed)
    lately = Counter(topic for topic, unkeyed in recent if unkeyed)
    topics = dict.fromkeys([*waiting, *(topic for topic, _ in recent)])
    return tuple(
        TopicUse(topic=t, pending=waiting[t], unkeyed=max(without[t], lately[t]))
        for t in list(topics)[:MOST_TOPICS]
    )


def oldest_pauses(waiting: Sequence[str], paused: Sequence[str]) -> bool:
    """
    Whether the first that waits does so because an operator wants it. *waiting*: topics, oldest first.

    >>> oldest_pauses(["a", "b"], ["a"]), oldest_pauses(["a", "b"], ["b", "@purge"])
    (True, False)
    """
    return bool({*waiting[:1], ALL} & {*paused}) if waiting else False


def look_at_adopted(connection: sa.Connection, names: AdoptedTables, config: Config) -> RowsFacts:
    """Of a table of python-cqrs."""
    c = names.outbox.c
    options = config.database
    topic: Any = c.topic if names.layout.has_topic else sa.literal(options.layout_topic)
    named = sa.func.coalesce(sa.func.nullif(topic, ""), options.layout_topic).label("topic")
    unkeyed = not options.layout_key_path
    pending = connection.execute(
        sa.select(named).where(names.pending()).order_by(c.id).limit(MOST_PENDING)
    ).scalars()
    waiting = [(item, unkeyed) for item in pending]
    recent = connection.execute(sa.select(named).order_by(c.id.desc()).limit(MOST_RECENT)).scalars()
    waits = connection.execute(sa.select(names.seconds_waited(connection))).scalar_one()
    letters = names.dead_letters(options.layout_topic, options.layout_payload)
    dead = connection.execute(
        sa.select(letters.c.topic, letters.c.last_error).limit(MOST_DEAD)
    ).all()
    paused = _paused(connection, names.beside, now_of(connection))
    return RowsFacts(
        pending=len(waiting),
        oldest_pending_seconds=None if waits is None else float(waits),
        oldest_produced_seconds=None,
        dead=_dead([(row.topic, reason_of(row.last_error or "")) for row in dead]),
        topics=uses(waiting, [(item, unkeyed) for item in recent]),
        paused=paused,
        oldest_of_paused=oldest_pauses([name for name, _ in waiting], [p.topic for p in paused]),
    )
