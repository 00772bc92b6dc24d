"""
How long an event takes from its commit to a consumer: real MariaDB (durable) and real Kafka.

    python -m benchmarks.latency [--rate 200] [--seconds 20]

A writer commits one event at a time at an even rate with random gaps; a consumer in a process of its
own notes when each arrives. Three runs: the relay polls; the writer's commits send hints to it; the
hints go to a relay that stands by, which passes them on. Then what a hint costs the writer.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

import outbox_relay
from outbox_relay import Outbox
from outbox_relay.schema import tables
from outbox_relay.wake import Sender, parse_wake_address
from tests.services.database import Database
from tests.services.kafka import Kafka
from tests.services.mariadb import MariaDB

WARM_UP = 200
"""Events that are not counted: connections open, and the idle relay's poll is long."""

SPAWN = multiprocessing.get_context("spawn")


def relay(url: str, bootstrap: str, wake: str, ready: Any, stop: Any) -> None:
    """A relay with default settings but for `wake_address`."""
    import asyncio

    from outbox_relay.brokers.kafka import KafkaBroker
    from outbox_relay.brokers.options import KafkaOptions
    from outbox_relay.relay.options import RelayOptions
    from outbox_relay.relay.producer import EventProducer
    from outbox_relay.store import DatabaseOptions, open_store
    from outbox_relay.wake_listener import WakeListener
    from outbox_relay.wiring import run_loop

    async def run() -> None:
        producer = EventProducer(
            open_store(DatabaseOptions(url=url)),
            KafkaBroker(KafkaOptions(bootstrap_servers=bootstrap)),
            options=RelayOptions(wake_address=wake),
            wake=WakeListener(wake) if wake else None,
        )
        working = asyncio.create_task(producer.run())
        await asyncio.sleep(2)
        ready.set()
        while not stop.is_set():
            await asyncio.sleep(0.2)
        producer.stop()
        await working

    run_loop(run())


def consume(bootstrap: str, topic: str, count: int, ready: Any, arrivals: Any) -> None:
    """When each event arrived, by its number."""
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "latency",
            "enable.auto.commit": False,
            "socket.nagle.disable": True,
        }
    )
    consumer.assign([TopicPartition(topic, 0, 0)])
    consumer.poll(1.0)
    ready.set()
    arrived: dict[int, float] = {}
    give_up = time.monotonic() + 120
    while len(arrived) < count and time.monotonic() < give_up:
        message = consumer.poll(1.0)
        if message is not None and message.error() is None:
            arrived.setdefault(int(message.value()), time.monotonic())
    arrivals.put(arrived)


@contextmanager
def running(target: Any, *arguments: Any) -> Iterator[None]:
    """*target* in a process of its own, from when it is ready until it is told to stop."""
    ready, stop = SPAWN.Event(), SPAWN.Event()
    process = SPAWN.Process(target=target, args=(*arguments, ready, stop))
    process.start()
    assert ready.wait(60)
    yield
    stop.set()
    process.join(30)


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
            outbox.add(connection, b"%d" % number, name="n", topic=topic, key=number % 100)
            connection.commit()
            done.append(time.monotonic())
    engine.dispose()
    return done


def run(kind: str, mariadb: MariaDB, kafka: Kafka, rate: int, count: int) -> list[float]:
    """The latencies in milliseconds of one run, without the warm-up."""
    topic = f"latency-{kind}"
    kafka.create_topic(topic, partitions=1)
    database = mariadb.create_database()
    engine = sa.create_engine(database.sync_url)
    outbox = tables()
    outbox.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(outbox.version.insert().values(version=2, min_reader=1))
        connection.execute(outbox.lease.insert(), [{"lane": lane} for lane in range(128)])
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        paths = [f"unix:{folder}/{name}.sock" for name in ("owner", "standby")]
        listen = [f"{path},udp:127.0.0.1:0" for path in paths]
        relays = {"poll": [""], "hint": listen[:1], "standby": listen}[kind]
        wake = {"poll": None, "hint": paths[0], "standby": paths[1]}[kind]
        for address in relays:
            stack.enter_context(
                running(relay, database.async_url, kafka.bootstrap_servers, address)
            )
        ready, arrivals = SPAWN.Event(), SPAWN.Queue()
        arguments = (kafka.bootstrap_servers, topic, count, ready, arrivals)
        consumer = SPAWN.Process(target=consume, args=arguments)
        consumer.start()
        assert ready.wait(60)
        done = commits(database, topic, wake, rate, count)
        arrived = arrivals.get(timeout=130)
        consumer.join()
    assert len(arrived) == count, f"{count - len(arrived)} of {count} events did not arrive"
    return [(arrived[n] - done[n]) * 1000 for n in range(WARM_UP, count)]


def hint_cost_us() -> float:
    """Microseconds of one hint, median of 1,000, to a socket that is being emptied."""
    from outbox_relay.wake_listener import WakeListener

    costs = []
    with tempfile.TemporaryDirectory() as folder:
        address = f"unix:{Path(folder) / 'wake.sock'}"
        listener = WakeListener(address)
        sender = Sender(parse_wake_address(address))
        for _ in range(200):
            for _ in range(5):  # fewer than the buffer holds
                started = time.perf_counter()
                sender.send()
                costs.append((time.perf_counter() - started) * 1e6)
            listener._take(listener._sockets[0], lambda _: None)
        listener.close()
    return statistics.median(costs)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rate", type=int, default=200)
    parser.add_argument("--seconds", type=int, default=20)
    arguments = parser.parse_args()
    count = WARM_UP + arguments.rate * arguments.seconds
    print(
        f"outbox-relay {outbox_relay.__version__} · Python {platform.python_version()} · "
        f"{os.cpu_count()} cores shared by all · {time.strftime('%Y-%m-%d')}\n"
        f"{arguments.rate} events/s, commit to consumer, ms\n"
    )
    print("  ".join(f"{title:>10}" for title in ("", "p50", "p90", "p99", "max", "events")))
    with MariaDB() as mariadb, Kafka(heap="512m") as kafka:
        for kind in ("poll", "hint", "standby"):
            found = sorted(run(kind, mariadb, kafka, arguments.rate, count))
            quantiles = [found[int(len(found) * q)] for q in (0.5, 0.9, 0.99)] + [found[-1]]
            cells = [kind, *(f"{value:.1f}" for value in quantiles), f"{len(found)}"]
            print("  ".join(f"{cell:>10}" for cell in cells), flush=True)
    print(f"\na hint costs the writer {hint_cost_us():.1f} µs")


if __name__ == "__main__":
    main()
