"""
How many batches are under way at once.

A track publishes what waits for it as soon as it can. With very many topic partitions that makes
batches of a row or two, and each batch costs ten times what a row does. Past `MOST_BATCHES` tracks
take turns: meanwhile rows gather, and the broker is as busy as before.
"""

from __future__ import annotations

import asyncio
from collections import deque

from outbox_relay.relay.ports import Clock

MOST_BATCHES = 256

PATIENCE_SECONDS = 0.2
"""A track waits no longer: those before it may wait for a broker that does not answer."""


class Gate:
    """Lets tracks in, in the order in which they came; after `PATIENCE_SECONDS` without a place."""

    def __init__(self, clock: Clock, *, most: int = MOST_BATCHES) -> None:
        self._clock = clock
        self._most = most
        self._inside = 0
        self._waiting: deque[asyncio.Event] = deque()

    async def enter(self) -> bool:
        """Wait for a place. Whether there is one, which is given back by `leave`."""
        if self._inside < self._most:
            self._inside += 1
            return True
        turn = asyncio.Event()
        self._waiting.append(turn)
        try:
            await self._clock.wait(turn, PATIENCE_SECONDS)
        except asyncio.CancelledError:
            if turn.is_set():
                self.leave()
            raise
        finally:
            if not turn.is_set():
                self._waiting.remove(turn)
        return turn.is_set()

    def leave(self) -> None:
        """Give the place to who waits longest."""
        if self._waiting:
            self._waiting.popleft().set()
        else:
            self._inside -= 1
