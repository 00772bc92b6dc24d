"""
One audit of a large table and its topic, in which a few events of each kind are planted.

The table is filled by the server with produced rows, the topic by the relay's own encoder and broker. The
audit is the command itself, in a process of its own; its log says when each part of it began.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.child import memory_mb
from benchmarks.orders import CUSTOMERS, EVENT_NAME, PARTITIONS
from benchmarks.programs import cpu_seconds
from benchmarks.rows import CHUNK_ROWS, HEADERS
from benchmarks.servers import Servers
from benchmarks.topic import fresh_topic
from outbox_relay.brokers.kafka import KafkaBroker
from outbox_relay.brokers.options import KafkaOptions
from outbox_relay.relay.envelope import make_encoder
from outbox_relay.relay.outcomes import Acked
from outbox_relay.relay.partitioning import KeyPartitions
from outbox_relay.relay.ports import Record, Row
from outbox_relay.relay.wire import WireOptions

PAYLOAD: Final = b"x" * 200
PLANTED: Final = 5
"""Of each kind."""

BATCH: Final = 1000
EVENT_US: Final = 1500
"""Between two events, so that ten million fit into the relay's retention."""

ROOT: Final = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Found:
    """What one audit took, and what it found."""

    events: int
    seconds: float
    cpu_seconds: float
    peak_mb: float
    disk_mb: float
    phases: dict[str, float]
    found: dict[str, int]

    def text(self) -> str:
        """For people."""
        phases = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in self.phases.items())
        return (
            f"{self.events:,} events in {self.seconds:.0f} s ({phases}), {self.cpu_seconds:.0f} s of "
            f"CPU, {self.peak_mb:.0f} MB at most, {self.disk_mb:,.0f} MB on disk; found {self.found}"
        )


