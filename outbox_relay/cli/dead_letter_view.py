"""Dead letters as text: tables, JSON, and payloads for whoever asks for one."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

from outbox_relay.compression import inflate
from outbox_relay.relay.dead_letters import DeadLetter
from outbox_relay.schema import MAX_PAYLOAD_BYTES, Codec

Counts = Mapping[tuple[str, str], int]
"""(topic, reason) → rows."""


def counts_as_json(counts: Counts) -> list[dict[str, Any]]:
    """One object for each topic and reason."""
    return [
        {"topic": topic, "reason": reason, "rows": rows}
        for (topic, reason), rows in sorted(counts.items())
    ]


def print_counts(counts: Counts) -> None:
    """A table by topic and reason."""
    print_table(
        ("topic", "reason", "rows"),
        [(topic, reason, f"{rows:,}") for (topic, reason), rows in sorted(counts.items())],
    )


def print_letters(letters: Sequence[DeadLetter]) -> None:
    """A table, a row each."""
    print_table(
        ("id", "topic", "key", "event", "bytes", "dead since (UTC)", "error"),
        [
            (
                str(letter.id),
                letter.topic,
                key_text(letter.key),
                letter.event_name,
                f"{letter.payload_bytes:,}",
                letter.dead_at.strftime("%Y-%m-%d %H:%M:%S") if letter.dead_at else "",
                letter.last_error,
            )
            for letter in letters
        ],
    )


def print_table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """*rows* below *names*, on standard output."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for name in names:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(harmless(cell)) for cell in row))
    Console().print(table)


def as_json(letter: DeadLetter) -> dict[str, Any]:
    """All that is known of *letter* but its payload."""
    return {
        "id": letter.id,
        "event_id": str(letter.event_id),
        "event_name": letter.event_name,
        "topic": letter.topic,
        "key": None if letter.key is None else key_text(letter.key),
        "headers": letter.headers,
        "content_type": letter.content_type,
        "payload_bytes": letter.payload_bytes,
        "attempts": letter.attempts,
        "created_at": f"{letter.created_at.isoformat()}Z",
        "dead_at": f"{letter.dead_at.isoformat()}Z" if letter.dead_at else None,
        "reason": letter.reason,
        "error": letter.last_error,
    }


def key_text(key: bytes | None) -> str:
    """
    The key as text, or its bytes as 0x... if it is none.

    >>> key_text(bytes([0, 255]))
    '0x00ff'
    """
    if key is None:
        return ""
    try:
        text = key.decode()
    except UnicodeDecodeError:
        text = ""
    plain = text.isprintable() and text and not text.startswith("0x")
    return text if plain else f"0x{key.hex()}"


def harmless(text: str) -> str:
    """
    *text* for a terminal: what a writer put in must not move the cursor or change the screen.

    >>> harmless("a" + chr(27) + "[2J")
    'a\\\\x1b[2J'
    """
    return "".join(
        [c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text]
    )


def payload(stored: bytes, codec: int) -> dict[str, str | None]:
    """What would be published; what is stored, and why, if that cannot be made of it."""
    if codec == Codec.TOMBSTONE:
        return {"payload": None}
    if codec == Codec.ZLIB:
        try:
            stored = inflate(stored, max_bytes=MAX_PAYLOAD_BYTES)
        except ValueError as error:
            return _as_stored(stored, str(error))
    elif codec != Codec.RAW:
        return _as_stored(stored, f"codec {codec} is not one that this version reads")
    try:
        return {"payload": stored.decode()}
    except UnicodeDecodeError:
        return {"payload_base64": base64.b64encode(stored).decode()}


def _as_stored(stored: bytes, problem: str) -> dict[str, str | None]:
    return {"stored_base64": base64.b64encode(stored).decode(), "payload_problem": problem}


def for_reading(name: str, value: object, content_type: str) -> str:
    """The field as a person reads it: JSON over several lines."""
    if value is None:
        return ""
    if name == "payload" and _is_json(content_type):
        try:
            value = json.dumps(json.loads(str(value)), indent=2, ensure_ascii=False)
        except (ValueError, RecursionError):
            pass  # it says so and is none: shown as it is
        else:
            value = f"\n{value}"
    return harmless(str(value))


def _is_json(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind.endswith(("/json", "+json"))
