"""Events as text: tables, JSON, and one with its life."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import typer

from outbox_relay.cli.dead_letter_view import for_reading, key_text, payload, print_table

if TYPE_CHECKING:
    from outbox_relay.operations import EventLife, EventRow, Lookup, Page

__all__ = ["life_as_json", "not_found", "page_as_json", "payload", "print_life", "print_page"]


def page_as_json(page: Page) -> dict[str, Any]:
    """One object."""
    return {
        "events": [_row_as_json(row) for row in page.events],
        "next_before_id": page.next_before_id,
        "looked_to_id": page.looked_to_id,
        "timed_out": page.timed_out,
    }


def _row_as_json(row: EventRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "event_id": str(row.event_id),
        "event_name": row.event_name,
        "topic": row.topic,
        "key": None if row.key is None else key_text(row.key),
        "status": row.status.name.lower(),
        "created_at": _time(row.created_at),
        "settled_at": _time(row.settled_at),
    }


def print_page(page: Page) -> None:
    """A table, and how to go on."""
    if page.events:
        print_table(
            ("id", "topic", "key", "event", "status", "created (UTC)", "settled", "ce_id"),
            [
                (
                    str(row.id),
                    row.topic,
                    key_text(row.key),
                    row.event_name,
                    row.status.name.lower(),
                    row.created_at.strftime("%Y-%m-%d %H:%M:%S"),
                    _later(row),
                    str(row.event_id),
                )
                for row in page.events
            ],
        )
    if page.timed_out:
        typer.echo(
            f"the time is over: looked at rows down to {page.looked_to_id}; go on with "
            f"--before {page.next_before_id}, or give it more --seconds"
        )
    elif page.next_before_id is not None:
        typer.echo(f"there may be more: --before {page.next_before_id}")
    elif not page.events:
        typer.echo("no events")


def _later(row: EventRow) -> str:
    if row.settled_at is None:
        return ""
    return f"+{(row.settled_at - row.created_at).total_seconds():,.3f} s"


def not_found(wanted: str, looked: Lookup) -> str:
    """Why there is nothing to show."""
    if looked.complete:
        return f"there is no event {wanted}: it was never committed, or is purged"
    return (
        f"no event {wanted} among the rows down to {looked.looked_to_id}, and the time is over: where its "
        "id does not say when it was made, or not rightly, all rows must be looked at; give it more "
        "--seconds, or find its row with outbox-relay events search --topic ... --since ..."
    )


def life_as_json(life: EventLife) -> dict[str, Any]:
    """All that is known of *life* but its payload."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(life):
        value = getattr(life, field.name)
        found[field.name] = _time(value) if isinstance(value, datetime) else value
    found |= {
        "event_id": str(life.event_id),
        "key": None if life.key is None else key_text(life.key),
        "status": life.status.name.lower(),
        "seconds_to_produced": life.seconds_to_produced,
        "waits_for": [dataclasses.asdict(waiting) for waiting in life.waits_for],
    }
    return found


def print_life(fields: Mapping[str, Any], content_type: str) -> None:
    """A line for each field, and for each thing that it waits for."""
    for name, value in fields.items():
        if name == "waits_for":
            for waiting in value:
                typer.echo(
                    f"waits for: {waiting['reason']}: {for_reading('', waiting['detail'], '')}"
                )
        elif value is not None or not name.startswith(("lane_", "earlier_")):
            typer.echo(f"{name}: {for_reading(name, value, content_type)}")


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else f"{moment.isoformat()}Z"
