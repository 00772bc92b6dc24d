"""
`EventConsumer` on a real Kafka: a stop in time, a cancellation, and records that nobody can read.
"""

from __future__ import annotations

import asyncio
import struct
import threading
from contextlib import suppress

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.record.util import calc_crc32c

from outbox_relay.consumer import ConsumedRecord, EventConsumer
from outbox_relay.consumer import kafka as kafka_source
from tests.contract.brokers import freeze
from tests.integration.consuming import (
    Program,
    cancelled_in_its_handler,
    committed,
    member_of,
    produce,
    running,
    until,
)
from tests.services.kafka import Kafka


async def test_cancelled_it_ends_its_handler_where_it_is(kafka: Kafka, topic_name: str) -> None:
    """
    At once, whatever stop_seconds says; its offset does not move.
    """
    kafka.create_topic(topic_name)
    await produce(kafka, topic_name, 0)

    assert await cancelled_in_its_handler(member_of(kafka, topic_name))
    assert await committed(kafka, topic_name) is None


async def test_a_handler_that_swallows_its_cancellation_moves_no_offset(
    kafka: Kafka, topic_name: str
) -> None:
    """
    Its time was over: the partition may be another's by now. The record is delivered again.
    """
    kafka.create_topic(topic_name)
    await produce(kafka, topic_name, 0)
    began = asyncio.Event()

    async def deaf(record: ConsumedRecord) -> None:
        began.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    async with running(member_of(kafka, topic_name), deaf, stop_seconds=0.1):
        await began.wait()

    assert await committed(kafka, topic_name) is None


async def test_a_program_ends_in_time_while_the_broker_answers_nothing(
    kafka: Kafka, topic_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    I9. With a commit that waits for its answer, and another one to come: each has its limit, and nothing
    of the client stays behind that would keep the event loop from closing.
    """
    monkeypatch.setattr(kafka_source, "_COMMIT_SECONDS", 4.0)
    monkeypatch.setattr(kafka_source, "_CLOSE_SECONDS", 0.5)
    kafka.create_topic(topic_name)
    await produce(kafka, topic_name, 0, 1)
    handled, frozen, second = threading.Event(), threading.Event(), threading.Event()

    async def handle(record: ConsumedRecord) -> None:
        if record.payload["number"] == 0:
            handled.set()
            await asyncio.to_thread(frozen.wait)
        else:
            second.set()

    source_ = member_of(kafka, topic_name, commit_seconds=0.05)
    consumer = EventConsumer(source_, handle, stop_seconds=0.2)
    program = Program(consumer)
    await asyncio.to_thread(handled.wait)
    await freeze(kafka)
    frozen.set()
    await asyncio.to_thread(second.wait)
    await asyncio.sleep(0.2)  # the commit is under way
    ended = await program.ends(within_seconds=4.0 + 3.0)
    kafka.thaw()

    assert ended


async def test_a_record_that_the_client_cannot_read_holds_its_partition_alone(
    kafka: Kafka, topic_name: str
) -> None:
    """
    A header's name that is not UTF-8, as clients in C may write it: what comes before it in the same
    batch is handled and committed, it is held and counted, and another partition goes on.
    """
    kafka.create_topic(topic_name, partitions=2)
    await produce_unreadable(kafka, topic_name)
    await produce(kafka, topic_name, 8, partition=0)
    handled: list[tuple[int | None, int | None]] = []

    async def handle(record: ConsumedRecord) -> None:
        handled.append((record.partition, record.offset))

    async with running(member_of(kafka, topic_name), handle) as consumer:
        held = consumer.metrics.registry.get_sample_value
        await until(lambda: held("outbox_relay_consumer_held_records") == 1)
        await produce(kafka, topic_name, 9, partition=1)
        await until(lambda: (1, 0) in handled)

    assert handled == [(0, 0), (0, 1), (1, 0)]
    assert await committed(kafka, topic_name) == 2


async def produce_unreadable(kafka: Kafka, topic: str) -> None:
    """One batch to partition 0: two records, and one with a header whose name is not UTF-8."""
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers) as producer:
        batch = producer.create_batch()
        for headers in ([], [], [("MARK", b"x")]):
            batch.append(key=b"k", value=b"{}", timestamp=None, headers=headers)
        build = batch._build

        def spoilt() -> bytearray:
            made = bytearray(build())
            at = made.index(b"MARK")
            made[at : at + 4] = b"\xff\xfe\xff\xfe"
            struct.pack_into(">I", made, 17, calc_crc32c(memoryview(made)[21:]))
            return made

        batch._build = spoilt
        await (await producer.send_batch(batch, topic, partition=0))
