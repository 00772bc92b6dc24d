"""What a search form asks for. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from outbox_relay.operations import EventFilter
from outbox_relay.relay.dead_letters import Selection
from outbox_relay.schema import MAX_ID, Status
from outbox_relay.shown import typed_instant, typed_key


class NotUnderstood(ValueError):
    """A field of a form cannot be read; the text says which, and how it is written."""


def event_filter(fields: Mapping[str, str]) -> EventFilter:
    """The events that a form asks for. Raises NotUnderstood."""
    status = fields.get("status", "")
    return EventFilter(
        topics=_some(fields, "topic"),
        names=_some(fields, "name"),
        keys=_keys(fields),
        statuses=(status_of(status),) if status else (),
        since=_moment(fields, "since"),
        until=_moment(fields, "until"),
    )


def dead_letters(fields: Mapping[str, str]) -> Selection:
    """The dead letters that a form asks for. Raises NotUnderstood."""
    return Selection(
        topics=_some(fields, "topic"),
        reasons=_some(fields, "reason"),
        keys=_keys(fields),
        since=_moment(fields, "since"),
        until=_moment(fields, "until"),
    )


SEEN: Final = ("seen_to", "seen_at")
"""Fields that say what was dead when somebody was asked about it."""


def as_seen(which: Selection) -> dict[str, str]:
    """The bounds of *which*, for the form that asks about it."""
    known_at = "" if which.known_at is None else which.known_at.isoformat()
    return dict(zip(SEEN, (str(which.last_id or 0), known_at), strict=True))


def seen_by_then(which: Selection, fields: Mapping[str, str]) -> Selection:
    """*which* within the bounds that the form names. Raises NotUnderstood."""
    last, at = (fields.get(name, "") for name in SEEN)
    try:
        known_at = datetime.fromisoformat(at) if at else None
    except ValueError:
        raise NotUnderstood(f"{at[:50]!r} is no time: choose the rows again") from None
    return replace(which, last_id=row_number(last), known_at=known_at)


def row_number(text: str) -> int:
    """
    The row's id that *text* is. Raises NotUnderstood.

    >>> row_number("1754")
    1754
    """
    if not text.isascii() or not text.isdigit() or len(text) > len(str(MAX_ID)):
        raise NotUnderstood(f"{text[:50]!r} is no id of a row")
    return min(int(text), MAX_ID)


def _some(fields: Mapping[str, str], name: str) -> tuple[str, ...]:
    value = fields.get(name, "").strip()
    return (value,) if value else ()


def status_of(word: str) -> Status:
    """
    The status of a word.

    >>> status_of("dead")
    <Status.DEAD: 2>
    """
    try:
        return Status[word.upper()]
    except KeyError:
        raise NotUnderstood(f"status {word!r} is none of the table's") from None


def _keys(fields: Mapping[str, str]) -> tuple[bytes, ...]:
    try:
        return tuple(typed_key(key) for key in _some(fields, "key"))
    except ValueError as error:
        raise NotUnderstood(f"key {fields['key']}: {error}") from None


def _moment(fields: Mapping[str, str], name: str) -> datetime | None:
    """A time in a form, UTC unless it says otherwise."""
    text = fields.get(name, "").strip()
    try:
        return typed_instant(text, now=datetime.now(UTC)) if text else None
    except ValueError as error:
        raise NotUnderstood(f"{name} {text}: {error}") from None


def which_event(text: str) -> int | UUID:
    """
    The row id or event id that somebody typed.

    >>> which_event(" 42 ")
    42
    """
    text = text.strip()
    if text.isascii() and text.isdigit():
        return row_number(text)
    try:
        return UUID(text)
    except ValueError:
        raise NotUnderstood(f"{text!r} is neither a row's id nor an event's (ce_id)") from None
