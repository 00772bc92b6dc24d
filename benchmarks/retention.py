"""
What a purge costs: real MariaDB (durable, row binlog) and real Kafka, one relay, writers beside it.

    python -m benchmarks.retention [--rows 1000000] [--ten-million] [--writes-per-second 200]

Fills the table with old produced rows and lets writers insert one event a transaction. First the
purge is paused, then it goes on until the last old row is gone. Prints rows purged a second, the
slowest statement, the writers' commit times and the time from created to acked in both phases, how
often anybody waited for a row lock, and CPU a purged row; and checks that nothing else was deleted.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import platform
import threading
import time
from typing import Any

import pymysql

import outbox_relay
from benchmarks.programs import cpu_seconds
from outbox_relay.migrate import migrate
from outbox_relay.relay.watching import Silent
from outbox_relay.store.options import DatabaseOptions
from tests.services.kafka import Kafka
from tests.services.mariadb import MariaDB

TOPIC = "bench-retention"
PAYLOAD_BYTES = 330
PAUSED_SECONDS = 10.0
FILL_ROWS = 100_000
RETENTION_SECONDS = 86_400.0
WRITERS = 2


class Watch(Silent):
    """Keeps what the relay's process tells of the purge and of latencies."""

    def __init__(self) -> None:
        self.rows = 0
        self.slowest = 0.0
        self.failures = 0
        self.latencies: list[tuple[float, float]] = []

    def log(self, event: str, **fields: object) -> None:
        """Count what must not happen."""
        self.failures += event.endswith("_failed")

    def purged(self, kind: str, rows: int) -> None:
        """Count rows."""
        self.rows += rows

    def timed(self, operation: str, seconds: float) -> None:
        """Keep the slowest statement."""
        if operation == "purge":
            self.slowest = max(self.slowest, seconds)

    def latency(self, seconds: float, rows: int) -> None:
        """Keep when and how long."""
        self.latencies.append((time.time(), seconds))


def relay(url: str, bootstrap: str, pipe: Any) -> None:
    """The relay's process: runs until told to stop, then says what it saw."""
    from outbox_relay.brokers.kafka import KafkaBroker
    from outbox_relay.brokers.options import KafkaOptions
    from outbox_relay.relay.options import RelayOptions
    from outbox_relay.relay.producer import EventProducer
    from outbox_relay.store import open_store
    from outbox_relay.wiring import run_loop

    watch = Watch()

    async def run() -> None:
        producer = EventProducer(
            open_store(DatabaseOptions(url=url)),
            KafkaBroker(KafkaOptions(bootstrap_servers=bootstrap)),
            options=RelayOptions(retention_seconds=RETENTION_SECONDS),
            observer=watch,
        )
        asyncio.get_running_loop().add_reader(pipe.fileno(), producer.stop)
        await producer.run()

    run_loop(run())
    # The loop left it so; what is sent now may be more than fits at once.
    os.set_blocking(pipe.fileno(), True)
    pipe.recv()
    pipe.send((watch.rows, watch.slowest, watch.failures, watch.latencies))


class Writers:
    """Applications that insert one event in a transaction, so many a second."""

    def __init__(self, port: int, database: str, *, a_second: float) -> None:
        self._address = (port, database)
        self._every = WRITERS / a_second
        self._end = threading.Event()
        self.commits: list[tuple[float, float]] = []
        self._threads = [threading.Thread(target=self._write, args=(n,)) for n in range(WRITERS)]
        for thread in self._threads:
            thread.start()

    def _write(self, number: int) -> None:
        port, database = self._address
        connection = pymysql.connect(
            host="127.0.0.1", port=port, user="ob", password="ob", database=database
        )
        due = time.monotonic()
        with connection, connection.cursor() as cursor:
            while not self._end.wait(max(0.0, due - time.monotonic())):
                due += self._every
                started = time.perf_counter()
                cursor.execute(
                    "INSERT INTO outbox (event_name, topic, `key`, payload) "
                    f"VALUES ('order.placed', '{TOPIC}', 'key-{number}', %s)",
                    (b"x" * PAYLOAD_BYTES,),
                )
                connection.commit()
                self.commits.append((time.time(), time.perf_counter() - started))

    def end(self) -> None:
        """Let them finish."""
        self._end.set()
        for thread in self._threads:
            thread.join()


def fill(connection: Any, rows: int) -> None:
    """Old produced rows, in the shape of the drain's."""
    with connection.cursor() as cursor:
        for start in range(0, rows, FILL_ROWS):
            cursor.execute(
                "INSERT INTO outbox (event_name, topic, `key`, headers, payload, codec, status, "
                "produced_at) SELECT 'order.placed', 'earlier', CONCAT('customer-', seq %% 5000), "
                "'{\"ce_source\": \"/bench\"}', RANDOM_BYTES(%s), 1, 1, '2000-01-01' "
                "FROM seq_1_to_%s",
                (PAYLOAD_BYTES, min(FILL_ROWS, rows - start)),
            )


def account(kafka: Kafka, topic: str, rows: int) -> tuple[int, int, int]:
    """Duplicates, missing events and inversions within a key, as a consumer finds them."""
    seen: set[int] = set()
    last: dict[bytes | None, int] = {}
    duplicates = inversions = 0
    for record in kafka.consume_all(topic):
        seq = int(record.headers["outbox-seq"])
        if seq in seen:
            duplicates += 1
            continue
        seen.add(seq)
        inversions += seq < last.get(record.key, 0)
        last[record.key] = max(seq, last.get(record.key, 0))
    return duplicates, rows - len(seen), inversions


