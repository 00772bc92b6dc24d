"""
What the relay core needs of the world: a store, a broker, a clock and somebody who watches.

Ports are small, in domain words, and state their promises. Every implementation passes the
contract suite in ``tests/contract``; `outbox_relay.testing` ships in-memory ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from outbox_relay.relay.lease import ALL_LANES, Lease, Sharing, Term
from outbox_relay.relay.observer import Observer as Observer  # noqa: PLC0414 - the last of the ports
from outbox_relay.relay.outcomes import Outcome
from outbox_relay.relay.suspecting import Suspecting
from outbox_relay.schema import Status

CANARY_GONE = -1.0
CANARY_DEAD = -2.0

LARGE_PAYLOAD_BYTES = 16 * 1024
"""Larger payloads stay behind when rows are read, and are fetched one by one within the budget."""


class Row(NamedTuple):
    """
    A pending row as the relay reads it.

    `payload` is None while it is left in the database because it is large (`payload_bytes` says
    how large); `created_us` are microseconds since 1970 UTC; `requeued_us` likewise, None unless
    somebody requeued the row.
    """

    id: int
    topic: str
    key: bytes | None
    payload: bytes | None
    payload_bytes: int
    codec: int
    headers: str | None
    event_id: bytes
    event_name: str
    content_type: str
    created_us: int
    requeued_us: int | None
    lane: int = 0


@dataclass(slots=True, eq=False)
class HeaderBlock:
    """
    Headers that many records may share.

    `encoded` is what the broker's adapter made of them, kept here so that it is made once.
    """

    headers: tuple[tuple[str, bytes], ...]
    encoded: bytes = b""


class Record(NamedTuple):
    """
    What goes on the wire, in parts: most headers of a topic's records are the same.

    `event_id`, `time` and `seq` are the values of ``ce_id``, ``ce_time`` and ``outbox-seq``;
    `shared` holds the headers that follow from the kind of the event, `own` the row's own.
    `byte_count` is an upper bound of its bytes in a record batch (record format v2).
    """

    key: bytes | None
    value: bytes | None
    timestamp_ms: int
    event_id: bytes
    time: bytes
    seq: bytes
    shared: HeaderBlock
    own: HeaderBlock
    byte_count: int

    @property
    def headers(self) -> list[tuple[str, bytes]]:
        """All headers, in the order in which they travel."""
        if type(self.shared.headers) is not tuple:
            return []  # see NO_HEADERS
        return [
            ("ce_id", self.event_id),
            ("ce_time", self.time),
            ("outbox-seq", self.seq),
            *self.shared.headers,
            *self.own.headers,
        ]


RECORD_OVERHEAD_BYTES = 40
"""Lengths, deltas, attributes and the count of headers of one record, at most."""

HEADER_OVERHEAD_BYTES = 10
"""The two lengths of one header, at most."""


def header_bytes(headers: Sequence[tuple[str, bytes]]) -> int:
    """Upper bound of the bytes that *headers* take in a record."""
    return sum(HEADER_OVERHEAD_BYTES + 3 * len(name) + len(value) for name, value in headers)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadPlan:
    """
    One read: pending rows above `after_id` and those of `open_ids`, oldest first.

    Rows in `skip_ids`, ranges of (first, last), are in flight: leave them out.
    """

    after_id: int
    open_ids: frozenset[int]
    limit: int
    upto_id: int | None = None
    skip_topics: frozenset[str] = frozenset()
    skip_ids: tuple[tuple[int, int], ...] = ()
    lanes: frozenset[int] = ALL_LANES


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """A sample. `rows` stops counting at a cap; `oldest_us` is None when nothing waits."""

    rows: int
    capped: bool
    oldest_us: int | None
    dead_rows: int


class Waiting(NamedTuple):
    """Pending rows of one topic, or of one topic and key: how many, and since when the oldest waits."""

    topic: str
    key: bytes | None
    rows: int
    oldest_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadKeys:
    """
    The (topic, key) of each dead letter, with the id of its first one.

    Dead letters above `unread_above` were not looked at; None if there are no others.
    """

    first_ids: Mapping[tuple[str, bytes], int]
    unread_above: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PurgePlan:
    """
    What to purge: of the next `limit` rows of `status` above `after_id`, those that are old enough.

    A row's age counts from its ack, a dead letter's from the time that it was given up.
    """

    status: Status
    older_than_seconds: float
    after_id: int
    limit: int


class Aged(NamedTuple):
    """A row that may be purged, and whether it is due."""

    id: int
    due: bool
    topic: str
    event_id: bytes
    last_error: str | None


class Store(Suspecting, Protocol):
    """
    The outbox table and the tables beside it.

    Every method raises StoreUnavailable when the database does not answer in time or refuses for a
    reason that may pass; the caller waits and repeats. Repeating is safe for each of them.
    """

    settle_seconds: float
    """How long after an id was given out a dirty read may still miss it."""

    async def check_schema(self) -> None:
        """Raise SchemaMismatch, saying what mends it, unless this release can serve the tables."""

    async def acquire(
        self, owner: str, *, wake_address: str, lease_seconds: float, slots: int = 1
    ) -> Lease | None:
        """
        Start a new term, if one of the first *slots* places of active relays is free, over a fair
        share of the lanes, as far as they are free or their lease has ended.

        Time is the database's own. None if others hold the places.
        """

    async def look(self, lease: Lease) -> Sharing:
        """How the lanes are shared. Raises LeaseLost if any that *lease* names is not ours."""

    async def take(
        self, lease: Lease, lanes: frozenset[int], *, lease_seconds: float
    ) -> frozenset[int]:
        """Add *lanes* to the term. Those that were free, and are ours now."""

    async def give(self, lease: Lease, lanes: frozenset[int]) -> None:
        """Hand *lanes* back, as a clean end. The rest of the term goes on."""

    async def wake_addresses(self) -> frozenset[str]:
        """Where the owners of the lanes now take hints, as they said when they acquired them."""

    async def renew(self, lease: Lease, *, noted_id: int, lease_seconds: float) -> None:
        """
        Extend the lease, unless another term has begun; keep *noted_id* for the next owner.

        A lease that ran out but that nobody took is still ours. Raises LeaseLost if any lane was
        taken.
        """

    async def release(self, lease: Lease) -> None:
        """Hand the lanes back at once, as a clean end. Does nothing if they are no longer ours."""

    async def read(self, plan: ReadPlan) -> list[Row]:
        """
        The rows of *plan*, in one snapshot, without a lock. Never a row that is not committed.

        Raises ServerChanged if this connection reaches another server than the lease names.
        """

    async def uncommitted_ids(self, plan: ReadPlan) -> list[int]:
        """
        Ids of the pending rows that *plan* names, whether their transactions committed or not; the
        smallest, if they are more than `plan.limit`.

        Empty where writers cannot commit out of order. Where nothing reads what is not committed:
        also ids that were given out and have no row yet; what *plan* asks about was read just before.
        """

    async def max_id(self, *, at_least: int = 0) -> int:
        """
        The largest id given out so far and still there, committed or not; 0 if none.

        *at_least* was given out too, and its row committed: perhaps it is deleted by now.
        Where nothing reads what is not committed: the largest id up to which no transaction is open
        any more, or up to which `uncommitted_ids` shows what may be open.
        """

    async def payload(self, row_id: int) -> bytes | None:
        """The stored payload of one row; None if the row is gone."""

    async def mark_produced(self, ids: Sequence[int], term: Term) -> None:
        """
        Record that the broker has acked *ids*.

        Only pending rows are touched. Raises LeaseLost and marks nothing if *term* is not current,
        or any of its lanes is not its any more.
        """

    async def delete_produced(self, ids: Sequence[int], term: Term) -> None:
        """As `mark_produced`, but the rows are gone."""

    async def mark_dead(
        self, row_id: int, error: str, term: Term, *, requeued_us: int | None = None
    ) -> None:
        """
        Record that *row_id* is given up, durably, and why. Otherwise as `mark_produced`.

        *requeued_us* as it was read, see Row: what somebody requeued since then is touched no more,
        also by a statement that got no answer and takes effect late.
        """

    async def paused_topics(self) -> frozenset[str]:
        """Topics that an operator paused; ``*`` stands for all, ``@purge`` for the purge."""

    async def dead_keys(self, *, limit: int) -> DeadKeys:
        """Whose keys the first *limit* dead letters are, as committed. Without a key: nobody's."""

    async def sample(self, *, cap: int) -> Backlog:
        """How much waits, counting up to *cap* rows."""

    async def waiting(self, *, limit: int, by_key: bool) -> list[Waiting]:
        """Of which topics the first *limit* pending rows are; *by_key* of which topics and keys."""

    async def write_canary(self, topic: str) -> int:
        """Commit an event without key, named ``outbox_relay.canary``, to *topic*; its id."""

    async def canary_seconds(self, row_id: int) -> float | None:
        """From the row's creation to its mark, by the database's clock; None while it is pending.

        `CANARY_GONE` if there is no row: it was deleted on the ack. `CANARY_DEAD` if it was given up.
        """

    async def aged(self, plan: PurgePlan) -> list[Aged]:
        """The rows of *plan*, by id, each with whether it is due, by the database's clock."""

    async def purge(self, ids: Sequence[int], plan: PurgePlan, term: Term) -> int:
        """
        Delete those of *ids* that are due by *plan*, in one short statement. How many they were.

        Touches no row of another status, least of all a pending one. Raises LeaseLost and deletes
        nothing if *term* is not current.
        """

    async def close(self) -> None:
        """Let go of every connection, without waiting for a server that does not answer."""


