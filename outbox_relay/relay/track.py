"""
The routes and tracks of a term: data about what waits for which topic partition.

A *track* is the way to one topic partition: one batch at a time, in order. Batch n+1 is not
published before batch n is settled.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from outbox_relay.relay.outcomes import RejectReason
from outbox_relay.relay.partitioning import KeyPartitions
from outbox_relay.relay.ports import Record, Row
from outbox_relay.relay.wire import Encoder, UnreadableRow


@dataclass(slots=True)
class Track:
    """What waits for one topic partition. `sent_at` is None while nothing is under way."""

    partition: int
    queue: deque[Row] = field(default_factory=deque)
    task: asyncio.Task[None] | None = None
    sent_at: float | None = None
    unknown_in_a_row: int = 0
    parked: bool = False
    resume_at: float = 0.0
    parkings: int = 0

    def unsent(self) -> Iterator[Row]:
        """Every row that waits, taken out of the queue."""
        while self.queue:
            yield self.queue.popleft()

    def take_out(self, unwanted: Callable[[Row], bool]) -> list[Row]:
        """The waiting rows that are *unwanted*, taken out of the queue."""
        found = [row for row in self.queue if unwanted(row)]
        if found:
            self.queue = deque([row for row in self.queue if not unwanted(row)])
        return found


@dataclass(slots=True)
class Route:
    """
    A topic: its tracks, once its partitions are known; `waiting` holds rows until then.

    While `paused` its rows stay pending. `renewed` says that it is being learnt anew, or was: then
    it may go on.
    """

    topic: str
    partitions: KeyPartitions | None = None
    tracks: dict[int, Track] = field(default_factory=dict)
    waiting: list[Row] = field(default_factory=list)
    lookup: asyncio.Task[None] | None = None
    paused: bool = False
    renewed: bool = False
    resume_at: float = 0.0
    pauses: int = 0
    batch_bytes: int = sys.maxsize
    rejected_keys: set[bytes | int] = field(default_factory=set)

    def track_of(self, row: Row) -> Track:
        """The track of *row*; its partition follows from the key, or from the id without one."""
        partitions = self.partitions
        assert partitions is not None
        if row.key is None:
            partition = row.id % partitions.partitions
        else:
            partition = partitions[row.key]
        track = self.tracks.get(partition)
        if track is None:
            track = self.tracks[partition] = Track(partition)
        return track

    def busy(self) -> bool:
        """Whether a batch or a lookup of the topic is under way."""
        return self.lookup is not None or any(t.task is not None for t in self.tracks.values())

    def unsent(self) -> Iterator[Row]:
        """Every row that waits, taken out of its queue."""
        yield from self.waiting
        self.waiting.clear()
        for track in self.tracks.values():
            yield from track.unsent()


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one track and their records, in the same order."""

    rows: list[Row]
    records: list[Record]
    byte_count: int

    def halves(self) -> tuple[Batch, Batch]:
        """The first and the second half, to find the record that is refused."""
        middle = len(self.rows) // 2
        parts = []
        for part in (slice(None, middle), slice(middle, None)):
            records = self.records[part]
            parts.append(Batch(self.rows[part], records, sum(r.byte_count for r in records)))
        return parts[0], parts[1]

    def without(self, rows: list[Row]) -> Batch:
        """The batch without some of its rows."""
        gone = {row.id for row in rows}
        pairs = zip(self.rows, self.records, strict=True)
        kept = [(row, record) for row, record in pairs if row.id not in gone]
        records = [record for _, record in kept]
        return Batch([row for row, _ in kept], records, sum(r.byte_count for r in records))


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A row that cannot become a record."""

    row: Row
    detail: str
    reason: RejectReason = RejectReason.UNREADABLE


def next_batch(track: Track, encoder: Encoder, *, batch_bytes: int) -> Batch | Unreadable:
    """
    Take the next batch off *track*: as many rows as fit *batch_bytes*, at least one.

    Stops before a row that cannot become a record, which comes alone, in its place.
    """
    queue = track.queue
    encode = encoder.record
    rows: list[Row] = []
    records: list[Record] = []
    total = 0
    while queue:
        row = queue[0]
        try:
            record = encode(row)
        except UnreadableRow as error:
            if rows:
                break
            return Unreadable(queue.popleft(), str(error))
        size = record.byte_count
        if rows and total + size > batch_bytes:
            break
        queue.popleft()
        rows.append(row)
        records.append(record)
        total += size
    return Batch(rows, records, total)
