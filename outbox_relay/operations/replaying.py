"""
Publishing produced events again, on purpose, beside a relay at work.

With a producer of its own, and without touching a row: live traffic and its order are the relay's alone. Oldest
first; of a topic partition one batch at a time, and a page is settled before the next one begins, so that the
events of a key keep their order. What is not known to have arrived is published again: at least once.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Final, Protocol

from outbox_relay.errors import OutboxRelayError
from outbox_relay.operations.replay_state import ReplayOrder, ReplayState
from outbox_relay.relay.decide import Backoff
from outbox_relay.relay.envelope import NO_HEADERS
from outbox_relay.relay.outcomes import Acked, Rejected, Unknown, Unsent
from outbox_relay.relay.partitioning import KeyPartitions
from outbox_relay.relay.ports import HeaderBlock, MessageBroker, Record, Row, header_bytes
from outbox_relay.relay.wire import Encoder, UnreadableRow

HEADER: Final = "replay-of"
"""Names the ce_id that the event has had from its beginning."""

MOST_PAGE_ROWS: Final = 200
PAGES_A_SECOND: Final = 4
"""So that a rate is even: no burst is longer than a quarter of a second's rows."""

MOST_AT_ONCE: Final = 8
"""Partitions that are published to at the same time: bounds the large payloads in memory."""

GIVE_UP_SECONDS: Final = 60.0
"""Without an ack for so long it stops; it can go on."""


class ReplayStopped(OutboxRelayError):
    """It cannot go on; what was published is told, and the same replay can go on later."""


class Rows(Protocol):
    """Where produced rows come from: `ReplayRows`."""

    def pages(
        self, *, after_id: int, last_id: int, rows: int
    ) -> AsyncIterator[tuple[list[Row], int]]:
        """See ReplayRows."""

    async def payload(self, row_id: int) -> bytes | None:
        """See ReplayRows."""


@dataclass(slots=True)
class EvenPace:
    """
    Keeps below a number of rows a second at any time: what was not used while the broker was away is lost.

    >>> pace = EvenPace(100)
    >>> pace.pause(50, started=0.0, now=0.25), pace.pause(50, started=0.5, now=60.0)
    (0.25, 0.0)
    >>> pace.pause(50, started=60.0, now=60.0)
    0.5
    """

    rows_per_second: float
    _due: float = 0.0

    def pause(self, rows: int, *, started: float, now: float) -> float:
        """How long to wait after *rows* whose publishing began at *started*."""
        self._due = max(self._due, started) + rows / self.rows_per_second
        return max(0.0, self._due - now)

    @property
    def page_rows(self) -> int:
        """Rows that are read and published together."""
        return max(1, min(MOST_PAGE_ROWS, int(self.rows_per_second / PAGES_A_SECOND)))


@dataclass(slots=True)
class Told:
    """What happens while it works. All may be left as they are."""

    saved: Callable[[ReplayState], None] = lambda _: None
    """A page is settled: keep this."""
    published: Callable[[int], None] = lambda _: None
    passed_over: Callable[[Row, str], None] = lambda _, __: None
    waits: Callable[[str], None] = lambda _: None


