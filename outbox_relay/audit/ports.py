"""What the audit needs: a table that is read by ids, topics that are read by offsets. Both only read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class TableRow(NamedTuple):
    """A row without payload. Instants in microseconds since 1970; `published` is None if it is not produced."""

    id: int
    event: bytes
    topic: str
    key: bytes | None
    status: int
    created: int
    published: int | None
    codec: int


class State(NamedTuple):
    """What has become of a row."""

    id: int
    event: bytes
    topic: str
    status: int


class AuditedTable(Protocol):
    """
    The outbox table, or a copy of it on a replica.

    Each method raises StoreUnavailable if the database does not answer, SchemaMismatch without tables.
    """

    async def check(self) -> None:
        """Raise unless the tables are there and fit."""

    async def last_id(self) -> int:
        """The largest id that is committed; 0 if there is none."""

    async def now(self) -> int:
        """The database's clock, in microseconds since 1970."""

    async def id_before(self, instant: int) -> int:
        """An id that no row created at *instant* or later has, nor any above it that is older for long."""

    async def read(self, after_id: int, upto_id: int, limit: int) -> Sequence[TableRow]:
        """The next rows of any topic, by id."""

    async def states(self, ids: Sequence[int]) -> Sequence[State]:
        """Those of *ids* that are there."""

    async def close(self) -> None:
        """Let go of the connection."""


class Message(Protocol):
    """A record as the broker's client hands it over; `timestamp` in milliseconds."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    timestamp_type: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


Part = tuple[str, int]
"""Topic and partition."""


@dataclass(frozen=True, slots=True)
class Span:
    """The offsets of a partition: the first that is kept, and the next to be written."""

    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Records of one partition, in order, and where to go on. May hold none: markers are skipped."""

    part: Part
    messages: Sequence[Message]
    next_offset: int


class RecordsRemoved(Exception):
    """What was to be read next is not there any more; the partitions."""

    def __init__(self, parts: Sequence[Part]) -> None:
        super().__init__(parts)
        self.parts = parts


class AuditedTopics(Protocol):
    """
    The topics. Commits nothing, joins no group, creates no topic.

    Each method raises AuditError, which says what to do, if the brokers do not answer or refuse.
    """

    async def start(self) -> None:
        """Connect."""

    async def existing(self, topics: Sequence[str]) -> frozenset[str]:
        """Those of *topics* that are there. Raises AuditError for one that may not be seen."""

    async def compacted(self, topics: Sequence[str]) -> Mapping[str, bool]:
        """Whether each is compacted; without those whose settings may not be read."""

    async def spans(self, topics: Sequence[str]) -> Mapping[Part, Span]:
        """Of every partition of *topics*, which exist."""

    async def offsets_at(self, parts: Sequence[Part], instant: int) -> Mapping[Part, int | None]:
        """The first record of each that is not older than *instant*, microseconds; None if all are."""

    def begin(self, positions: Mapping[Part, int]) -> None:
        """Read from there, and nothing else."""

    def leave(self, part: Part) -> None:
        """Read no more of *part*."""

    async def fetch(self) -> Sequence[Batch]:
        """What has come, perhaps nothing yet. Raises RecordsRemoved."""

    async def close(self) -> None:
        """Let go of the connections."""