def summary(pairs: list[tuple[float, float]], first: float, last: float) -> str:
    """Median, 99th percentile and maximum in ms of what happened between two times."""
    values = sorted(seconds * 1000 for at, seconds in pairs if first <= at <= last)
    if not values:
        return "none"
    p99 = values[min(len(values) - 1, int(len(values) * 0.99))]
    return f"{values[len(values) // 2]:.1f} / {p99:.1f} / {values[-1]:.1f}"


def one(connection: Any, sql: str) -> int:
    """A number; the second column of SHOW STATUS."""
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return int(cursor.fetchone()[-1] or 0)


def measure(mariadb: MariaDB, kafka: Kafka, rows: int, a_second: float) -> None:
    """Fill, write, pause, purge, count, print."""
    kafka.create_topic(TOPIC, partitions=16)
    database = mariadb.create_database()
    migrate(DatabaseOptions(url=database.async_url))
    root = mariadb.root_connection(database.name)
    # One that waits longer than others do for an answer: to fill takes a while.
    filling = pymysql.connect(
        unix_socket=str(mariadb.socket), user="root", database=database.name, autocommit=True
    )
    with filling:
        fill(filling, rows)
    with root.cursor() as cursor:
        cursor.execute("INSERT INTO outbox_control (topic) VALUES ('@purge')")
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=relay, args=(database.async_url, kafka.bootstrap_servers, theirs)
    )
    process.start()
    writers = Writers(mariadb.port, database.name, a_second=a_second)
    while not one(root, "SELECT COUNT(*) FROM outbox WHERE status = 1 AND topic <> 'earlier'"):
        time.sleep(0.1)
    paused_at, cpu = time.time(), _cpu(mariadb, process)
    time.sleep(PAUSED_SECONDS)
    quiet = [b - a for a, b in zip(cpu, _cpu(mariadb, process), strict=True)]
    waits = one(root, "SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_waits'")
    with root.cursor() as cursor:
        cursor.execute("DELETE FROM outbox_control")
    started_at, before = time.time(), _cpu(mariadb, process)
    while one(root, "SELECT EXISTS (SELECT 1 FROM outbox WHERE topic = 'earlier')"):
        time.sleep(0.5)
    ended_at, after = time.time(), _cpu(mariadb, process)
    waits = one(root, "SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_waits'") - waits
    writers.end()
    while one(root, "SELECT COUNT(*) FROM outbox WHERE status = 0"):
        time.sleep(0.1)
    ours.send("stop")
    purged, slowest, failures, latencies = ours.recv()
    process.join()
    seconds = ended_at - started_at
    share = seconds / PAUSED_SECONDS
    spent = [(b - a - q * share) / rows * 1e6 for a, b, q in zip(before, after, quiet, strict=True)]
    kept = one(root, "SELECT COUNT(*) FROM outbox WHERE status = 1")
    duplicates, missing, inversions = account(kafka, TOPIC, len(writers.commits))
    for name, value in (
        ("old rows purged", f"{purged:,} of {rows:,} in {seconds:.1f} s"),
        ("rows purged a second", f"{rows / seconds:,.0f}"),
        ("slowest statement of the purge", f"{slowest * 1000:.0f} ms, {failures} failures"),
        ("row lock waits of anybody", f"{waits}"),
        ("MariaDB, relay, CPU µs a purged row", f"{spent[0]:.1f}, {spent[1]:.1f}"),
        ("commit, paused, p50/p99/max ms", summary(writers.commits, paused_at, started_at)),
        ("commit, purging, p50/p99/max ms", summary(writers.commits, started_at, ended_at)),
        ("created to acked, paused, ms", summary(latencies, paused_at, started_at)),
        ("created to acked, purging, ms", summary(latencies, started_at, ended_at)),
        ("events written, kept", f"{len(writers.commits):,}, {kept:,}"),
        ("duplicated, lost, inverted", f"{duplicates}, {missing}, {inversions}"),
    ):
        print(f"{name:<38}{value}", flush=True)


def _cpu(mariadb: MariaDB, process: Any) -> list[float]:
    return [cpu_seconds(mariadb.pid), cpu_seconds(process.pid)]


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--ten-million", action="store_true", help="10,000,000 rows")
    parser.add_argument("--writes-per-second", type=float, default=200.0)
    arguments = parser.parse_args()
    rows = 10_000_000 if arguments.ten_million else arguments.rows
    print(
        f"outbox-relay {outbox_relay.__version__} · Python {platform.python_version()} · "
        f"{os.cpu_count()} cores shared by all · {time.strftime('%Y-%m-%d')}\n"
        f"{rows:,} old produced rows, {arguments.writes_per_second:g} transactions a second beside them\n"
    )
    mariadb_args = ["--innodb-buffer-pool-size=2G", "--innodb-log-file-size=1G"]
    with MariaDB(extra_args=mariadb_args) as mariadb, Kafka(heap="1g") as kafka:
        measure(mariadb, kafka, rows, arguments.writes_per_second)


if __name__ == "__main__":
    main()
