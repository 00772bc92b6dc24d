"""
Every broker as a place to publish to, with what a consumer sees of it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from outbox_relay.brokers.amqp import AmqpBroker
from outbox_relay.brokers.jsonl import JsonlBroker
from outbox_relay.brokers.kafka import KafkaBroker
from outbox_relay.brokers.options import AmqpOptions, JsonlOptions, KafkaOptions, RedisOptions
from outbox_relay.brokers.redis_pubsub import RedisPubSubBroker
from outbox_relay.brokers.redis_streams import RedisStreamsBroker
from outbox_relay.testing import FakeClock, RecordingBroker

MAX_RECORD_BYTES = 900_000
DEADLINE_SECONDS = 2.0

Seen = tuple[int, bytes | None, bytes | None]
"""Partition, key, value."""


@dataclass
class Site:
    """A broker with a topic, and what a consumer sees of it."""

    broker: Any
    topic: str
    consume: Callable[[str], Any]
    partitions: int = 1
    service: Any = None
    create: Callable[[str, int], None] | None = None
    """Makes a topic; None where there is nothing to make."""

    headers: Callable[[str], Any] | None = field(default=None)
    """The headers of each record of a topic, as a dict of text."""


@contextlib.asynccontextmanager
async def memory(request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    broker = RecordingBroker(FakeClock(), {"t": 3}, max_record_bytes=MAX_RECORD_BYTES)

    async def consume(topic: str) -> list[Seen]:
        found = [p for p in broker.published if p.topic == topic]
        return [(p.partition, p.record.key, p.record.value) for p in found]

    async def headers(topic: str) -> list[dict[str, str]]:
        found = [p.record for p in broker.published if p.topic == topic]
        return [{name: value.decode() for name, value in r.headers} for r in found]

    def create(name: str, partitions: int) -> None:
        broker.topics[name] = partitions

    yield Site(broker, "t", consume, 3, create=create, headers=headers)


@contextlib.asynccontextmanager
async def kafka(request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    service = request.getfixturevalue("kafka")
    topic = request.getfixturevalue("topic_name")
    await asyncio.to_thread(service.create_topic, topic, partitions=3)
    broker = KafkaBroker(
        KafkaOptions(
            bootstrap_servers=service.bootstrap_servers,
            max_request_bytes=MAX_RECORD_BYTES,
            publish_deadline_seconds=4.0,
            request_timeout_seconds=2.0,
        )
    )

    async def consume(name: str) -> list[Seen]:
        records = await asyncio.to_thread(service.consume_all, name)
        return [(r.partition, r.key, r.value) for r in records]

    async def headers(name: str) -> list[dict[str, str]]:
        records = await asyncio.to_thread(service.consume_all, name)
        return [{name: value.decode() for name, value in r.headers.items()} for r in records]

    yield Site(broker, topic, consume, 3, service, service.create_topic, headers)
    await broker.close(timeout_seconds=2)


@contextlib.asynccontextmanager
async def amqp(request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    """On the default exchange: a topic is a queue."""
    service = request.getfixturevalue("rabbitmq")
    topic = request.getfixturevalue("topic_name")
    await asyncio.to_thread(service.declare_queue, topic)
    broker = AmqpBroker(
        AmqpOptions(
            url=service.url,
            max_record_bytes=MAX_RECORD_BYTES,
            publish_deadline_seconds=DEADLINE_SECONDS,
            request_timeout_seconds=1.0,
        )
    )

    async def consume(name: str) -> list[Seen]:
        found = await asyncio.to_thread(service.messages, name)
        return [
            (
                0,
                _as_bytes(m.headers.get("outbox-key")),
                None if "outbox-tombstone" in m.headers else m.body,
            )
            for m in found
        ]

    async def headers(name: str) -> list[dict[str, str]]:
        return [m.headers for m in await asyncio.to_thread(service.messages, name)]

    def create(name: str, partitions: int) -> None:
        service.declare_queue(name)

    yield Site(broker, topic, consume, 1, service, create, headers)
    await broker.close(timeout_seconds=2)


def _as_bytes(key: str | bytes | None) -> bytes | None:
    return key.encode() if isinstance(key, str) else key


def _redis_options(service: Any) -> RedisOptions:
    return RedisOptions(
        url=service.url,
        max_record_bytes=MAX_RECORD_BYTES,
        publish_deadline_seconds=DEADLINE_SECONDS,
        request_timeout_seconds=1.0,
    )


@contextlib.asynccontextmanager
async def redis_streams(request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    service = request.getfixturevalue("redis")
    topic = request.getfixturevalue("topic_name")
    broker = RedisStreamsBroker(_redis_options(service))

    async def fields(name: str) -> list[dict[bytes, bytes]]:
        return [e.fields for e in await asyncio.to_thread(service.entries, name)]

    async def consume(name: str) -> list[Seen]:
        return [(0, f.get(b"outbox-key"), f.get(b"outbox-value")) for f in await fields(name)]

    async def headers(name: str) -> list[dict[str, str]]:
        return [{n.decode(): v.decode() for n, v in f.items()} for f in await fields(name)]

    yield Site(broker, topic, consume, 1, service, None, headers)
    await broker.close(timeout_seconds=2)


@contextlib.asynccontextmanager
async def redis_pubsub(request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    """With one subscriber, who hears the topic from the start."""
    service = request.getfixturevalue("redis")
    topic = request.getfixturevalue("topic_name")
    broker = RedisPubSubBroker(_redis_options(service))
    client = service.client()
    subscriber = client.pubsub(ignore_subscribe_messages=True)
    subscriber.subscribe(topic)
    subscriber.get_message(timeout=1)
    heard: list[dict[str, Any]] = []

    async def events(name: str) -> list[dict[str, Any]]:
        while (message := await asyncio.to_thread(subscriber.get_message, timeout=0.3)) is not None:
            heard.append(json.loads(message["data"]))
        return heard

    async def consume(name: str) -> list[Seen]:
        return [(0, _as_bytes(e.get("partitionkey")), data(e)) for e in await events(name)]

    async def headers(name: str) -> list[dict[str, str]]:
        return await events(name)

    yield Site(broker, topic, consume, 1, service, None, headers)
    client.close()
    await broker.close(timeout_seconds=2)


async def freeze(service: Any) -> None:
    """Return when every thread of the server has stopped: the signal alone takes a moment."""
    service.freeze()
    async with asyncio.timeout(10):
        while not all(state == "T" for state in _states(service.pid)):
            await asyncio.sleep(0.01)


def _states(group: int) -> list[str]:
    """Of each thread of a process group, as proc(5) has it; not of those that have ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/task/*/stat"):
        with contextlib.suppress(OSError):
            state, _, of_group, *_ = stat.read_text().rpartition(")")[2].split()
            if int(of_group) == group and state not in "ZX":
                found.append(state)
    return found


def data(event: dict[str, Any]) -> bytes | None:
    """The payload of a CloudEvent."""
    if "data_base64" in event:
        return base64.b64decode(event["data_base64"])
    return _payload(event.get("data"))


def _payload(value: Any) -> bytes | None:
    return value.encode() if isinstance(value, str) else value


@contextlib.asynccontextmanager
async def jsonl(request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    path: Path = request.getfixturevalue("tmp_path") / "events.jsonl"
    broker = JsonlBroker(JsonlOptions(path=str(path), publish_deadline_seconds=DEADLINE_SECONDS))

    def lines(name: str) -> list[dict[str, Any]]:
        found = map(json.loads, path.read_text().splitlines())
        return [line for line in found if line["topic"] == name]

    async def consume(name: str) -> list[Seen]:
        return [(0, _as_bytes(line["key"]), _payload(line["value"])) for line in lines(name)]

    async def headers(name: str) -> list[dict[str, str]]:
        return [line["headers"] for line in lines(name)]

    yield Site(broker, f"t-{uuid.uuid4().hex[:8]}", consume, 1, headers=headers)
    await broker.close(timeout_seconds=2)


SITES = {
    "memory": memory,
    "kafka": kafka,
    "amqp": amqp,
    "redis_streams": redis_streams,
    "redis_pubsub": redis_pubsub,
    "jsonl": jsonl,
}
