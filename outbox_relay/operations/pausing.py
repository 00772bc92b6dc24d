"""
Pausing topics, all topics, or the purge: rows of the control table, which every relay asks about each second.

Rows of what pauses stay pending, cost no attempt and keep their order. A relay that starts meanwhile reads
nothing before it has asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from outbox_relay.errors import ConfigError, StoreUnavailable
from outbox_relay.operations.access import Access
from outbox_relay.relay.pauses import EVERYTHING
from outbox_relay.relay.purge import PURGE
from outbox_relay.schema import MAX_TOPIC_CHARS, is_one_of

ALL_TOPICS: Final = EVERYTHING
"""Stands for every topic, in the control table."""

THE_PURGE: Final = PURGE
"""Stands for the purge of old rows."""

MAX_REASON_CHARS: Final = 255


@dataclass(frozen=True, slots=True)
class Pause:
    """What pauses: a topic, `ALL_TOPICS` or `THE_PURGE`; since when (UTC, without a zone), and why."""

    topic: str
    paused_at: datetime
    reason: str


def reason_text(reason: str, by: str) -> str:
    """
    Why, and by whom, as the table keeps it.

    >>> reason_text("broker upgrade", "ann@web-1"), reason_text("", "ann@web-1")
    ('broker upgrade (ann@web-1)', '(ann@web-1)')
    """
    who = f"({by})" if by else ""
    room = MAX_REASON_CHARS - len(who) - 1
    return f"{reason[:room].strip()} {who}".strip()


async def pause(
    access: Access, topics: Sequence[str], *, reason: str = "", by: str = ""
) -> list[Pause]:
    """
    Pause *topics*. Those that were not paused before; what was keeps its time and its reason.

    Relays follow within about a second; what is under way at that moment is still published. Raises
    ConfigError for what cannot be a topic.
    """
    wanted = _checked(topics)
    control = access.names.control

    def work(connection: sa.Connection) -> list[Pause]:
        there = {found.topic for found in read_pauses(connection, control)}
        new = [topic for topic in wanted if topic not in there]
        text = reason_text(reason, by)
        if new:
            connection.execute(
                sa.insert(control), [{"topic": topic, "reason": text} for topic in new]
            )
        return [found for found in read_pauses(connection, control) if found.topic in new]

    try:
        return await access.run(work)
    except StoreUnavailable as error:
        if not isinstance(error.__cause__, sa.exc.IntegrityError):
            raise
        # Somebody else paused one of them at the same moment: it is there now.
        return await access.run(work)


async def resume(access: Access, topics: Sequence[str]) -> list[Pause]:
    """
    Let *topics* go on. Those that were paused until now.

    `ALL_TOPICS` undoes the pause of all: a topic that is paused by its own name stays paused.
    """
    wanted = _checked(topics)
    control = access.names.control

    def work(connection: sa.Connection) -> list[Pause]:
        gone = [found for found in read_pauses(connection, control) if found.topic in wanted]
        if gone:
            names = [found.topic for found in gone]
            connection.execute(sa.delete(control).where(is_one_of(control.c.topic, names)))
        return gone

    return await access.run(work)


async def paused(access: Access) -> list[Pause]:
    """What pauses because an operator said so."""
    control = access.names.control
    return await access.run(lambda connection: read_pauses(connection, control))


def read_pauses(connection: sa.Connection, control: sa.Table) -> list[Pause]:
    """The control table, by name."""
    c: Any = control.c
    rows = connection.execute(sa.select(c.topic, c.paused_at, c.reason).order_by(c.topic)).all()
    return [Pause(row.topic, row.paused_at, row.reason) for row in rows]


def _checked(topics: Sequence[str]) -> list[str]:
    wrong = [topic for topic in topics if not 1 <= len(topic) <= MAX_TOPIC_CHARS]
    if wrong or not topics:
        raise ConfigError(
            [f"a topic has 1 to {MAX_TOPIC_CHARS} characters: {topic[:50]!r}" for topic in wrong]
            or ["name a topic"]
        )
    return list(dict.fromkeys(topics))
