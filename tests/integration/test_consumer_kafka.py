"""
`EventConsumer` on a real Kafka: nothing is lost, whatever ends it; nothing is handled after its time.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy as sa

from outbox_relay.consumer import ConsumedRecord, KafkaSource
from tests.integration.consuming import committed, member_of, produce, running, until
from tests.integration.consuming_service import (
    EFFECTS,
    METADATA,
    DeadLetterLater,
    inbox,
    source,
)
from tests.services.database import Database
from tests.services.kafka import Kafka

KILLS = int(os.environ.get("CONSUMER_KILLS", "3"))
EVENTS = 60 * KILLS
SEED = random.SystemRandom().randrange(2**32)


class Service:
    """The consuming service in its process."""

    def __init__(self, kafka: Kafka, topic: str, database: Database, *, wrong: str = "") -> None:
        self._arguments = [kafka.bootstrap_servers, topic, database.async_url, wrong]
        self.engine = sa.create_engine(database.sync_url)
        METADATA.create_all(self.engine)
        inbox.create(self.engine)

    @contextmanager
    def run(self, *, crash_at: int | None = None) -> Iterator[subprocess.Popen[str]]:
        """The process, gone when the block ends."""
        crash = [] if crash_at is None else [str(crash_at)]
        command = [sys.executable, "-m", "tests.integration.consuming_service"]
        with subprocess.Popen(
            [*command, *self._arguments, *crash], stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def effects(self) -> list[int]:
        """What the handler has done, in order."""
        with self.engine.connect() as connection:
            return list(connection.scalars(sa.select(EFFECTS.c.number).order_by(EFFECTS.c.id)))


async def lines(process: subprocess.Popen[str], count: int) -> list[str]:
    """The next lines that the service prints; fewer if it ends."""
    assert process.stdout is not None
    read = process.stdout.readline
    return [line for _ in range(count) if (line := await asyncio.to_thread(read))]


async def test_effects_happen_once_though_the_service_is_killed(
    kafka: Kafka, topic_name: str, mariadb_database: Database
) -> None:
    """
    kill -9 at random moments, and every third event delivered twice by the broker: each effect is
    there exactly once, in the order of its partition.
    """
    kafka.create_topic(topic_name, partitions=2)
    service, chance = Service(kafka, topic_name, mariadb_database), random.Random(SEED)
    numbers = [number for number in range(EVENTS) for _ in range(2 if number % 3 == 0 else 1)]
    await produce(kafka, topic_name, *numbers)

    for _ in range(KILLS):
        with service.run() as process:
            await lines(process, chance.randrange(3, EVENTS // KILLS))
    with service.run() as process:
        await until(lambda: len(service.effects()) >= EVENTS)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 20) == 0

    assert sorted(service.effects()) == list(range(EVENTS)), f"seed {SEED}"
    for key in range(7):
        of_key = [number for number in service.effects() if number % 7 == key]
        assert of_key == sorted(of_key), f"seed {SEED}"


@pytest.mark.parametrize("wrong", ["", "offset_first", "other_transaction"])
async def test_a_crash_inside_a_handler_loses_no_effect(
    kafka: Kafka, topic_name: str, sqlite_database: Database, wrong: str
) -> None:
    """
    The process dies between the inbox and the handler's commit. The next one handles the event; with
    either mistake its effect is lost, which shows that this test can see it.
    """
    kafka.create_topic(topic_name)
    service = Service(kafka, topic_name, sqlite_database, wrong=wrong)
    await produce(kafka, topic_name, 0, 1, 2, 3)
    with service.run(crash_at=2) as process:
        await asyncio.to_thread(process.wait, 60)
    with service.run():
        await until(lambda: 3 in service.effects())

    lost = {0, 1, 2, 3} - set(service.effects())
    assert lost == ({2} if wrong else set())


async def test_sigterm_finishes_what_is_in_work_and_commits(
    kafka: Kafka, topic_name: str, sqlite_database: Database
) -> None:
    """
    Exit code 0, and the next one begins where this one ended: nothing is handled twice.
    """
    kafka.create_topic(topic_name)
    service = Service(kafka, topic_name, sqlite_database)
    await produce(kafka, topic_name, *range(200))
    with service.run() as process:
        await lines(process, 3)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 20) == 0

    done = service.effects()
    assert done == list(range(len(done)))
    assert await committed(kafka, topic_name) == len(done)


async def test_partitions_change_hands_without_a_duplicate(kafka: Kafka, topic_name: str) -> None:
    """
    A second consumer joins while a handler of the first one is at work: the handler ends, its offset
    is committed, and only then the partition goes. Without an inbox, each event is handled once.
    """
    kafka.create_topic(topic_name, partitions=2)
    await produce(kafka, topic_name, *range(20), partition=0)
    await produce(kafka, topic_name, *range(20, 40), partition=1)
    handled: list[int] = []
    at_work, gate = asyncio.Event(), asyncio.Event()

    async def slow(record: ConsumedRecord) -> None:
        at_work.set()
        await gate.wait()
        handled.append(record.payload["number"])

    async def quick(record: ConsumedRecord) -> None:
        handled.append(record.payload["number"])

    def member() -> KafkaSource:
        return member_of(kafka, topic_name, commit_seconds=3600)

    async with running(member(), slow, concurrency=2):
        await at_work.wait()
        async with running(member(), quick):
            await asyncio.sleep(
                0.5
            )  # the rebalance begins; however far it is, the outcome is the same
            gate.set()
            await until(lambda: len(handled) >= 40)

    assert sorted(handled) == list(range(40))


async def test_a_handler_that_is_too_slow_for_a_rebalance_is_cancelled(
    kafka: Kafka, topic_name: str
) -> None:
    """
    After rebalance_seconds its partition goes all the same: it is cancelled, so its transaction rolls
    back, and the record is handled by whoever has the partition next.
    """
    kafka.create_topic(topic_name)
    await produce(kafka, topic_name, 0)
    began, ended, handled = asyncio.Event(), asyncio.Event(), []

    async def stuck(record: ConsumedRecord) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def quick(record: ConsumedRecord) -> None:
        handled.append(record.payload["number"])

    def member() -> KafkaSource:
        return member_of(kafka, topic_name, rebalance_seconds=0.2)

    async with running(member(), stuck, stop_seconds=0.2):
        await began.wait()
        async with running(member(), quick):
            await ended.wait()
    async with running(member(), quick):
        await until(lambda: handled == [0])


async def test_a_poison_record_goes_to_the_dead_letter_topic(kafka: Kafka, topic_name: str) -> None:
    """
    As it came, with the reason; the next one of its partition is handled.
    """
    kafka.create_topic(topic_name)
    kafka.create_topic(f"{topic_name}-dead")
    await produce(kafka, topic_name, 1, 2)
    handled = []

    async def handle(record: ConsumedRecord) -> None:
        if record.payload["number"] == 1:
            raise ValueError("no")
        handled.append(record.payload["number"])

    async with running(source(kafka.bootstrap_servers, topic_name), handle):
        await until(lambda: handled == [2])

    [dead] = await asyncio.to_thread(kafka.consume_all, f"{topic_name}-dead")
    assert (dead.key, dead.value) == (b"key-1", b'{"number": 1}')
    assert dead.headers["ce_id"] == str(uuid.UUID(int=1)).encode()
    assert dead.headers["dead-letter-reason"] == b"handler_failed"
    assert dead.headers["dead-letter-offset"] == b"0"
    assert await committed(kafka, topic_name) == 2


@pytest.mark.parametrize("wrong", [False, True])
async def test_no_offset_moves_past_a_dead_letter_that_is_not_acked(
    kafka: Kafka, topic_name: str, wrong: bool
) -> None:
    """
    Its topic does not exist: the record is held, and the group stays in front of it. The wrong order
    commits it, and would lose the record with the process.
    """
    kafka.create_topic(topic_name)
    await produce(kafka, topic_name, 1)
    failed = asyncio.Event()

    async def handle(record: ConsumedRecord) -> None:
        failed.set()
        raise ValueError("no")

    kind = DeadLetterLater if wrong else KafkaSource
    async with running(source(kafka.bootstrap_servers, topic_name, kind), handle, stop_seconds=0.1):
        await failed.wait()
        await asyncio.sleep(0.2)

    assert await committed(kafka, topic_name) == (1 if wrong else None)


async def test_the_broker_goes_away_and_comes_back(kafka: Kafka, topic_name: str) -> None:
    """
    Consuming goes on by itself, with nothing lost and nothing given up.
    """
    kafka.create_topic(topic_name)
    await produce(kafka, topic_name, 0, 1)
    handled: set[int] = set()

    async def handle(record: ConsumedRecord) -> None:
        handled.add(record.payload["number"])

    async with running(source(kafka.bootstrap_servers, topic_name), handle):
        await until(lambda: len(handled) == 2)
        await asyncio.to_thread(kafka.kill)
        await asyncio.to_thread(kafka.start)
        await produce(kafka, topic_name, 2, 3)
        await until(lambda: len(handled) == 4)


async def test_a_consumer_starts_before_its_broker_and_stops_without_it() -> None:
    """
    It tries again until it is told to stop, and then stops at once.
    """
    nowhere = KafkaSource("t", bootstrap_servers="127.0.0.1:1", group="g")

    async def handle(record: ConsumedRecord) -> None:
        raise AssertionError

    async with running(nowhere, handle):
        await asyncio.sleep(0.3)
