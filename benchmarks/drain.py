"""
How fast a backlog drains: real MariaDB (durable, row binlog) and real Kafka, one relay process.

    python -m benchmarks.drain [--rows 200000] [--runs 3] [--retention-seconds 0]

Fills the outbox first, then runs ``outbox-relay``'s own EventProducer in a process of its own until
the table is empty. Prints rows a second from the first read to the last mark, the relay's CPU and
peak memory, the database's and the broker's CPU a row, and checks what a consumer finds on the
topic: every event once, in order within each key. ``--retention-seconds 0`` deletes each row on its
ack instead of marking it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import random
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pymysql
import sqlalchemy as sa

import outbox_relay
from outbox_relay.relay.options import RelayOptions
from outbox_relay.schema import tables
from tests.services.kafka import Kafka
from tests.services.mariadb import MariaDB

PARTITIONS = 16
KEYS = 5000
PAYLOAD_BYTES = 600


@dataclass(frozen=True, slots=True)
class Result:
    """One drain."""

    rows: int
    seconds: float
    relay_cpu_us: float
    relay_peak_mb: float
    database_cpu_us: float
    broker_cpu_us: float
    duplicates: int
    missing: int
    inversions: int


def payload(number: int) -> bytes:
    """JSON of about 600 bytes that zlib halves, as an order might look."""
    rng = random.Random(number)
    body: dict[str, Any] = {
        "order_id": number,
        "customer": f"customer-{number % KEYS}",
        "lines": [],
    }
    while len(json.dumps(body)) < PAYLOAD_BYTES - 40:
        body["lines"].append(
            {"sku": f"{rng.getrandbits(40):010x}", "quantity": rng.randint(1, 9), "price": "19.90"}
        )
    return json.dumps(body).encode()


def fill(database: Any, topic: str, rows: int) -> None:
    """Insert *rows* pending events, keys in random order."""
    rng = random.Random(1)
    headers = json.dumps({"ce_source": "/bench"})
    blobs = [zlib.compress(payload(n)) for n in range(2000)]
    connection = pymysql.connect(
        host="127.0.0.1", port=database.port, user="ob", password="ob", database=database.name
    )
    with connection, connection.cursor() as cursor:
        for start in range(0, rows, 1000):
            cursor.executemany(
                f"INSERT INTO outbox (event_id, event_name, topic, `key`, headers, payload, codec) "
                f"VALUES (%s, 'order.placed', '{topic}', %s, '{headers}', %s, 1)",
                [
                    (rng.randbytes(16), b"customer-%d" % rng.randrange(KEYS), blobs[n % 2000])
                    for n in range(start, min(start + 1000, rows))
                ],
            )
            connection.commit()


def relay(url: str, bootstrap: str, retention_seconds: float, queue: Any) -> None:
    """The process under measurement."""
    from outbox_relay.brokers.kafka import KafkaBroker
    from outbox_relay.brokers.options import KafkaOptions
    from outbox_relay.relay.options import RelayOptions
    from outbox_relay.relay.producer import EventProducer
    from outbox_relay.store import DatabaseOptions, open_store
    from outbox_relay.wiring import run_loop

    async def run() -> tuple[float, float]:
        producer = EventProducer(
            open_store(DatabaseOptions(url=url)),
            KafkaBroker(KafkaOptions(bootstrap_servers=bootstrap)),
            options=RelayOptions(retention_seconds=retention_seconds),
        )
        started, cpu = time.perf_counter(), time.process_time()
        await producer.run(until_empty=True)
        return time.perf_counter() - started, time.process_time() - cpu

    if profile := os.environ.get("PROFILE"):
        import cProfile

        with cProfile.Profile() as profiler:
            seconds, cpu = run_loop(run())
        profiler.dump_stats(profile)
    else:
        seconds, cpu = run_loop(run())
    queue.put((seconds, cpu, peak_mb()))


def peak_mb() -> float:
    """Largest resident memory of this process; ru_maxrss would count its parent's."""
    with Path("/proc/self/status").open() as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    with Path(f"/proc/{pid}/stat").open() as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def drain(
    mariadb: MariaDB, kafka: Kafka, rows: int, run: int, *, retention_seconds: float
) -> Result:
    """Fill, drain, count."""
    topic = f"bench-{run}"
    kafka.create_topic(topic, partitions=PARTITIONS)
    database = mariadb.create_database()
    engine = sa.create_engine(database.sync_url)
    outbox = tables()
    outbox.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(outbox.version.insert().values(version=2, min_reader=1))
        connection.execute(outbox.lease.insert(), [{"lane": lane} for lane in range(128)])
    database_port = _Port(mariadb.port, database.name)
    fill(database_port, topic, rows)
    before = cpu_seconds(mariadb.pid), cpu_seconds(kafka.pid)
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(
        target=relay,
        args=(database.async_url, kafka.bootstrap_servers, retention_seconds, queue),
    )
    process.start()
    seconds, cpu, peak = queue.get(timeout=600)
    process.join()
    after = cpu_seconds(mariadb.pid), cpu_seconds(kafka.pid)
    with engine.begin() as connection:
        left = connection.execute(
            sa.text("SELECT COUNT(*) FROM outbox WHERE status <> 1")
        ).scalar_one()
        connection.execute(sa.text("DROP TABLE outbox"))
    duplicates, missing, inversions = account(kafka, topic, rows)
    return Result(
        rows=rows,
        seconds=seconds,
        relay_cpu_us=cpu / rows * 1e6,
        relay_peak_mb=peak,
        database_cpu_us=(after[0] - before[0]) / rows * 1e6,
        broker_cpu_us=(after[1] - before[1]) / rows * 1e6,
        duplicates=duplicates,
        missing=missing + left,
        inversions=inversions,
    )


@dataclass(frozen=True, slots=True)
class _Port:
    port: int
    name: str


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


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--retention-seconds", type=float, default=RelayOptions().retention_seconds)
    arguments = parser.parse_args()
    how = "status marked" if arguments.retention_seconds else "deleted on the ack"
    mariadb_args = ["--innodb-buffer-pool-size=2G", "--innodb-log-file-size=1G"]
    print(
        f"outbox-relay {outbox_relay.__version__} · Python {platform.python_version()} · "
        f"{os.cpu_count()} cores shared by all · {time.strftime('%Y-%m-%d')}\n"
        f"{arguments.rows} rows, {PAYLOAD_BYTES} B payloads (zlib), {KEYS} keys, "
        f"{PARTITIONS} partitions, {how}\n"
    )
    head = (
        "rows/s",
        "relay µs/row",
        "peak MB",
        "MariaDB µs/row",
        "Kafka µs/row",
        "dup",
        "lost",
        "inv",
    )
    print("  ".join(f"{title:>14}" for title in head))
    with MariaDB(extra_args=mariadb_args) as mariadb, Kafka(heap="1g") as kafka:
        for run in range(arguments.runs):
            r = drain(
                mariadb,
                kafka,
                arguments.rows,
                run,
                retention_seconds=arguments.retention_seconds,
            )
            cells = (
                f"{r.rows / r.seconds:,.0f}",
                f"{r.relay_cpu_us:.1f}",
                f"{r.relay_peak_mb:.0f}",
                f"{r.database_cpu_us:.1f}",
                f"{r.broker_cpu_us:.1f}",
                f"{r.duplicates}",
                f"{r.missing}",
                f"{r.inversions}",
            )
            print("  ".join(f"{cell:>14}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
