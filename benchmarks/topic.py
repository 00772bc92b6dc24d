"""
What a consumer finds on a topic: how fast it came, and whether all came, once and in order.
"""

from __future__ import annotations

import math
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]
from confluent_kafka.cimpl import NewTopic

from benchmarks.orders import PARTITIONS, number_and_customer
from benchmarks.rows import topic_of
from tests.services.kafka import Kafka

ANSWER_SECONDS = 30.0
READ_SECONDS = 300.0

Record = tuple[str, int, bytes, int]
"""Topic, partition, value, and when the broker took it, in milliseconds."""


@dataclass(slots=True)
class Found:
    """The account of one topic."""

    records: int = 0
    lost: int = 0
    duplicated: int = 0
    inverted: int = 0
    """Orders of a customer that came after a later one, within a partition."""
    split_customers: int = 0
    """Customers whose orders are on several partitions, where no consumer sees their order."""
    seconds: float = 0.0
    """From the first to the last record, by the broker's clock."""

    def rate(self) -> float:
        """Records a second, from the first to the last."""
        return self.records / max(self.seconds, 0.001)

    def fields(self) -> dict[str, float]:
        """For a run's measures."""
        return {
            "lost": self.lost,
            "duplicated": self.duplicated,
            "inverted": self.inverted,
            "split_keys": self.split_customers,
        }


def create_topic(kafka: Kafka, name: str, *, partitions: int = PARTITIONS) -> str:
    """A topic whose records the broker stamps, whatever clock a system has; its name."""
    kafka.create_topic(
        name, partitions=partitions, config={"message.timestamp.type": "LogAppendTime"}
    )
    return name


def fresh_topic(kafka: Kafka, *, partitions: int = PARTITIONS) -> str:
    """A topic that nobody used before."""
    return create_topic(kafka, f"bench-{uuid.uuid4().hex[:12]}", partitions=partitions)


def create_topics(kafka: Kafka, names: Sequence[str], *, partitions: int) -> None:
    """Many topics at once; returns when the broker has made all their logs, which takes it a while."""
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    settings = {"message.timestamp.type": "LogAppendTime"}
    asked = admin.create_topics(
        [NewTopic(name, partitions, replication_factor=1, config=settings) for name in names]
    )
    for done in asked.values():
        done.result(ANSWER_SECONDS)
    latest: Any = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    waiting = {TopicPartition(name, p) for name in names for p in range(partitions)}
    give_up = time.monotonic() + READ_SECONDS
    while waiting:
        answers = admin.list_offsets(dict.fromkeys(waiting, latest))
        waiting = {place for place, answer in answers.items() if answer.exception(ANSWER_SECONDS)}
        if time.monotonic() > give_up:
            raise TimeoutError(f"{len(waiting)} partitions are not there")


def check(kafka: Kafka, topic: str, rows: int, *, topics: int = 1) -> Found:
    """
    Read the whole topic, on which the orders numbered from 0 should be.

    With several *topics* all that are named *topic* and a number, as `rows.fill` does it.
    """
    names = [topic_of(topic, number, topics) for number in range(topics)]
    return account((record for name in names for record in _records(kafka, name)), rows)


def account(records: Iterable[Record], rows: int) -> Found:
    """What is wrong with *records*, which should be the orders numbered from 0 to *rows*."""
    found = Found()
    seen = bytearray(rows)
    last: dict[tuple[str, int, bytes], int] = {}
    first_stamp, last_stamp = math.inf, -math.inf
    for topic, partition, value, stamp in records:
        number, customer = number_and_customer(value)
        found.records += 1
        first_stamp, last_stamp = min(stamp, first_stamp), max(stamp, last_stamp)
        if seen[number]:
            found.duplicated += 1
            continue
        seen[number] = 1
        before = last.get((topic, partition, customer), -1)
        found.inverted += number < before
        last[topic, partition, customer] = max(number, before)
    found.lost = seen.count(0)
    partitions = Counter((topic, customer) for topic, _, customer in last)
    found.split_customers = sum(1 for count in partitions.values() if count > 1)
    found.seconds = (last_stamp - first_stamp) / 1000 if found.records else 0.0
    return found


def _records(kafka: Kafka, topic: str) -> Iterator[Record]:
    """All records, in order within each partition."""
    consumer = Consumer(
        {
            "bootstrap.servers": kafka.bootstrap_servers,
            "group.id": f"check-{uuid.uuid4().hex}",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "fetch.message.max.bytes": 8 << 20,
            "queued.max.messages.kbytes": 65_536,
        }
    )
    try:
        parts = consumer.list_topics(topic, timeout=ANSWER_SECONDS).topics[topic].partitions
        ends = {p: _end(consumer, topic, p) for p in parts}
        missing = {p for p, end in ends.items() if end}
        consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in missing])
        give_up = time.monotonic() + READ_SECONDS
        while missing:
            for message in consumer.consume(num_messages=5_000, timeout=1.0):
                error = message.error()
                if error is not None:
                    if error.retriable():
                        continue
                    raise KafkaException(error)
                partition, value, offset = message.partition(), message.value(), message.offset()
                assert partition is not None
                assert offset is not None
                yield topic, partition, value or b"", message.timestamp()[1]
                if offset >= ends[partition] - 1:
                    missing.discard(partition)
            if time.monotonic() > give_up:
                raise TimeoutError(f"{topic} could not be read within {READ_SECONDS:g} s")
    finally:
        consumer.close()


def _end(consumer: Consumer, topic: str, partition: int) -> int:
    marks = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=ANSWER_SECONDS)
    return int(marks[1])
