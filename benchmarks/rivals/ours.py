"""
outbox-relay as one of the relays measured side by side.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from benchmarks.rivals.rows import keys, value
from benchmarks.rivals.subject import Subject, Writer, insert_all
from outbox_relay import Outbox
from outbox_relay.schema import tables
from tests.services.database import Database
from tests.services.kafka import Kafka
from tests.services.mariadb import MariaDB

SPAWN = multiprocessing.get_context("spawn")
WAIT_SECONDS = 120


def relay(url: str, bootstrap: str, wake: str, steps: dict[str, Any]) -> None:
    """The relay's process: default settings; goes on `go`, ends its work on `stop`, leaves last."""
    import asyncio

    from outbox_relay.brokers.kafka import KafkaBroker
    from outbox_relay.brokers.options import KafkaOptions
    from outbox_relay.relay.options import RelayOptions
    from outbox_relay.relay.producer import EventProducer
    from outbox_relay.store import DatabaseOptions, open_store
    from outbox_relay.wake_listener import WakeListener
    from outbox_relay.wiring import run_loop

    async def run(*, until_empty: bool) -> None:
        producer = EventProducer(
            open_store(DatabaseOptions(url=url)),
            KafkaBroker(KafkaOptions(bootstrap_servers=bootstrap)),
            options=RelayOptions(wake_address=wake),
            wake=WakeListener(wake) if wake else None,
        )
        working = asyncio.create_task(producer.run(until_empty=until_empty))
        if not until_empty:
            await asyncio.to_thread(steps["stop"].wait)
            producer.stop()
        await working

    steps["ready"].set()
    until_empty = steps["go"].get()
    run_loop(run(until_empty=until_empty))
    steps["done"].set()
    steps["stop"].wait()


class Ours(Subject):
    """outbox-relay with its defaults; a fresh table for each work."""

    name = "outbox-relay"

    def __init__(self, mariadb: MariaDB, kafka: Kafka, *, hints: bool = False) -> None:
        super().__init__(mariadb, kafka)
        self.settings = {"rows after the ack": "marked, kept for 7 days (the default)"}
        self._hints = hints
        if hints:
            self.name += " with hints"
            self.settings |= {
                "relay.wake_address": "a UNIX socket",
                "Outbox(wake=...)": "the same",
            }
        self._wake = ""
        self._database: Database | None = None
        self._process: Any = None
        self._steps: dict[str, Any] = {}

    @contextmanager
    def running(self) -> Iterator[None]:
        """The folder of the socket."""
        with tempfile.TemporaryDirectory() as folder:
            self._wake = f"unix:{folder}/wake.sock" if self._hints else ""
            yield
            self.hold()

    def prepare(self, work: str) -> None:
        """A new table, and a process that has imported everything and waits."""
        self._database = self.mariadb.create_database()
        engine = sa.create_engine(self._database.sync_url)
        outbox = tables()
        outbox.metadata.create_all(engine)
        with engine.begin() as connection:
            connection.execute(outbox.version.insert().values(version=1, min_reader=1))
            connection.execute(outbox.lease.insert(), [{"lane": lane} for lane in range(64)])
        engine.dispose()
        self._start()

    def _start(self) -> None:
        assert self._database is not None
        self._steps = {name: SPAWN.Event() for name in ("ready", "done", "stop")}
        self._steps["go"] = SPAWN.Queue()
        bootstrap = self.kafka.bootstrap_servers
        self._process = SPAWN.Process(
            target=relay,
            args=(self._database.async_url, bootstrap, self._wake, self._steps),
            daemon=True,
        )
        self._process.start()
        assert self._steps["ready"].wait(WAIT_SECONDS)

    def fill(self, work: str, rows: int) -> None:
        """Payloads compressed, as the library writes them."""
        assert self._database is not None
        rng = random.Random(2)
        chosen = keys(rows)
        headers = json.dumps({"ce_source": "/bench"})
        insert_all(
            self._database,
            "INSERT INTO outbox (event_id, event_name, topic, `key`, headers, payload, codec) "
            f"VALUES (%s, 'order.placed', '{work}', %s, '{headers}', %s, 1)",
            rows,
            lambda n: (rng.randbytes(16), chosen[n].encode(), zlib.compress(value(n))),
        )

    def release(self, *, until_empty: bool) -> None:
        """The process begins to work."""
        self._steps["go"].put(until_empty)

    def finish(self) -> None:
        """All rows are marked."""
        assert self._steps["done"].wait(WAIT_SECONDS)

    def hold(self) -> None:
        """The process ends."""
        if self._process is not None:
            self._steps["stop"].set()
            self._process.join(WAIT_SECONDS)
            self._process = None

    def connection_url(self) -> str:
        """The application's database."""
        assert self._database is not None
        return self._database.sync_url

    def writer(self, work: str) -> Writer:
        """With the library."""
        outbox = Outbox(wake=self._wake or None)
        return lambda connection, number: outbox.add(
            connection, b"%d" % number, name="n", topic=work, key=number % 100
        )

    @property
    def pid(self) -> int:
        """The child."""
        pid = self._process.pid
        assert pid is not None
        return int(pid)
