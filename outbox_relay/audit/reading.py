"""
Reads the table, then the topics, into the work file; goes on where that is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Final, Protocol, TypeVar

from outbox_relay.audit.plan import EVER, Plan
from outbox_relay.audit.ports import (
    AuditedTable,
    AuditedTopics,
    Batch,
    Part,
    RecordsRemoved,
    Span,
    TableRow,
)
from outbox_relay.audit.records import Flag, told
from outbox_relay.audit.workfile import WorkFile
from outbox_relay.errors import AuditError, StoreUnavailable
from outbox_relay.schema import Status

FIRST_ROWS: Final = 1000
MOST_ROWS: Final = 5000
STATEMENT_SECONDS: Final = 0.25
"""A statement that takes longer asks for fewer rows the next time."""

ROWS_A_COMMIT: Final = 50_000
COMMIT_SECONDS: Final = 2.0
"""What was read since the last commit, a killed audit reads again."""

ATTEMPTS: Final = 4
STALL_SECONDS: Final = 30.0
"""So long without a record the brokers count as away."""

CLOCK_SLACK_US: Final = 300 * 1_000_000
"""How far the clocks of brokers and database may be apart, for --since."""


Answer = TypeVar("Answer")


class Progress(Protocol):
    """Who is told how far the audit is, and says whether to stop."""

    def phase(self, name: str, *, done: int, total: int) -> None:
        """A part of the work begins, or goes on behind *done* of *total*."""

    def advance(self, more: int) -> None:
        """So much more is done."""

    def check(self) -> None:
        """Raise Stopped if somebody asked for it."""


class Pace:
    """How many rows one statement asks for, and how long to rest after it."""

    def __init__(self, rows_per_second: int | None) -> None:
        self._rate = rows_per_second
        self._most = min(MOST_ROWS, rows_per_second or MOST_ROWS)
        self.rows = min(FIRST_ROWS, self._most)

    def took(self, seconds: float) -> None:
        """The last statement took so long."""
        if seconds > STATEMENT_SECONDS:
            self.rows = max(1, self.rows // 2)
        elif seconds < STATEMENT_SECONDS / 4:
            self.rows = min(self._most, self.rows * 2)

    def rest(self, rows: int, seconds: float) -> float:
        """
        How long to wait after *rows* in *seconds*.

        >>> Pace(100).rest(50, 0.1)
        0.4
        """
        return max(0.0, rows / self._rate - seconds) if self._rate else 0.0


class TopicNumbers:
    """The topics of the work file, by name; a number stands for each in the large tables."""

    def __init__(self, file: WorkFile) -> None:
        self._file = file
        self._numbers: dict[str, int] = dict(file.rows("SELECT name, number FROM topics"))

    def __getitem__(self, name: str) -> int:
        """Its number; a new one if need be, in the transaction that is open."""
        if name not in self._numbers:
            self._file.add("topics", [(len(self._numbers), name, None, None, 0)])
            self._numbers[name] = len(self._numbers)
        return self._numbers[name]

    def __iter__(self) -> Iterator[str]:
        """Their names."""
        return iter(list(self._numbers))


async def read_table(file: WorkFile, table: AuditedTable, plan: Plan, progress: Progress) -> None:
    """Read the rows from where the work file is up to the largest id at the beginning."""
    if file.get("upper") is None:
        after = await table.id_before(plan.since) if plan.since else 0
        upper = await table.last_id()
        file.put(upper=upper, first=after, after=after, oldest_published=EVER)
    upper, first = file.get_number("upper"), file.get_number("first")
    after = file.get_number("after")
    progress.phase("table", done=after - first, total=upper - first)
    pace, numbers = Pace(plan.rows_per_second), TopicNumbers(file)
    waiting: list[TableRow] = []
    saved, saved_at = after, time.monotonic()
    while after < upper:
        progress.check()
        started = time.monotonic()
        rows = await _read(table, after, upper, pace)
        waiting += rows
        after = rows[-1].id if rows else upper
        if is_due(len(waiting), saved_at) or after >= upper:
            _save_rows(file, numbers, plan, waiting, after)
            progress.advance(after - saved)
            waiting, saved, saved_at = [], after, time.monotonic()
        await asyncio.sleep(pace.rest(len(rows), time.monotonic() - started))
    file.put(phase="ends")


def is_due(rows: int, saved_at: float) -> bool:
    """Whether it is time for a commit."""
    return rows >= ROWS_A_COMMIT or time.monotonic() - saved_at > COMMIT_SECONDS


async def _read(table: AuditedTable, after: int, upper: int, pace: Pace) -> Sequence[TableRow]:
    return await patiently(lambda: table.read(after, upper, pace.rows), pace)


async def patiently(ask: Callable[[], Awaitable[Answer]], pace: Pace) -> Answer:
    """
    What *ask* gives, after a few attempts if need be.

    A server ends a connection that was idle for minutes, such as while the topics were read: the next
    attempt has a new one.
    """
    for attempt in range(1, ATTEMPTS + 1):
        started = time.monotonic()
        try:
            answer = await ask()
        except StoreUnavailable:
            if attempt == ATTEMPTS:
                raise
            pace.took(2 * STATEMENT_SECONDS)
            await asyncio.sleep(0.5 * (attempt - 1))
        else:
            pace.took(time.monotonic() - started)
            return answer
    raise AssertionError


def _save_rows(
    file: WorkFile, numbers: TopicNumbers, plan: Plan, rows: Sequence[TableRow], after: int
) -> None:
    published = [row.published for row in rows if row.status == Status.PRODUCED and row.published]
    oldest = min([file.get_number("oldest_published"), *published])
    with file.transaction():
        file.add(
            "audited_rows",
            [
                (id_, event, numbers[topic], key, status, created, at, codec)
                for id_, event, topic, key, status, created, at, codec in rows
                if plan.wants(topic)
            ],
        )
        file.put(after=after, oldest_published=oldest)


async def fix_ends(file: WorkFile, topics: AuditedTopics, plan: Plan) -> None:
    """Note of each partition where to begin and where to end."""
    names = sorted({*TopicNumbers(file), *plan.topics})
    existing = await topics.existing(names)
    there = [name for name in names if name in existing]
    if nowhere := sorted({*plan.topics} - existing - {*TopicNumbers(file)}):
        raise AuditError(f"topic {nowhere[0]} does not exist, and no row names it: correct --topic")
    compacted = await topics.compacted(there) if there else {}
    spans = await topics.spans(there) if there else {}
    begins = await _begins(topics, plan, spans)
    with file.transaction():
        numbers = TopicNumbers(file)
        file.run("DELETE FROM parts")
        for name in names:
            is_there = name in existing
            file.change(
                "UPDATE topics SET is_there = ?, compacted = ? WHERE number = ?",
                [(is_there, compacted.get(name), numbers[name])],
            )
        file.add("parts", [_part(numbers, part, spans[part], begins[part]) for part in spans])
        file.put(phase="topics", ends_at=int(time.time() * 1_000_000))


def _part(
    numbers: TopicNumbers, part: Part, span: Span, begin: tuple[int, int | None]
) -> tuple[object, ...]:
    topic, partition = part
    offset, seen_from = begin
    return (numbers[topic], partition, span.low, offset, span.high, offset, 0, seen_from)


async def _begins(
    topics: AuditedTopics, plan: Plan, spans: Mapping[Part, Span]
) -> dict[Part, tuple[int, int | None]]:
    """Of each partition where to begin, and since when all of it can be seen; None: to be found out."""
    found: dict[Part, tuple[int, int | None]] = {}
    if plan.since:
        at = await topics.offsets_at(list(spans), plan.since - CLOCK_SLACK_US)
        for part, span in spans.items():
            offset = at[part]
            begin = span.high if offset is None else max(offset, span.low)
            found[part] = (begin, begin_seen(begin, span, skipped=plan.since))
        return found
    for part, span in spans.items():
        asked = plan.from_offset(*part)
        begin = min(max(span.low, asked or 0), span.high)
        found[part] = (begin, begin_seen(begin, span))
    return found


def begin_seen(begin: int, span: Span, *, skipped: int | None = None) -> int | None:
    """
    Since when all of a partition can be seen that is read from *begin*; None if its records must tell.

    *skipped*: what was left out, and is there still, is older than that.

    >>> begin_seen(0, Span(0, 9)), begin_seen(5, Span(5, 9)), begin_seen(7, Span(5, 9), skipped=100)
    (-1, None, 100)
    """
    if begin == 0:
        return -1
    return skipped if begin > span.low and skipped is not None else None


async def read_topics(
    file: WorkFile, topics: AuditedTopics, plan: Plan, progress: Progress
) -> None:
    """Read the records from where the work file is up to the ends."""
    reading = _TopicReading(file, plan)
    done, total = file.rows('SELECT sum(position - begin), sum("end" - begin) FROM parts')[0]
    progress.phase("topics", done=done or 0, total=total or 0)
    topics.begin({part: position for part, (position, end) in reading.open.items()})
    moved_at = time.monotonic()
    while reading.open:
        progress.check()
        try:
            batches = await topics.fetch()
        except RecordsRemoved as removed:
            spans = await topics.spans(sorted({topic for topic, _ in removed.parts}))
            reading.save()
            reading.begin_again({part: spans.get(part) for part in removed.parts})
            topics.begin({part: position for part, (position, end) in reading.open.items()})
            continue
        for batch in batches:
            advanced = reading.take(batch)
            if advanced:
                moved_at = time.monotonic()
                progress.advance(advanced)
            if batch.part not in reading.open:
                topics.leave(batch.part)
        reading.save_some()
        if time.monotonic() - moved_at > STALL_SECONDS:
            raise AuditError(
                f"kafka has given no record for {STALL_SECONDS:g} s: see that the brokers are up"
            )
    reading.save()
    _refuse_without_ids(file)
    file.put(phase="judge")


class _TopicReading:
    """The partitions that are not read to their end, and what waits to be saved."""

    def __init__(self, file: WorkFile, plan: Plan) -> None:
        self._file, self._plan = file, plan
        self._rows: list[tuple[object, ...]] = []
        self._saved_at = time.monotonic()
        self._numbers = TopicNumbers(file)
        self._unidentified: dict[int, int] = {}
        self._positions: dict[Part, int] = {}
        self._highest: dict[Part, int] = {}
        self._compacted = {
            name for name, known in file.rows("SELECT name, compacted FROM topics") if known != 0
        }
        self.open: dict[Part, tuple[int, int]] = {}
        """Position and end of each."""
        for topic, partition, position, end, highest in file.rows(
            'SELECT name, partition, position, "end", highest FROM parts JOIN topics ON topic = number'
        ):
            self._highest[topic, partition] = highest
            if position < end:
                self.open[topic, partition] = (position, end)

    def take(self, batch: Batch) -> int:
        """Keep what is in front of the end; how many offsets further it is now."""
        if batch.part not in self.open:
            return 0
        position, end = self.open[batch.part]
        number, partition = self._numbers[batch.part[0]], batch.part[1]
        highest = self._highest[batch.part]
        bare, sources = self._plan.bare, self._plan.sources
        keeps_all = batch.part[0] in self._compacted
        add = self._rows.append
        for message in batch.messages:
            if message.offset >= end:
                break
            known = told(message, bare=bare)
            if known is None or (sources and known.source not in sources):
                self._unidentified[number] = self._unidentified.get(number, 0) + (known is None)
                if keeps_all and message.key is not None:
                    # It may have taken the place of one of ours.
                    row = (None, None, number, partition, message.offset, message.key, 0, 0, 0)
                    add(row)
                continue
            seq, event, created, flags, _ = known
            late = 1
            if seq is not None and not flags & Flag.REPLAY:
                late = int(seq < highest)
                highest = max(highest, seq)
            add((seq, event, number, partition, message.offset, message.key, created, flags, late))
        self._highest[batch.part] = highest
        new = min(max(position, batch.next_offset), end)
        self._positions[batch.part] = new
        if new >= end:
            del self.open[batch.part]
        else:
            self.open[batch.part] = (new, end)
        return new - position

    def begin_again(self, spans: Mapping[Part, Span | None]) -> None:
        """Retention was faster: go on at the first record that is there, and judge only behind it."""
        for part, span in spans.items():
            position, end = self.open[part]
            if span is None or span.high < end:
                raise AuditError(
                    f"topic {part[0]} was deleted, or made anew, while it was read: begin the audit "
                    "anew, with another work file"
                )
            begin = min(max(span.low, position), end)
            self._positions[part] = begin
            self.open.pop(part)
            if begin < end:
                self.open[part] = (begin, end)
            with self._file.transaction():
                self._file.change(
                    "UPDATE parts SET begin = ?, position = ?, seen_from = NULL "
                    "WHERE topic = ? AND partition = ?",
                    [(begin, begin, self._numbers[part[0]], part[1])],
                )

    def save_some(self) -> None:
        """Save if there is much."""
        if is_due(len(self._rows), self._saved_at):
            self.save()

    def save(self) -> None:
        """Records and positions, in one transaction."""
        with self._file.transaction():
            self._file.add("records", self._rows)
            self._file.change(
                "UPDATE parts SET position = ?, highest = ? WHERE topic = ? AND partition = ?",
                [
                    (position, self._highest[part], self._numbers[part[0]], part[1])
                    for part, position in self._positions.items()
                ],
            )
            self._file.change(
                "UPDATE topics SET unidentified = unidentified + ? WHERE number = ?",
                [(count, number) for number, count in self._unidentified.items()],
            )
        self._rows, self._positions, self._unidentified = [], {}, {}
        self._saved_at = time.monotonic()


def _refuse_without_ids(file: WorkFile) -> None:
    """A topic in whose records nothing says which event it is cannot be audited at all."""
    for number, name, count in file.rows(
        "SELECT number, name, unidentified FROM topics WHERE unidentified > 0"
    ):
        if not file.rows(
            "SELECT 1 FROM records WHERE topic = ? AND event IS NOT NULL LIMIT 1", number
        ):
            raise AuditError(
                f"topic {name}: none of its {count:,} records says which event it is, such as with the "
                'headers that wire.headers = "cloudevents" writes, so nothing can be compared; name '
                "the other topics with --topic"
            )