def measure(servers: Servers, *, rows: int) -> Found:
    """Fill, plant, audit."""
    name = servers.database.create_outbox()
    topic = fresh_topic(servers.kafka)
    first_us = int((time.time() - rows * EVENT_US / 1e6 - 3600) * 1e6)
    started = time.monotonic()
    fill_table(servers, name.name, topic, rows, first_us)
    print(f"table filled in {time.monotonic() - started:.0f} s", flush=True)
    started = time.monotonic()
    asyncio.run(fill_topic(servers, topic, rows, first_us))
    print(f"topic filled in {time.monotonic() - started:.0f} s", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        found = run_audit(Path(folder), servers, name.async_url, rows)
    servers.database.drop(name.name)
    return found


def event_id(number: int) -> bytes:
    """The id of an event: at random, and known to both sides."""
    return hashlib.md5(b"%d" % number, usedforsecurity=False).digest()


def fill_table(servers: Servers, database: str, topic: str, rows: int, first_us: int) -> None:
    """Produced rows, numbered from 1, made by the server."""
    first = datetime.fromtimestamp(first_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
    at = f"'{first}' + INTERVAL seq * {EVENT_US} MICROSECOND"
    with servers.database.connect(database) as connection, connection.cursor() as cursor:
        for start in range(1, rows + 1, CHUNK_ROWS):
            cursor.execute(
                "INSERT INTO outbox (id, event_id, event_name, topic, `key`, headers, payload, status, "
                f"created_at, produced_at) SELECT seq, UNHEX(MD5(seq)), '{EVENT_NAME}', '{topic}', "
                f"CONCAT('customer-', seq % {CUSTOMERS}), '{HEADERS}', REPEAT('x', {len(PAYLOAD)}), 1, "
                f"{at}, {at} + INTERVAL 50000 MICROSECOND "
                f"FROM seq_{start}_to_{min(start + CHUNK_ROWS - 1, rows)}"
            )


async def fill_topic(servers: Servers, topic: str, rows: int, first_us: int) -> None:
    """The records of these rows, with what is planted."""
    broker = KafkaBroker(KafkaOptions(bootstrap_servers=servers.kafka.bootstrap_servers))
    waiting: list[list[Record]] = [[] for _ in range(PARTITIONS)]
    partition_of = KeyPartitions(PARTITIONS)
    await broker.partitions(topic)
    for record in records(rows, first_us):
        assert record.key is not None
        partition = partition_of[record.key]
        waiting[partition].append(record)
        if len(waiting[partition]) >= BATCH:
            await flush(broker, topic, waiting)
    await flush(broker, topic, waiting)
    await broker.close(timeout_seconds=5.0)


async def flush(broker: KafkaBroker, topic: str, waiting: list[list[Record]]) -> None:
    """Publish what waits, a batch of each partition."""
    for outcome in await asyncio.gather(
        *(broker.publish(topic, part, batch) for part, batch in enumerate(waiting) if batch)
    ):
        assert isinstance(outcome, Acked), outcome
    for batch in waiting:
        batch.clear()


def records(rows: int, first_us: int) -> Iterator[Record]:
    """In order, but for what is planted: at five places each a loss, a duplicate, an inversion, a ghost."""
    encoder = make_encoder(WireOptions(), max_payload_bytes=1 << 20)

    def record(number: int, event: bytes) -> Record:
        key = b"customer-%d" % (number % CUSTOMERS)
        made = Row(
            number, "", key, PAYLOAD, len(PAYLOAD), 0, HEADERS, event, EVENT_NAME,
            "application/json", first_us + number * EVENT_US, None, 0,
        )  # fmt: skip
        return encoder.record(made)

    step = rows // PLANTED
    held: dict[int, Record] = {}
    for number in range(1, rows + 1):
        place = number % step
        if place == 11:
            continue
        if place == 33:
            held[number + CUSTOMERS] = record(number, event_id(number))
            continue
        yield record(number, event_id(number))
        if place == 22:
            yield record(number, event_id(number))
        if place == 44:
            yield record(number, event_id(-number))
        if number in held:
            yield held.pop(number)


def run_audit(folder: Path, servers: Servers, url: str, rows: int) -> Found:
    """The command, watched."""
    work = folder / "audit.db"
    (folder / "config.toml").write_text(
        f'[database]\nurl = "{url}"\n[kafka]\n'
        f'bootstrap_servers = "{servers.kafka.bootstrap_servers}"\n[log]\nformat = "json"\n'
    )
    words = ["audit", "--json", "--work", str(work), "--settle", "0"]
    started = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-m", "outbox_relay", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        os.set_blocking(process.stderr.fileno(), False)
        watch = Watch()
        while process.poll() is None:
            watch.look(process.pid, process.stderr.readlines(), folder)
            time.sleep(0.2)
        watch.look(process.pid, process.stderr.readlines(), folder)
        said = process.stdout.read()
        if not said:
            raise RuntimeError(f"the audit ended with {process.returncode}: {watch.last_line}")
        report: dict[str, Any] = json.loads(said)
    return Found(
        events=rows,
        seconds=time.monotonic() - started,
        cpu_seconds=watch.cpu,
        peak_mb=watch.peak_mb,
        disk_mb=watch.disk_mb,
        phases=watch.phases(),
        found=report["found"],
    )


class Watch:
    """What is seen of the process while it runs."""

    def __init__(self) -> None:
        self.cpu = self.peak_mb = self.disk_mb = 0.0
        self.last_line = ""
        self._began: list[tuple[str, float]] = []

    def look(self, pid: int, lines: list[str], folder: Path) -> None:
        """Once more."""
        try:
            self.cpu = cpu_seconds(pid)
            self.peak_mb = memory_mb("VmHWM", pid)
        except (OSError, StopIteration):
            pass  # it has just ended
        size = sum(path.stat().st_size for path in folder.iterdir() if path.exists())
        self.disk_mb = max(self.disk_mb, size / 2**20)
        for line in lines:
            self.last_line = line
            phase = json.loads(line).get("phase") if line.startswith("{") else None
            if phase and phase not in [name for name, _ in self._began]:
                self._began.append((phase, time.monotonic()))

    def phases(self) -> dict[str, float]:
        """Seconds of each part."""
        ends = [*(at for _, at in self._began[1:]), time.monotonic()]
        return {name: end - at for (name, at), end in zip(self._began, ends, strict=True)}
