"""Which dead letters: the options that the verbs of `dead-letters` share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

import typer

from outbox_relay.cli.exits import Exit, fail
from outbox_relay.relay.dead_letters import Selection

IdOption = Annotated[
    list[int] | None, typer.Option("--id", metavar="ID", help="This row. May be repeated.")
]
FromIdOption = Annotated[
    int | None, typer.Option("--from-id", metavar="ID", min=0, help="This row and later ones.")
]
ToIdOption = Annotated[
    int | None, typer.Option("--to-id", metavar="ID", min=0, help="This row and earlier ones.")
]
TopicOption = Annotated[
    list[str] | None, typer.Option("--topic", metavar="TOPIC", help="Of this topic.")
]
KeyOption = Annotated[
    list[str] | None,
    typer.Option("--key", metavar="KEY", help="Of this key: text, or its bytes as 0x..."),
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
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")
]
RateOption = Annotated[
    int | None, typer.Option("--rate", metavar="ROWS", min=1, help="Most rows a second.")
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object, for scripts.")]

_AGO: Final = re.compile(r"(\d{1,6})([smhd])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


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
        ids=tuple(ids or ()),
        first_id=from_id,
        last_id=to_id,
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


def key_bytes(text: str) -> bytes:
    """
    The key that *text* stands for.

    >>> key_bytes("order-7"), key_bytes("0x00ff")
    (b'order-7', b'\\x00\\xff')
    """
    if text.startswith("0x"):
        try:
            return bytes.fromhex(text[2:])
        except ValueError:
            fail(Exit.USAGE, f"--key {text}: after 0x comes an even number of hexadecimal digits")
    return text.encode(errors="surrogateescape")


def instant(text: str | None, *, now: datetime, option: str) -> datetime | None:
    """
    The time that *text* names, UTC without a zone, as the tables have it.

    >>> instant("2h", now=datetime(2026, 11, 22, 3, tzinfo=UTC), option="--since")
    datetime.datetime(2026, 11, 22, 1, 0)
    >>> instant("2026-11-22T03:00+02:00", now=datetime.now(UTC), option="--since")
    datetime.datetime(2026, 11, 22, 1, 0)
    """
    if text is None:
        return None
    if ago := _AGO.fullmatch(text):
        found = now - timedelta(seconds=int(ago[1]) * _SECONDS[ago[2]])
    else:
        try:
            found = datetime.fromisoformat(text)
        except ValueError:
            fail(
                Exit.USAGE,
                f"{option} {text}: use a time such as 2026-11-22T03:00, or how long ago, such as 2h",
            )
    return found.astimezone(UTC).replace(tzinfo=None) if found.tzinfo else found