class Replay:
    """One replay, over a broker that nobody else publishes with."""

    def __init__(
        self,
        order: ReplayOrder,
        rows: Rows,
        broker: MessageBroker,
        encoder: Encoder,
        *,
        batch_bytes: int,
        skip_rejected: bool = False,
        told: Told | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._order = order
        self._rows = rows
        self._broker = broker
        self._encoder = encoder
        self._batch_bytes = batch_bytes
        self._skip_rejected = skip_rejected
        self._told = told or Told()
        self._sleep = sleep
        self._jitter = jitter
        self._clock = clock
        self._partitions: dict[str, KeyPartitions] = {}
        self._places = asyncio.Semaphore(MOST_AT_ONCE)
        self._backoff = Backoff(max_seconds=10.0)
        self._passed_over = 0
        self._throttled = False

    async def run(
        self, state: ReplayState, pace: EvenPace, *, rest: Callable[[float], Awaitable[bool]]
    ) -> ReplayState:
        """
        Publish what is left of *state*; how far it came.

        After each page it calls *rest* with the seconds to wait, which says whether to go on. Raises
        ReplayStopped, StoreUnavailable or PublishError when it cannot go on.
        """
        pages = self._rows.pages(
            after_id=state.after_id, last_id=state.last_id, rows=pace.page_rows
        )
        async with aclosing(pages):  # type: ignore[type-var]
            started = self._clock()
            async for page, upto in pages:
                self._passed_over = 0
                count = await self._publish_page(page)
                state = replace(
                    state,
                    after_id=upto,
                    published=state.published + count,
                    passed_over=state.passed_over + self._passed_over,
                )
                self._told.saved(state)
                self._told.published(len(page))
                pause = pace.pause(len(page), started=started, now=self._clock())
                if not state.done and not await rest(pause):
                    break
                started = self._clock()
        return state

    async def _publish_page(self, page: Sequence[Row]) -> int:
        """Publish *page*, each partition's rows in their order; how many the broker acked."""
        tracks: dict[tuple[str, int], list[Row]] = {}
        for row in page:
            topic = self._order.to_topic or row.topic
            tracks.setdefault((topic, await self._partition(topic, row)), []).append(row)
        work = [self._publish_track(topic, at, rows) for (topic, at), rows in tracks.items()]
        counts = await asyncio.gather(*work, return_exceptions=True)
        for found in counts:
            if isinstance(found, BaseException):
                raise found
        return sum(count for count in counts if isinstance(count, int))

    async def _partition(self, topic: str, row: Row) -> int:
        if topic not in self._partitions:
            self._partitions[topic] = KeyPartitions(await self._broker.partitions(topic))
        partitions = self._partitions[topic]
        return row.id % partitions.partitions if row.key is None else partitions[row.key]

    async def _publish_track(self, topic: str, partition: int, rows: Sequence[Row]) -> int:
        async with self._places:
            count = 0
            batch: list[tuple[Row, Record]] = []
            size = 0
            for row in rows:
                record = await self._record(row)
                if record is None:
                    continue
                if batch and size + record.byte_count > self._batch_bytes:
                    count += await self._publish(topic, partition, batch)
                    batch, size = [], 0
                batch.append((row, record))
                size += record.byte_count
            return count + (await self._publish(topic, partition, batch) if batch else 0)

    async def _record(self, row: Row) -> Record | None:
        """The record of *row*; None if it is passed over, or gone."""
        if row.payload is None:
            payload = await self._rows.payload(row.id)
            if payload is None:
                return None
            row = row._replace(payload=payload)
        original = uuid.UUID(bytes=row.event_id)
        try:
            record = self._encoder.record(
                row._replace(event_id=self._order.event_id(original).bytes)
            )
        except UnreadableRow as error:
            self._refused(row, str(error))
            return None
        return marked(record, original)

    async def _publish(
        self, topic: str, partition: int, batch: Sequence[tuple[Row, Record]]
    ) -> int:
        """Publish *batch* until the broker has it; how much of it is there."""
        failures, give_up = 0, self._clock() + GIVE_UP_SECONDS
        while True:
            outcome = await self._broker.publish(topic, partition, [record for _, record in batch])
            match outcome:
                case Acked():
                    return len(batch)
                case Rejected(reason=reason, detail=detail):
                    if len(batch) == 1:
                        self._refused(batch[0][0], f"{reason}: {detail}")
                        return 0
                    middle = len(batch) // 2
                    first = await self._publish(topic, partition, batch[:middle])
                    return first + await self._publish(topic, partition, batch[middle:])
                case Unsent():
                    if not self._throttled:
                        self._told.waits("a broker throttles, because of a quota")
                    self._throttled = True
                    give_up = self._clock() + GIVE_UP_SECONDS
                case Unknown(detail=detail):
                    if self._clock() > give_up:
                        raise ReplayStopped(f"topic {topic}: {detail}")
                    failures += 1
                    self._told.waits(detail)
                    await self._sleep(self._backoff.delay_seconds(failures, jitter=self._jitter()))

    def _refused(self, row: Row, why: str) -> None:
        if not self._skip_rejected:
            raise ReplayStopped(
                f"row {row.id} cannot be published: {why}; mend that, or pass over such rows with "
                "--skip-rejected"
            )
        self._passed_over += 1
        self._told.passed_over(row, why)


def marked(record: Record, original: uuid.UUID) -> Record:
    """*record* with the header that says whose replay it is, unless it travels without headers."""
    if record.shared is NO_HEADERS:
        return record
    header = (HEADER, str(original).encode())
    return record._replace(
        own=HeaderBlock((*record.own.headers, header)),
        byte_count=record.byte_count + header_bytes([header]),
    )