class MessageBroker(Protocol):
    """Where events are published. Kafka, or what behaves like it."""

    async def partitions(self, topic: str) -> int:
        """
        How many partitions *topic* has, as far as is known; asks the broker when it is not.

        Raises TopicUnavailable only on a broker's own answer, BrokerUnavailable when none answers.
        """

    def known_partitions(self, topic: str) -> int | None:
        """The same from memory, without asking."""

    async def publish(self, topic: str, partition: int, records: Sequence[Record]) -> Outcome:
        """
        Publish *records* as one batch, in order, and say what became of it, within the deadline.

        Never raises for anything that broker or network do. One call at a time per partition.
        """

    async def probe(self) -> bool:
        """Whether a broker answers now."""

    async def close(self, *, timeout_seconds: float) -> None:
        """Let go, within the time given, whatever the broker does."""


class Wake(Protocol):
    """
    Where hints about new events come in. Lost hints cost only a poll, so nothing here raises.
    """

    address: str
    """Where other relays reach this one; empty if they do not."""

    def start(self, received: Callable[[bool], None]) -> None:
        """Call *received* on this loop when hints are here; its argument: only relays sent them."""

    def pass_on(self, address: str) -> None:
        """Send a hint to another relay, without waiting."""

    def close(self) -> None:
        """Take in no more."""


class Clock(Protocol):
    """Time, as a port: tests and simulations bring their own."""

    def now(self) -> float:
        """Seconds on a clock that never goes back and that counts suspension."""

    def wall_us(self) -> int:
        """Microseconds since 1970 UTC, for latencies only: nothing is decided by it."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""

    async def wait(self, event: asyncio.Event, seconds: float) -> bool:
        """Wait for *event*, at most *seconds*; whether it is set."""
