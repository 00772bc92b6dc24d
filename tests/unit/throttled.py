"""What stands in for Kafka's brokers in the tests of throttles."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from outbox_relay.brokers.kafka_client import Client
from outbox_relay.brokers.kafka_throttle import FIRST_VERSION
from outbox_relay.testing import Watcher


class Counting(Watcher):
    """An observer that also says when brokers throttle, and for how long they have."""

    def __init__(self) -> None:
        super().__init__()
        self.throttled_seconds = 0.0
        self.begun = asyncio.Event()

    def throttled(self, seconds: float) -> None:
        self.throttled_seconds += seconds
        self.begun.set()


class Cluster:
    """What stands in for the brokers: it leads, answers, and keeps what each was sent and when."""

    def __init__(self, leaders: dict[int, int]) -> None:
        self.leaders = leaders
        self.sent: list[tuple[int, list[int]]] = []
        self.at: list[float] = []
        self.answers: dict[int, Callable[[], Awaitable[tuple[int, int]]]] = {}
        """By broker: throttle_time_ms and the error of the next answer."""
        self.version = FIRST_VERSION

    async def send(self, node_id: int, request: Any, *, group: object) -> Any:
        partitions = [number for _, batches in request._topics for number, _ in batches]
        self.sent.append((node_id, partitions))
        self.at.append(time.monotonic())
        answer = self.answers.pop(node_id, None)
        throttle_ms, error = await answer() if answer else (0, 0)
        answers = [(number, error, 0, -1, 0) for number in partitions]
        return SimpleNamespace(
            API_VERSION=self.version, throttle_time_ms=throttle_ms, topics=[("t", answers)]
        )

    def says(self, node_id: int, throttle_ms: int = 0, error: int = 0) -> asyncio.Event:
        """Let the broker's next answer be so, once the event is set."""
        told = asyncio.Event()

        async def answer() -> tuple[int, int]:
            await told.wait()
            return throttle_ms, error

        self.answers[node_id] = answer
        return told

    def join(self, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        """Be what *client* talks to."""
        metadata = client.producer.client

        async def update() -> bool:
            return True

        async def knows(_: str) -> None:
            return None

        monkeypatch.setattr(metadata, "send", self.send)
        monkeypatch.setattr(
            metadata, "force_metadata_update", lambda: asyncio.ensure_future(update())
        )
        monkeypatch.setattr(metadata, "_wait_on_metadata", knows)
        cluster = metadata.cluster
        monkeypatch.setattr(cluster, "partitions_for_topic", lambda _: set(self.leaders))
        monkeypatch.setattr(cluster, "leader_for_partition", lambda tp: self.leaders[tp.partition])
