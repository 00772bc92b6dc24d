"""
Counting dead letters, and doing something with many of them: a few at a time, at a bounded rate, until
all are done or somebody stops it. What is done is done: the same command goes on with the rest.
"""

from __future__ import annotations

import asyncio
import signal
import time
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from outbox_relay.errors import StoreUnavailable
from outbox_relay.relay.dead_letters import DeadLetters, Found, Selection

ROWS_AT_ONCE: Final = 500
"""Rows of one statement that changes them: it holds its locks for a few milliseconds."""

ROWS_TO_COUNT: Final = 5000

Advance = Callable[[int], None]

_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - as the tables have it
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Survey:
    """What there was when it was counted: 16 bytes for each. Later dead letters are not meant."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    ids: array[int] = field(default_factory=lambda: array("q"))
    died: array[int] = field(default_factory=lambda: array("q"))
    """When each was given up."""

    def add(self, found: Sequence[Found]) -> None:
        """Take in a page, above those before."""
        self.counts.update([(letter.topic, letter.reason) for letter in found])
        self.ids.extend(letter.id for letter in found)
        self.died.extend(map(_died, found))

    def has(self, letter: Found) -> bool:
        """
        Whether *letter* was there, and has not died once more since. By what was seen, and not by a moment
        before which it died: the clock of the database may be set back.
        """
        place = bisect_left(self.ids, letter.id)
        is_there = place < len(self.ids) and self.ids[place] == letter.id
        return is_there and self.died[place] == _died(letter)

    @property
    def last_id(self) -> int:
        """The largest id, or 0."""
        return self.ids[-1] if self.ids else 0

    @property
    def rows(self) -> int:
        """All together."""
        return self.counts.total()


@dataclass(frozen=True, slots=True)
class Done:
    """How far a command came: *rows* changed, and the signal that stopped it, if one did."""

    rows: int
    stopped_by: signal.Signals | None = None


async def survey(letters: DeadLetters, selection: Selection) -> Survey:
    """Count the dead letters of *selection*, page by page."""
    there, after = Survey(), 0
    while found := await letters.find(selection, after_id=after, limit=ROWS_TO_COUNT):
        there.add(found)
        after = found[-1].id
    return there


def _died(letter: Found) -> int:
    """Microseconds since 1970 UTC; 0 where nothing says."""
    return 0 if letter.dead_at is None else (letter.dead_at - _EPOCH) // _MICROSECOND


class Pace:
    """
    Keeps to a number of rows a second on average.

    >>> Pace(100).pause(200, elapsed=0.5)
    1.5
    >>> Pace(None).pause(200, elapsed=0.0)
    0.0
    """

    def __init__(self, rows_per_second: int | None) -> None:
        self._rate = rows_per_second
        self.rows_at_once = min(ROWS_AT_ONCE, rows_per_second or ROWS_AT_ONCE)

    def pause(self, rows: int, *, elapsed: float) -> float:
        """How long to wait after *rows* were done in *elapsed* seconds."""
        return max(0.0, rows / self._rate - elapsed) if self._rate else 0.0


async def act_on_all(
    letters: DeadLetters,
    selection: Selection,
    surveyed: Survey,
    *,
    act: Callable[[Sequence[int]], Awaitable[int]],
    acted: Callable[[Sequence[Found]], None],
    pace: Pace,
    advance: Advance,
) -> Done:
    """
    *act* on what was surveyed, some rows at a time, and tell *acted* and *advance* of them.

    A SIGINT or SIGTERM ends it after the rows that are under way; a second SIGINT at once.
    """
    upto = min(surveyed.last_id, selection.last_id or surveyed.last_id)
    rest = replace(selection, last_id=upto)
    started, seen, changed, after = time.monotonic(), 0, 0, 0
    with stop_signals() as stop:
        while not stop.is_set():
            try:
                found = await letters.find(rest, after_id=after, limit=pace.rows_at_once)
                # A row with a smaller id may have died meanwhile: nobody was asked about it.
                meant = [letter for letter in found if surveyed.has(letter)]
                changed += await act([letter.id for letter in meant]) if meant else 0
            except StoreUnavailable as error:
                raise StoreUnavailable(
                    f"{error}. {changed:,} of {surveyed.rows:,} rows were done before: the same "
                    "command goes on with the rest"
                ) from error
            if not found:
                return Done(changed)
            after = found[-1].id
            seen += len(meant)
            acted(meant)
            advance(len(meant))
            await stop.wait_for(pace.pause(seen, elapsed=time.monotonic() - started))
        return Done(changed, stop.signal)


class Stop:
    """Whether a signal came, and which."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._event = asyncio.Event()

    def set(self, number: signal.Signals) -> None:
        """*number* came. The next one ends the process as ever."""
        self.signal = number
        self._event.set()
        asyncio.get_running_loop().remove_signal_handler(number)

    def is_set(self) -> bool:
        """Whether one came."""
        return self._event.is_set()

    async def wait_for(self, seconds: float) -> None:
        """Wait, unless one comes."""
        if seconds > 0:
            try:
                async with asyncio.timeout(seconds):
                    await self._event.wait()
            except TimeoutError:
                pass


@contextmanager
def stop_signals() -> Iterator[Stop]:
    """SIGINT and SIGTERM are told to the one given, instead of ending the process, until the block ends."""
    loop, stop = asyncio.get_running_loop(), Stop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set, number)
    try:
        yield stop
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def progress_bar(verb: str, rows: int | None, *, quiet: bool) -> AbstractContextManager[Advance]:
    """A bar on standard error, if that is a terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        return nullcontext(lambda _: None)
    return _bar(console, verb, rows)


@contextmanager
def _bar(console: object, verb: str, rows: int | None) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    assert isinstance(console, Console)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task(verb, total=rows)
        yield lambda more: progress.advance(task, more)
