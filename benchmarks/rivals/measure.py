"""
The measurements that every relay goes through, as the runs of a case.
"""

from __future__ import annotations

import random
import time

import sqlalchemy as sa

from benchmarks.orders import PARTITIONS
from benchmarks.programs import Program
from benchmarks.rivals.rival import EndOffsets, Rival
from benchmarks.topic import check, create_topic

LOOK_SECONDS = 0.1
STUCK_SECONDS = 30.0
SETTLE_SECONDS = 3.0
WARM_UP_SECONDS = 2
ARRIVE_SECONDS = 120.0


def drain(rival: Rival, work: str, rows: int) -> dict[str, float]:
    """Fill while the relay is held, let it go, and count what came to the topic."""
    kafka = rival.servers.kafka
    # The broker stamps each record, so the rate needs no consumer that takes its share of the CPU.
    topic = create_topic(kafka, rival.topic(work))
    ends = EndOffsets(kafka, topic, PARTITIONS)
    rival.prepare(work)
    rival.fill(work, rows)
    before = _cpu(rival)
    rival.release()
    _wait_for(ends, rows)
    relay, database, broker = (
        (after - start) / rows * 1e6 for after, start in zip(_cpu(rival), before, strict=True)
    )
    peak_mb = rival.peak_mb()
    rival.hold()
    account = check(kafka, topic, rows)
    kafka.delete_topic(topic)
    return {
        "rows_per_second": account.rate(),
        "relay_us": relay,
        "database_us": database,
        "broker_us": broker,
        "peak_mb": peak_mb,
        **account.fields(),
    }


def latency_and_idle(
    rival: Rival, work: str, *, rate: int, seconds: int, runs: int, idle_seconds: int
) -> list[dict[str, float]]:
    """Events at an even rate with random gaps, cut into *runs* of *seconds*; and then none."""
    kafka = rival.servers.kafka
    topic = create_topic(kafka, rival.topic(work))
    rival.prepare(work)
    rival.release()
    time.sleep(SETTLE_SECONDS)
    warm_up, each = rate * WARM_UP_SECONDS, rate * seconds
    events = warm_up + each * runs
    argument = {
        "bootstrap": kafka.bootstrap_servers,
        "topic": topic,
        "partitions": PARTITIONS,
        "count": events,
    }
    with Program("benchmarks.consumer_program", argument) as consumer:
        consumer.answer()
        committed = _commit(rival, work, rate, events)
        arrived = dict(consumer.answer(ARRIVE_SECONDS)["arrived"])
    idle = _idle(rival, idle_seconds)
    rival.hold()
    assert len(arrived) == events, f"{rival.system}: {events - len(arrived)} events did not arrive"
    took = [(arrived[n] - committed[n]) * 1000 for n in range(warm_up, events)]
    return [*(_quantiles(took[n : n + each]) for n in range(0, len(took), each)), idle]


def _quantiles(took: list[float]) -> dict[str, float]:
    took = sorted(took)
    return {"p50_ms": took[len(took) // 2], "p99_ms": took[len(took) * 99 // 100]}


def _commit(rival: Rival, work: str, rate: int, events: int) -> list[float]:
    """When each commit had returned."""
    write = rival.writer(work)
    rng = random.Random(1)
    committed = []
    engine = sa.create_engine(rival.database.sync_url)
    with engine.connect() as connection:
        due = time.monotonic()
        for number in range(events):
            due += rng.uniform(0, 2 / rate)
            time.sleep(max(0.0, due - time.monotonic()))
            write(connection, number)
            connection.commit()
            committed.append(time.monotonic())
    engine.dispose()
    return committed


def _idle(rival: Rival, seconds: int) -> dict[str, float]:
    time.sleep(SETTLE_SECONDS)
    before, started = rival.cpu_seconds(), time.monotonic()
    time.sleep(seconds)
    percent = (rival.cpu_seconds() - before) / (time.monotonic() - started) * 100
    return {"cpu_percent": percent}


def _cpu(rival: Rival) -> tuple[float, float, float]:
    return (rival.cpu_seconds(), *rival.servers.cpu_seconds())


def _wait_for(ends: EndOffsets, rows: int) -> None:
    """Until *rows* are on the topic, or none has come for long: then some are lost."""
    reached, since = 0, time.monotonic()
    while reached < rows and time.monotonic() - since < STUCK_SECONDS:
        time.sleep(LOOK_SECONDS)
        count = ends.count()
        if count > reached:
            reached, since = count, time.monotonic()
