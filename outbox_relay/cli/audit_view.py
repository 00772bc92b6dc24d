"""What a person sees of an audit: how far it is, and what it found."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

import typer

from outbox_relay.cli.dead_letter_view import print_table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from outbox_relay.audit.report import Report

LOG_SECONDS: Final = 10.0
_TITLES: Final = {
    "table": "reading the table, ids",
    "topics": "reading the topics, offsets",
    "judging": "comparing, steps",
}
_MEANINGS: Final = {
    "loss": "produced, and not on the topic",
    "duplicate": "more than once on the topic",
    "inversion": "behind a later event of their key",
    "ghost": "on the topic, and not produced in the table",
}


class Stopped(Exception):
    """Somebody asked for it."""


class Stop:
    """Whether a SIGINT or SIGTERM came, and which. The second one ends the process as ever."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Stop:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._set)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _set(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number)
        signal.signal(number, self._before[self.signal])

    def is_set(self) -> bool:
        """Whether one came."""
        return self.signal is not None


class LoggedProgress:
    """Lines on standard error: one when a part begins, and one every few seconds."""

    def __init__(self, stop: Stop) -> None:
        from outbox_relay.logs import get_logger

        self._stop = stop
        self._log = get_logger()
        self._phase, self._done, self._total, self._at = "", 0, 0, 0.0

    def phase(self, name: str, *, done: int, total: int) -> None:
        """See Progress."""
        self._phase, self._done, self._total = name, done, total
        self._tell()

    def advance(self, more: int) -> None:
        """See Progress."""
        self._done += more
        if time.monotonic() - self._at > LOG_SECONDS:
            self._tell()

    def _tell(self) -> None:
        self._at = time.monotonic()
        self._log.info("audit_progress", phase=self._phase, done=self._done, total=self._total)

    def check(self) -> None:
        """See Progress."""
        if self._stop.is_set():
            raise Stopped


class ShownProgress:
    """A bar for each part, on a terminal."""

    def __init__(self, stop: Stop, progress: Progress) -> None:
        self._stop, self._progress = stop, progress
        self._task: TaskID | None = None

    def phase(self, name: str, *, done: int, total: int) -> None:
        """See Progress."""
        self._task = self._progress.add_task(_TITLES[name], total=total, completed=done)

    def advance(self, more: int) -> None:
        """See Progress."""
        if self._task is not None:
            self._progress.advance(self._task, more)

    def check(self) -> None:
        """See Progress."""
        if self._stop.is_set():
            raise Stopped


@contextmanager
def progress_of(stop: Stop) -> Iterator[LoggedProgress | ShownProgress]:
    """Bars on standard error if that is a terminal, else lines of the log."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield LoggedProgress(stop)
        return
    with _bars(console) as progress:
        yield ShownProgress(stop, progress)


def _bars(console: Console) -> Progress:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeRemainingColumn(), console=console)


def show(report: Report, *, most: int) -> None:
    """The report on standard output."""
    print_table(
        ("topic", "rows", "produced", "pending", "dead letters", "records"),
        [
            (
                t.topic,
                *(f"{n:,}" for n in (t.rows, t.produced, t.pending, t.dead_letters, t.records)),
            )
            for t in report.topics
        ],
    )
    typer.echo("")
    for kind, count in report.found.items():
        typer.echo(f"{count:,} {_plural(kind)}: {_MEANINGS[kind]}")
        if count:
            _show_findings(report.findings[kind])
            if count > most:
                typer.echo(f"  {count - most:,} more are not shown: --most")
    typer.echo("")
    for line in _beside(report):
        typer.echo(line)
    for note in report.notes:
        typer.echo(f"note: {note}")
    if report.work_file:
        typer.echo(f"every finding is in {report.work_file}, in the tables found_...")


def _plural(kind: str) -> str:
    return {"loss": "losses"}.get(kind, f"{kind}s")


def _show_findings(findings: Sequence[dict[str, Any]]) -> None:
    if findings:
        names = tuple(findings[0])
        rows = [tuple(str(finding[name]) for name in names) for finding in findings]
        print_table(tuple(name.replace("_", " ") for name in names), rows)


def _beside(report: Report) -> Iterator[str]:
    """What was counted and is no finding."""
    for count, text in (
        (
            report.removed,
            "produced events are older than what the topics keep, or what was read of them",
        ),
        (report.compacted, "produced events gave way to later ones of their key, by compaction"),
        (report.unjudged_records, "records are older than the oldest row that the table keeps"),
        (report.requeued_late, "requeued dead letters came late"),
        (report.replays, "records are replays"),
    ):
        if count:
            yield f"{count:,} {text}"
