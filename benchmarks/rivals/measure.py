"""
The measurements that every relay goes through.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

import sqlalchemy as sa

from benchmarks.latency import SPAWN, WARM_UP, consume
from benchmarks.rivals.rows import account, keys
from benchmarks.rivals.subject import PARTITIONS, EndOffsets, Subject, cpu_seconds, peak_mb

LOOK_SECONDS = 0.1
STUCK_SECONDS = 30.0
SETTLE_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """One backlog, from the relay's start to the last message on the topic."""

    rows: int
    rows_per_second: float
    relay_us_per_row: float
    database_us_per_row: float
    broker_us_per_row: float
    peak_mb: float
    lost: int
    duplicated: int
    inverted: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """From the commit's return to the consumer, in milliseconds."""

    events: int
    p50_ms: float
    p99_ms: float
    max_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """Percent of one core with nothing to relay."""

    relay_percent: float
    database_percent: float
    broker_percent: float
    peak_mb: float


def drain(subject: Subject, work: str, rows: int) -> Drain:
    """Fill while the relay is held, let it go, count what is on the topic."""
    topic = subject.topic(work)
    # The broker stamps each record, so the rate needs no consumer that takes its share of the CPU.
    config = {"message.timestamp.type": "LogAppendTime"}
    subject.kafka.create_topic(topic, partitions=PARTITIONS, config=config)
    ends = EndOffsets(subject.kafka, topic, PARTITIONS)
    subject.prepare(work)
    subject.fill(work, rows)
    before = _cpu(subject)
    subject.release(until_empty=True)
    _wait_for(ends, rows)
    subject.finish()
    used = [after - start for after, start in zip(_cpu(subject), before, strict=True)]
    peak = peak_mb(subject.pid)
    subject.hold()
    found = account(subject.kafka.consume_all(topic), keys(rows))
    assert not found.wrong_key, f"{subject.name}: {found.wrong_key} events have another's key"
    relay, database, broker = (seconds / rows * 1e6 for seconds in used)
    return Drain(
        rows=rows,
        rows_per_second=rows / max(found.last_ms - found.first_ms, 1) * 1000,
        relay_us_per_row=relay,
        database_us_per_row=database,
        broker_us_per_row=broker,
        peak_mb=peak,
        lost=found.lost,
        duplicated=found.duplicated,
        inverted=found.inverted,
    )


def latency_and_idle(
    subject: Subject, work: str, *, rate: int, seconds: int, idle_seconds: int
) -> tuple[Latency, Idle]:
    """Events at an even rate with random gaps, and then none."""
    topic = subject.topic(work)
    count = WARM_UP + rate * seconds
    subject.kafka.create_topic(topic, partitions=1)
    subject.prepare(work)
    subject.release(until_empty=False)
    time.sleep(SETTLE_SECONDS)
    ready, arrivals = SPAWN.Event(), SPAWN.Queue()
    consumer = SPAWN.Process(
        target=consume,
        args=(subject.kafka.bootstrap_servers, topic, count, ready, arrivals),
    )
    consumer.start()
    assert ready.wait(60)
    committed = _commit(subject, work, rate, count)
    arrived = arrivals.get(timeout=130)
    consumer.join()
    assert len(arrived) == count, f"{subject.name}: {count - len(arrived)} events did not arrive"
    idle = _idle(subject, idle_seconds)
    subject.hold()
    taken = sorted((arrived[n] - committed[n]) * 1000 for n in range(WARM_UP, count))
    return (
        Latency(
            events=len(taken),
            p50_ms=taken[len(taken) // 2],
            p99_ms=taken[int(len(taken) * 0.99)],
            max_ms=taken[-1],
        ),
        idle,
    )


def _commit(subject: Subject, work: str, rate: int, count: int) -> list[float]:
    write = subject.writer(work)
    rng = random.Random(1)
    committed = []
    engine = sa.create_engine(subject.connection_url())
    with engine.connect() as connection:
        due = time.monotonic()
        for number in range(count):
            due += rng.uniform(0, 2 / rate)
            time.sleep(max(0.0, due - time.monotonic()))
            write(connection, number)
            connection.commit()
            committed.append(time.monotonic())
    engine.dispose()
    return committed


def _idle(subject: Subject, seconds: int) -> Idle:
    time.sleep(SETTLE_SECONDS)
    before, started = _cpu(subject), time.monotonic()
    time.sleep(seconds)
    passed = time.monotonic() - started
    percent = [
        (after - start) / passed * 100 for after, start in zip(_cpu(subject), before, strict=True)
    ]
    return Idle(
        relay_percent=percent[0],
        database_percent=percent[1],
        broker_percent=percent[2],
        peak_mb=peak_mb(subject.pid),
    )


def _cpu(subject: Subject) -> tuple[float, float, float]:
    servers = (subject.mariadb.pid, subject.kafka.pid)
    return (subject.cpu_seconds(), *map(cpu_seconds, servers))


def _wait_for(ends: EndOffsets, rows: int) -> None:
    """Until *rows* are on the topic, or none has come for long: then some are lost."""
    reached, since = 0, time.monotonic()
    while reached < rows and time.monotonic() - since < STUCK_SECONDS:
        time.sleep(LOOK_SECONDS)
        count = ends.count()
        if count > reached:
            reached, since = count, time.monotonic()
