"""What a search form asks for. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from uuid import UUID

from outbox_relay.operations import EventFilter
from outbox_relay.relay.dead_letters import Selection
from outbox_relay.schema import Status


class NotUnderstood(ValueError):
    """A field of a form cannot be read; the text says which, and how it is written."""


def event_filter(fields: Mapping[str, str]) -> EventFilter:
    """The events that a form asks for. Raises NotUnderstood."""
    status = fields.get("status", "")
    return EventFilter(
        topics=_some(fields, "topic"),
        names=_some(fields, "name"),
        keys=tuple(key_bytes(key) for key in _some(fields, "key")),
        statuses=(status_of(status),) if status else (),
        since=moment_of(fields, "since"),
        until=moment_of(fields, "until"),
    )


def dead_letters(fields: Mapping[str, str]) -> Selection:
    """The dead letters that a form asks for. Raises NotUnderstood."""
    return Selection(
        topics=_some(fields, "topic"),
        reasons=_some(fields, "reason"),
        keys=tuple(key_bytes(key) for key in _some(fields, "key")),
        since=moment_of(fields, "since"),
        until=moment_of(fields, "until"),
    )


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


def key_bytes(text: str) -> bytes:
    """
    The key that *text* stands for.

    >>> key_bytes("order-7"), key_bytes("0x00ff")
    (b'order-7', b'\\x00\\xff')
    """
    if not text.startswith("0x"):
        return text.encode(errors="surrogateescape")
    try:
        return bytes.fromhex(text[2:])
    except ValueError:
        raise NotUnderstood(
            f"key {text}: after 0x comes an even number of hexadecimal digits"
        ) from None


def moment_of(fields: Mapping[str, str], name: str) -> datetime | None:
    """
    A time in a form, UTC unless it says otherwise; without a zone, as the tables have it.

    >>> moment_of({"since": "2026-11-22T03:00+02:00"}, "since")
    datetime.datetime(2026, 11, 22, 1, 0)
    """
    text = fields.get(name, "").strip()
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise NotUnderstood(f"{name} {text}: use a time such as 2026-11-22T03:00") from None
    return found.astimezone(UTC).replace(tzinfo=None) if found.tzinfo else found


def which_event(text: str) -> int | UUID:
    """
    The row id or event id that somebody typed.

    >>> which_event(" 42 ")
    42
    """
    text = text.strip()
    if text.isascii() and text.isdigit() and len(text) < 20:
        return int(text)
    try:
        return UUID(text)
    except ValueError:
        raise NotUnderstood(f"{text!r} is neither a row's id nor an event's (ce_id)") from None
