"""
Brokers that ask not to be sent to for a while, because of a quota.

Since Kafka 2.0 (KIP-219) a broker answers a produce request over the quota at once, says in the answer for
how long it throttles, and then reads nothing more from that connection for so long. A request that is sent
all the same lies there: without an answer in time nobody could say whether its batch is stored.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from aiokafka.errors import KafkaError

from outbox_relay.relay.ports import Observer

MOST_THROTTLE_SECONDS: Final = 600.0
"""A quota is for the mean of some seconds. A broker that means to throttle for longer says so again; one
that says 24 days, the most there is room for, must not stop the relay until somebody restarts it."""
REST_SECONDS: Final = 0.5
"""How long a batch waits before the relay looks anew at its lease, its stop, and whose the rows are."""
TOLD_EVERY_SECONDS: Final = 60.0
FIRST_VERSION: Final = 6
"""Of a produce response whose sender is to wait. Older brokers have waited themselves before they answered."""


class Throttled(KafkaError):  # type: ignore[misc]
    """The batch is stored nowhere, and is not to be sent now."""

    def __init__(self, node_id: int) -> None:
        super().__init__(f"broker {node_id} throttles")
        self.node_id = node_id


class Throttles:
    """Until when each broker is sent nothing. All producers of a relay share one."""

    def __init__(self, observer: Observer, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._observer = observer
        self._clock = clock
        self._until: dict[int, float] = {}
        self._told_at: dict[int, float] = {}
        self.listeners: set[Callable[[int], None]] = set()
        """Called with a broker that has begun to throttle, or goes on for longer."""

    def begin(self, node_id: int, milliseconds: int) -> float:
        """The broker throttles from now on; for how many seconds."""
        seconds = min(milliseconds / 1000, MOST_THROTTLE_SECONDS)
        now = self._clock()
        until = self._until.get(node_id, now)
        if now + seconds > until:
            self._until[node_id] = now + seconds
            self._observer.throttled(now + seconds - max(now, until))
        if now - self._told_at.get(node_id, float("-inf")) >= TOLD_EVERY_SECONDS:
            self._told_at[node_id] = now
            self._observer.log("broker_throttles", node=node_id, seconds=round(seconds, 3))
        for listener in list(self.listeners):
            listener(node_id)
        return seconds

    def left(self, node_id: int | None) -> float:
        """For how many seconds more the broker is sent nothing."""
        if not self._until or node_id not in self._until:
            return 0.0
        left = self._until[node_id] - self._clock()
        if left <= 0:
            del self._until[node_id]
        return max(0.0, left)

    async def rest(self, node_id: int | None) -> bool:
        """Wait for a moment while the broker throttles. Whether it does."""
        left = self.left(node_id)
        if left:
            await asyncio.sleep(min(left, REST_SECONDS))
        return bool(left)

    async def over(self, node_id: int) -> None:
        """Wait until the broker may be sent to."""
        while await self.rest(node_id):
            pass
