"""The standing of an outbox as one screen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from outbox_relay.cli.dead_letter_view import harmless
from outbox_relay.cli.pause_view import pause_text
from outbox_relay.operations.headline import LATE_SECONDS, headline
from outbox_relay.operations.pausing import THE_PURGE
from outbox_relay.operations.standing import MOST_ROWS

if TYPE_CHECKING:
    from outbox_relay.operations import Backlog, Standing
    from outbox_relay.operations.rates import Rate

MOST_TOPICS = 10
"""Topics that have a line of their own."""

_TONES = {"good": "bold green", "warning": "bold yellow", "bad": "bold red"}

Line = tuple[str, str, bool]
"""Name, value, and whether it is as it should be."""


def screen(standing: Standing, rate: Rate | None = None) -> RenderableType:
    """Whether events flow, then everything about *standing*; with *rate* what moved since the last look."""
    summary = Table(show_header=False, box=None, pad_edge=False)
    for name, value, good in _lines(standing, rate):
        summary.add_row(
            Text(name, style="bold"), Text(harmless(value), style="" if good else "red")
        )
    parts: list[RenderableType] = [*_headline(standing), summary]
    for title, backlog in (
        ("waiting", standing.backlog_by_topic),
        ("dead letters", standing.dead_letters_by_topic),
    ):
        if backlog.topics:
            parts += ["", _by_topic(title, backlog)]
    return Group(*parts)


def _headline(standing: Standing) -> list[RenderableType]:
    """The state in a word, and what to do; of tables that do not fit the caller says it."""
    if standing.schema_problem:
        return []
    line = headline(standing)
    text = Text(harmless(line.text), style=_TONES[line.tone])
    text.append(f": {harmless(line.advice)}" if line.advice else "", style="not bold default")
    command = [Text(f"  {line.command}", style="bold")] if line.command else []
    return [text, *command, ""]


def _by_topic(title: str, backlog: Backlog) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("topic", overflow="fold")
    table.add_column(title, justify="right")
    table.add_column("oldest", justify="right")
    for topic in backlog.topics[:MOST_TOPICS]:
        table.add_row(
            Text(harmless(topic.topic)), f"{topic.rows:,}", seconds_text(topic.oldest_seconds)
        )
    others = backlog.topics[MOST_TOPICS:]
    if others:
        rows = sum(topic.rows for topic in others)
        table.add_row(f"{len(others):,} other topics", f"{rows:,}", "")
    if backlog.capped:
        counted = sum(topic.rows for topic in backlog.topics)
        table.add_row(Text(f"of the oldest {counted:,}; there are more", style="dim"), "", "")
    return table


def _lines(standing: Standing, rate: Rate | None) -> list[Line]:
    if standing.schema_problem:
        return [("schema", str(standing.schema_version or "missing"), False)]
    age = standing.oldest_pending_seconds
    last = standing.last_produced_seconds
    topics = [pause for pause in standing.paused if pause.topic != THE_PURGE]
    found: list[Line] = [
        ("schema", f"version {standing.schema_version}", True),
        ("backlog", _rows_text(standing.backlog_rows), True),
        (
            "oldest pending",
            "none" if age is None else seconds_text(age),
            age is None or age < LATE_SECONDS,
        ),
        ("dead letters", _rows_text(standing.dead_letter_rows), not standing.dead_letter_rows),
        ("last produced", "unknown" if last is None else f"{seconds_text(last)} ago", True),
    ]
    if rate is not None:
        found.append(("rate", rate.text(), True))
    found += _relays(standing)
    found += [
        ("paused topics", "; ".join(map(pause_text, topics)) or "none", not topics),
        ("purge", *_purge(standing)),
    ]
    return found


def _relays(standing: Standing) -> list[Line]:
    if not standing.owners:
        return [("relay", "nobody: no relay is active", False)]
    return [
        ("relay", f"{owner} ({lanes} lanes); {standing.leases[owner]:.1f} s left", True)
        for owner, lanes in standing.owners.items()
    ]


def _purge(standing: Standing) -> tuple[str, bool]:
    for pause in standing.paused:
        if pause.topic == THE_PURGE:
            return f"paused: {pause_text(pause)}", False
    kept, oldest = standing.retention_seconds, standing.oldest_produced_seconds
    if kept == 0:
        return "rows are deleted on their ack", True
    text = f"keeps {seconds_text(kept)}" if kept is not None else "as the relay's settings say"
    if oldest is None:
        return text, True
    return f"{text}; the oldest was produced {seconds_text(oldest)} ago", True


def seconds_text(seconds: float) -> str:
    """
    A time that is easy to read.

    >>> seconds_text(4.25), seconds_text(125), seconds_text(7300), seconds_text(604800), seconds_text(-0.1)
    ('4.2 s', '2 min 5 s', '2 h 1 min', '7 d', '0.0 s')
    """
    if seconds < 60:
        # A row of this very moment may be ahead of the database's answer.
        return f"{max(seconds, 0.0):.1f} s"
    whole = int(seconds)
    for size, name, below, part in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min")):
        if whole >= size:
            rest = whole % size // below
            return f"{whole // size} {name}" + (f" {rest} {part}" if rest else "")
    return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")


def _rows_text(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}" + (" or more" if count >= MOST_ROWS else "")
