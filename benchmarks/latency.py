"""
How long an event takes from its commit to a consumer, at an even rate with random gaps.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path

import sqlalchemy as sa

from benchmarks.orders import EVENT_NAME, PARTITIONS, customer, order
from benchmarks.programs import Program
from benchmarks.relays import settings_for, shown, start_relay
from benchmarks.results import Case
from benchmarks.servers import Servers
from benchmarks.topic import check, fresh_topic
from outbox_relay import Outbox
from tests.services.database import Database

WARM_UP = 200
"""Events that are not counted: connections open, and the idle relay's poll is long."""

BROKER_SECONDS = 5
"""At the same rate, before anything is counted at all."""

SETTLED_SECONDS = 3.0
"""After the last relay began: standbys know the owner's address, which they ask for each second."""

ANSWER_SECONDS = 120.0
HELD = "SELECT COUNT(*) FROM outbox_lease WHERE owner <> ''"


@contextmanager
def running(
    servers: Servers, database: Database, settings: Sequence[dict[str, str]]
) -> Iterator[list[Program]]:
    """Relays with these settings: the first owns the lanes, the others stand by."""
    with ExitStack() as stack:
        made = [
            stack.enter_context(start_relay(settings_for(servers, database, own)))
            for own in settings
        ]
        made[0].tell("go")
        give_up = time.monotonic() + ANSWER_SECONDS
        while not servers.database.number(database.name, HELD):
            assert time.monotonic() < give_up, "no relay took the lease"
            time.sleep(0.1)
        for relay in made[1:]:
            relay.tell("go")
        time.sleep(SETTLED_SECONDS)
        yield made
        for relay in made:
            relay.stop()


def commits(database: Database, topic: str, wake: str | None, rate: int, count: int) -> list[float]:
    """Commit *count* events; when each commit was there."""
    outbox = Outbox(wake=wake)
    rng = random.Random(1)
    done = []
    engine = sa.create_engine(database.sync_url)
    with engine.connect() as connection:
        due = time.monotonic()
        for number in range(count):
            due += rng.uniform(0, 2 / rate)
            time.sleep(max(0.0, due - time.monotonic()))
            outbox.add(
                connection, order(number), name=EVENT_NAME, topic=topic, key=customer(number)
            )
            connection.commit()
            done.append(time.monotonic())
    engine.dispose()
    return done


Around = Callable[[Database], AbstractContextManager[object]]


def measure_once(
    servers: Servers,
    relays: Sequence[dict[str, str]],
    wake: str | None,
    *,
    rate: int,
    count: int,
    around: Around = lambda _: nullcontext(),
) -> dict[str, float]:
    """Relays, a consumer and a writer; what the consumer saw. *around* holds while it writes."""
    topic = fresh_topic(servers.kafka)
    database = servers.database.create_outbox()
    argument = {
        "bootstrap": servers.kafka.bootstrap_servers,
        "topic": topic,
        "partitions": PARTITIONS,
        "count": count,
    }
    with (
        running(servers, database, relays),
        Program("benchmarks.consumer_program", argument) as consumer,
        around(database),
    ):
        consumer.answer()
        done = commits(database, topic, wake, rate, count)
        arrived = dict(consumer.answer(ANSWER_SECONDS)["arrived"])
    times = sorted((arrived[n] - done[n]) * 1000 for n in range(WARM_UP, count) if n in arrived)
    return {
        "p50_ms": times[len(times) // 2],
        "p99_ms": times[int(len(times) * 0.99)],
        "max_ms": times[-1],
        **check(servers.kafka, topic, count).fields(),
    }


def measure(servers: Servers, *, rate: int, seconds: int, runs: int, sidecars: int) -> list[Case]:
    """The relay polls; hints reach it; hints reach one of many that stand by, which passes them on."""
    count = WARM_UP + rate * seconds
    with tempfile.TemporaryDirectory() as folder:
        sockets = [f"unix:{Path(folder) / f'{number}.sock'}" for number in range(sidecars)]
        listening = [{"relay.wake_address": f"{path},udp:127.0.0.1:0"} for path in sockets]
        # The broker's first records are slow: its code is not compiled yet.
        warm_up = WARM_UP + rate * BROKER_SECONDS
        measure_once(servers, listening[:1], sockets[0], rate=rate, count=warm_up)
        cases = []
        for name, relays, wake in (
            ("hint", listening[:1], sockets[0]),
            (f"hint to a standby, {sidecars} sidecars", listening, sockets[-1]),
            ("poll", [{}], None),
        ):
            found = [
                measure_once(servers, relays, wake, rate=rate, count=count) for _ in range(runs)
            ]
            case = Case(name=name, database=servers.database.title, rows=count, runs=found)
            if wake:
                case.settings = shown({"relay.wake_address": "unix:…,udp:127.0.0.1:0"})
            cases.append(case)
    return cases
