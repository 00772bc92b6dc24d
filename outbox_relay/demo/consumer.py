"""
A real consumer: reads the topic from its beginning, writes down what it gets, and has it booked.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from typing import Any, Final

from aiokafka import AIOKafkaConsumer

from outbox_relay.demo.account import Entry
from outbox_relay.demo.billing import Billing

_POLL_SECONDS: Final = 0.2
_FETCH_MILLISECONDS: Final = 10
_STOP_SECONDS: Final = 2.0
_REMEMBERED_LATENCIES: Final = 150


class CountingConsumer:
    """
    Every delivery in the order of arrival, duplicates too.

    *billing* handles them. `latencies` are the last ones, in seconds from the event's row to its arrival here.
    """

    def __init__(self, topic: str, billing: Billing | None = None) -> None:
        self._topic = topic
        self._billing = billing
        self._consumer: AIOKafkaConsumer | None = None
        self._finishing = asyncio.Event()
        self.delivered: list[Entry] = []
        self.event_ids: set[str] = set()
        self.latencies: deque[float] = deque(maxlen=_REMEMBERED_LATENCIES)

    @property
    def duplicates(self) -> int:
        """Deliveries beyond the first of their event."""
        return len(self.delivered) - len(self.event_ids)

    async def start(self, bootstrap_servers: str) -> None:
        """Connect and take all partitions, which is what a consumer without a group does."""
        self._consumer = AIOKafkaConsumer(
            self._topic,
            bootstrap_servers=bootstrap_servers,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            # The embedded broker holds a fetch back until its time is up, data or not.
            fetch_max_wait_ms=_FETCH_MILLISECONDS,
        )
        await self._consumer.start()

    async def read(self) -> None:
        """Read until told to finish, then on to the end of what the topic holds."""
        while not self._finishing.is_set():
            await self._read_once()
        ends = await self._client().end_offsets(self._client().assignment())
        for partition, end in ends.items():
            while await self._client().position(partition) < end:
                await self._read_once()

    def finish(self) -> None:
        """Let `read` end once it has read everything."""
        self._finishing.set()

    async def _read_once(self) -> None:
        batches = await self._client().getmany(timeout_ms=int(_POLL_SECONDS * 1000))
        now = time.time()
        for records in batches.values():
            for record in records:
                self._take(record, now)
            if self._billing is not None:
                await self._billing.handle(records)

    async def stop(self) -> None:
        """Let go, whatever the broker does."""
        if self._consumer is not None:
            stopping = asyncio.create_task(self._consumer.stop())
            await asyncio.wait((stopping,), timeout=_STOP_SECONDS)
            stopping.cancel()
            # Without a broker its own tasks end as cancelled, and say so here.
            await asyncio.gather(stopping, return_exceptions=True)

    def _client(self) -> AIOKafkaConsumer:
        assert self._consumer is not None, "start the consumer first"
        return self._consumer

    def _take(self, record: Any, now: float) -> None:
        event_id = dict(record.headers)["ce_id"].decode()
        if event_id not in self.event_ids:
            self.latencies.append(now - record.timestamp / 1000)
        self.event_ids.add(event_id)
        number = json.loads(record.value)["number"]
        self.delivered.append(Entry(event_id, record.key.decode(), number))
