"""Which events: the options that `events`, `replay` and others share."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from outbox_relay.cli.exits import Exit, fail
from outbox_relay.cli.options import (
    bounded,
    instant,
    key_bytes,
)
from outbox_relay.schema import Status

if TYPE_CHECKING:
    from outbox_relay.operations import EventFilter


class StatusName(StrEnum):
    """How a status is said on the command line."""

    PENDING = "pending"
    PRODUCED = "produced"
    DEAD = "dead"


CeIdOption = Annotated[
    str | None, typer.Option("--ce-id", metavar="CE_ID", help="The one with this ce_id.")
]
NameOption = Annotated[
    list[str] | None, typer.Option("--name", metavar="NAME", help="Of this event's name.")
]
StatusOption = Annotated[
    list[StatusName] | None,
    typer.Option("--status", metavar="STATUS", help=f"Of this status: {', '.join(StatusName)}."),
]
SinceOption = Annotated[
    str | None,
    typer.Option(
        "--since",
        metavar="TIME",
        help="Created at this time (UTC) or later, or so long ago, such as 90m, 2h or 3d.",
    ),
]
UntilOption = Annotated[
    str | None, typer.Option("--until", metavar="TIME", help="Created before that time.")
]


def filter_of(
    *,
    topics: Sequence[str] | None,
    keys: Sequence[str] | None,
    names: Sequence[str] | None,
    statuses: Sequence[StatusName] | None = None,
    since: str | None,
    until: str | None,
    from_id: int | None,
    to_id: int | None,
) -> EventFilter:
    """What the options choose. Ends with 2 if one of them cannot be read."""
    from outbox_relay.operations import EventFilter

    now = datetime.now(UTC)
    return EventFilter(
        topics=tuple(topics or ()),
        keys=tuple(key_bytes(key) for key in keys or ()),
        names=tuple(names or ()),
        statuses=tuple(Status[status.name] for status in statuses or ()),
        since=instant(since, now=now, option="--since"),
        until=instant(until, now=now, option="--until"),
        first_id=bounded(from_id),
        last_id=bounded(to_id),
    )


def row_or_event_id(text: str) -> int | UUID:
    """
    What the argument of `events show` names.

    >>> row_or_event_id("1754")
    1754
    """
    if text.isascii() and text.isdigit() and len(text) < 20:
        return bounded(int(text))
    return event_id_of(text, option="")


def event_id_of(text: str, *, option: str) -> UUID:
    """The ce_id that *text* is. Ends with 2 if it is none."""
    try:
        return UUID(text)
    except ValueError:
        fail(
            Exit.USAGE,
            f"{option or 'ID|CE_ID'} {text[:50]!r}: use a ce_id such as "
            "01936f3e-8a00-7000-8000-000000000000" + ("" if option else ", or a row's id"),
        )
