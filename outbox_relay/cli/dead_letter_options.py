"""Which dead letters: the options that the verbs of `dead-letters` alone share."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer

from outbox_relay.cli.exits import Exit, fail
from outbox_relay.cli.options import (
    bounded,
    instant,
    key_bytes,
)
from outbox_relay.relay.dead_letters import Selection

IdOption = Annotated[
    list[int] | None,
    typer.Option("--id", metavar="ID", help="This row. May be repeated."),
]
ReasonOption = Annotated[
    list[str] | None,
    typer.Option("--reason", metavar="REASON", help="Given up for this, such as too_large."),
]
SinceOption = Annotated[
    str | None,
    typer.Option(
        "--since",
        metavar="TIME",
        help="Given up at this time (UTC) or later, or so long ago, such as 90m, 2h or 3d.",
    ),
]
UntilOption = Annotated[
    str | None, typer.Option("--until", metavar="TIME", help="Given up before that time.")
]
AllOption = Annotated[bool, typer.Option("--all", help="Every dead letter.")]
RateOption = Annotated[
    int | None, typer.Option("--rate", metavar="ROWS", min=1, help="Most rows a second.")
]


def selection(
    *,
    ids: Sequence[int] | None,
    from_id: int | None,
    to_id: int | None,
    topics: Sequence[str] | None,
    keys: Sequence[str] | None,
    reasons: Sequence[str] | None,
    since: str | None,
    until: str | None,
) -> Selection:
    """What the options choose. Ends with 2 if one of them cannot be read."""
    now = datetime.now(UTC)
    return Selection(
        ids=tuple(map(bounded, ids or ())),
        first_id=bounded(from_id),
        last_id=bounded(to_id),
        topics=tuple(topics or ()),
        keys=tuple(key_bytes(key) for key in keys or ()),
        reasons=tuple(reasons or ()),
        since=instant(since, now=now, option="--since"),
        until=instant(until, now=now, option="--until"),
    )


def chosen(what: Selection, everything: bool) -> Selection:
    """*what*, for a verb that changes rows: it acts on all of them only if somebody says so."""
    if (what != Selection()) == everything:
        fail(
            Exit.USAGE,
            "say which dead letters: --id, --from-id, --to-id, --topic, --key, --reason, --since, "
            "--until, or --all alone",
        )
    return what
