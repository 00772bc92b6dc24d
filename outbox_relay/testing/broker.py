"""The `MessageBroker` port in memory, and an observer that keeps what was logged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from outbox_relay.errors import TopicUnavailable
from outbox_relay.relay.outcomes import Acked, Fault, Outcome, Rejected, RejectReason, Unknown
from outbox_relay.relay.ports import HeaderBlock, Record, header_bytes
from outbox_relay.relay.watching import Silent
from outbox_relay.testing.clock import FakeClock


def record(
    key: bytes | None,
    value: bytes | None,
    *,
    seq: int = 1,
    headers: tuple[tuple[str, bytes], ...] = (),
    timestamp_ms: int = 1_700_000_000_000,
) -> Record:
    """A record with a key and a value, such as a relay would publish; *headers* are its own."""
    return Record(
        key=key,
        value=value,
        timestamp_ms=timestamp_ms,
        event_id=b"018f4e5a-1b2c-7d3e-8f40-112233445566",
        time=b"2023-11-14T22:13:20.000000Z",
        seq=b"%d" % seq,
        shared=HeaderBlock((("ce_specversion", b"1.0"), ("ce_type", b"order.placed"))),
        own=HeaderBlock(headers),
        byte_count=300 + len(key or b"") + len(value or b"") + header_bytes(headers),
    )


@dataclass(frozen=True, slots=True)
class Published:
    """A record that a `RecordingBroker` acked."""

    topic: str
    partition: int
    record: Record

    @property
    def seq(self) -> int:
        """The row's id."""
        return int(self.record.seq)


class RecordingBroker:
    """
    The `MessageBroker` port in memory: keeps what it acks, refuses what it is told to.

    `down` takes the broker away: nothing is answered within the deadline. `answer` may decide each
    batch: it gets (topic, partition, records) and returns an outcome, or None to ack; `hold` keeps
    batches of a partition under way until `let_go`.
    """

    def __init__(
        self,
        clock: FakeClock,
        topics: Mapping[str, int],
        *,
        publish_deadline_seconds: float = 10.0,
        max_record_bytes: int | None = None,
    ) -> None:
        self.clock = clock
        self.topics = dict(topics)
        self.down = False
        self.published: list[Published] = []
        self.batches: list[int] = []
        self.max_record_bytes = max_record_bytes
        self.answer: Callable[[str, int, Sequence[Record]], Outcome | None] | None = None
        self._deadline_seconds = publish_deadline_seconds
        self._held: dict[tuple[str, int], asyncio.Event] = {}

    def seqs(self, topic: str | None = None) -> list[int]:
        """Row ids in the order in which they were acked."""
        return [p.seq for p in self.published if topic in (None, p.topic)]

    def values(self, topic: str) -> list[bytes | None]:
        """Values in the order in which they were acked."""
        return [p.record.value for p in self.published if p.topic == topic]

    def hold(self, topic: str, partition: int = 0) -> None:
        """Keep the partition's batches under way."""
        self._held[(topic, partition)] = asyncio.Event()

    def let_go(self, topic: str, partition: int = 0) -> None:
        """Answer what `hold` kept."""
        self._held.pop((topic, partition)).set()

    async def partitions(self, topic: str) -> int:
        """See MessageBroker."""
        await asyncio.sleep(0)
        if topic not in self.topics:
            raise TopicUnavailable(f"topic {topic} does not exist")
        return self.topics[topic]

    def known_partitions(self, topic: str) -> int | None:
        """See MessageBroker."""
        return self.topics.get(topic)

    async def publish(self, topic: str, partition: int, records: Sequence[Record]) -> Outcome:
        """See MessageBroker."""
        await asyncio.sleep(0)
        held = self._held.get((topic, partition))
        if held is not None and not await self.clock.wait(held, self._deadline_seconds):
            return Unknown(fault=Fault.PARTITION, detail="no answer in time")
        if self.down:
            await self.clock.sleep(self._deadline_seconds)
            return Unknown(fault=Fault.PARTITION, detail="no answer in time")
        if topic not in self.topics:
            return Unknown(fault=Fault.TOPIC, detail=f"topic {topic} does not exist")
        outcome = self.answer(topic, partition, records) if self.answer else None
        outcome = outcome or self._refuse_large(records)
        if outcome is not None and not isinstance(outcome, Acked):
            return outcome
        self.batches.append(len(records))
        self.published += [Published(topic, partition, record) for record in records]
        return Acked()

    def _refuse_large(self, records: Sequence[Record]) -> Outcome | None:
        limit = self.max_record_bytes
        if limit is None or all(record.byte_count <= limit for record in records):
            return None
        return Rejected(reason=RejectReason.TOO_LARGE, detail=f"more than {limit} bytes")

    async def probe(self) -> bool:
        """See MessageBroker."""
        await asyncio.sleep(0)
        return not self.down

    async def close(self, *, timeout_seconds: float) -> None:
        """See MessageBroker."""


class Watcher(Silent):
    """An observer that keeps what was logged."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, object]]] = []

    def log(self, event: str, **fields: object) -> None:
        """Keep it."""
        self.events.append((event, fields))

    def names(self) -> list[str]:
        """The names of what was logged, in order."""
        return [name for name, _ in self.events]
