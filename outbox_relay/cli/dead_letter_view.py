"""Dead letters as text: tables, JSON, and payloads for whoever asks for one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from outbox_relay.relay.dead_letters import DeadLetter
from outbox_relay.shown import for_reading, harmless, key_text, payload

__all__ = [
    "as_json",
    "counts_as_json",
    "for_reading",
    "harmless",
    "key_text",
    "payload",
    "print_counts",
    "print_letters",
    "print_table",
]

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
    """*rows* below *names*, on standard output. Ids stay in one piece, to be copied; other columns fold."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for name in names:
        table.add_column(name, overflow="fold", no_wrap=name in ("id", "ce_id"))
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
