"""
What a topic that fails for good costs a healthy one, on three brokers.

One relay has events for a healthy topic and for one in trouble, both led by the same broker. The same load
is measured twice: before the trouble, and under it. The clock is the machine's, so that a row's creation in
the database and its ack can be compared.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from statistics import quantiles

from outbox_relay.brokers.kafka import KafkaBroker
from outbox_relay.brokers.options import KafkaOptions
from outbox_relay.migrate import migrate
from outbox_relay.relay.options import RelayOptions
from outbox_relay.relay.outcomes import Acked, Outcome
from outbox_relay.relay.ports import Record
from outbox_relay.relay.producer import EventProducer
from outbox_relay.store import DatabaseOptions, open_store
from tests.services.database import Database
from tests.services.kafka_cluster import KafkaCluster
from tests.services.mariadb import MariaDB

PARTITIONS = 6
SETTLE_SECONDS = 5.0


class Trouble(StrEnum):
    """What is wrong with the sick topic."""

    TOO_FEW_REPLICAS = "too-few-replicas"
    SLOW_REPLICA = "slow-replica"
    DELETED = "deleted"
    TOO_LARGE = "too-large"


@dataclass(frozen=True, slots=True)
class Topics:
    """The names, and the cluster that has them."""

    cluster: KafkaCluster
    healthy: str
    sick: str

    def create(self) -> None:
        """Both led by broker 1. Only the sick one knows broker 2, and needs it."""
        self.cluster.create_topic(self.healthy, replication=[[1, 3]] * PARTITIONS)
        self.cluster.create_topic(
            self.sick, replication=[[1, 2]] * PARTITIONS, config={"min.insync.replicas": "2"}
        )

    def spoil(self, trouble: Trouble) -> None:
        """Make the sick topic fail from now on."""
        second = self.cluster.brokers[1]
        match trouble:
            case Trouble.TOO_FEW_REPLICAS:
                second.kill()
                self.cluster.wait_until_in_sync(self.sick, replicas=1)
            case Trouble.SLOW_REPLICA:
                second.freeze()
            case Trouble.DELETED:
                self.cluster.delete_topic(self.sick)
            case Trouble.TOO_LARGE:
                self.cluster.set_topic_config(
                    self.sick, {"min.insync.replicas": "2", "max.message.bytes": "100"}
                )


@dataclass(slots=True)
class Watched:
    """The `MessageBroker` port, with the times of the healthy topic."""

    broker: KafkaBroker
    topic: str
    acks: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    counts: bool = False

    async def publish(self, topic: str, partition: int, records: Sequence[Record]) -> Outcome:
        started = time.monotonic()
        outcome = await self.broker.publish(topic, partition, records)
        if self.counts and topic == self.topic and outcome == Acked():
            now = time.time()
            self.acks += [time.monotonic() - started] * len(records)
            self.latencies += [now - _created(record) for record in records]
        return outcome

    def __getattr__(self, name: str) -> object:
        return getattr(self.broker, name)


def _created(record: Record) -> float:
    at = datetime.fromisoformat(record.time.decode().rstrip("Z"))
    return at.replace(tzinfo=UTC).timestamp()


class Writer(threading.Thread):
    """Inserts events at a steady rate, one transaction each, one in five for the sick topic."""

    def __init__(self, server: MariaDB, database: Database, topics: Topics, rate: int) -> None:
        super().__init__(daemon=True)
        self._connect: Callable[[], object] = lambda: server.root_connection(database.name)
        self._topics = topics
        self._rate = rate
        self._done = threading.Event()

    def run(self) -> None:
        sql = "INSERT INTO outbox (event_name, topic, `key`, payload) VALUES ('e', %s, %s, %s)"
        payload = b"x" * 400
        with self._connect() as connection, connection.cursor() as cursor:  # type: ignore[attr-defined]
            started = time.monotonic()
            number = 0
            while not self._done.is_set():
                topic = self._topics.sick if number % 5 == 0 else self._topics.healthy
                cursor.execute(sql, (topic, b"%d" % (number % 997), payload))
                number += 1
                self._done.wait(max(0.0, started + number / self._rate - time.monotonic()))

    def stop(self) -> None:
        self._done.set()
        self.join()


def row(name: str, seconds: list[float]) -> tuple[str, float, float]:
    """Name, p50 and p99 in milliseconds."""
    cuts = quantiles(seconds, n=100)
    return name, 1000 * cuts[49], 1000 * cuts[98]


async def _measure(
    watched: Watched, producer: EventProducer, topics: Topics, trouble: Trouble, seconds: float
) -> list[tuple[str, float, float]]:
    running = asyncio.create_task(producer.run())
    found = []
    for name in ("well", trouble.value):
        if name != "well":
            await asyncio.to_thread(topics.spoil, trouble)
        await asyncio.sleep(SETTLE_SECONDS)
        watched.counts = True
        await asyncio.sleep(seconds)
        watched.counts = False
        found.append(row(f"publish to ack, the other topic {name}", watched.acks))
        found.append(row(f"created to ack, the other topic {name}", watched.latencies))
        watched.acks, watched.latencies = [], []
    producer.stop()
    await running
    return found


def measure(trouble: Trouble, *, seconds: float, rate: int) -> list[tuple[str, float, float]]:
    """p50 and p99 of the healthy topic without and with the trouble of the other."""
    for name in ("asyncmy", "aiokafka"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    unique = uuid.uuid4().hex[:8]
    with MariaDB() as server, KafkaCluster() as cluster:
        database = server.create_database()
        options = DatabaseOptions(url=database.async_url)
        migrate(options)
        topics = Topics(cluster, f"healthy-{unique}", f"sick-{unique}")
        topics.create()
        watched = Watched(
            KafkaBroker(KafkaOptions(bootstrap_servers=cluster.bootstrap_servers)), topics.healthy
        )
        producer = EventProducer(
            open_store(options),
            watched,  # type: ignore[arg-type]
            options=RelayOptions(poll_seconds=0.01),
        )
        writer = Writer(server, database, topics, rate)
        writer.start()
        try:
            return asyncio.run(_measure(watched, producer, topics, trouble, seconds))
        finally:
            writer.stop()


def report(found: list[tuple[str, float, float]]) -> str:
    """The rows, and how many times larger p99 is under the trouble."""
    lines = [f"{'':52}{'p50 ms':>9}{'p99 ms':>9}"]
    lines += [f"{name:52}{p50:9.2f}{p99:9.2f}" for name, p50, p99 in found]
    (_, _, ack), (_, _, whole), (_, _, sick_ack), (_, _, sick_whole) = found
    lines.append(
        f"p99 with the trouble / without: publish to ack {sick_ack / ack:.2f}, "
        f"created to ack {sick_whole / whole:.2f}"
    )
    return "\n".join(lines)
