"""
What the tests of `outbox-relay audit` stand on: a table and topics that a real relay filled.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from typer.testing import CliRunner, Result

from outbox_relay.cli.app import app
from outbox_relay.config import load_config
from outbox_relay.migrate import migrate
from outbox_relay.schema import tables
from outbox_relay.store.options import DatabaseOptions
from outbox_relay.wiring import build_observer, build_producer
from tests.services.database import Database
from tests.services.kafka import Kafka, Record

ROOT = Path(__file__).parents[2]
SECONDS = 120


@dataclass
class Shop:
    """An outbox, a broker, and the commands over both."""

    folder: Path
    database: Database
    kafka: Kafka
    topic: str
    settings: str = ""

    def __post_init__(self) -> None:
        migrate(DatabaseOptions(url=self.database.async_url))
        self.engine = sa.create_engine(self.database.sync_url)
        self.outbox = tables().outbox
        (self.folder / "config.toml").write_text(
            f'[database]\nurl = "{self.database.async_url}"\n'
            f'[kafka]\nbootstrap_servers = "{self.kafka.bootstrap_servers}"\n'
            f'[http]\nenabled = false\n[log]\nformat = "json"\n{self.settings}',
            encoding="utf-8",
        )

    def write(self, *keys: str | None, topic: str = "", **columns: Any) -> list[int]:
        """One event for each of *keys*, committed; their ids."""
        ids = []
        with self.engine.begin() as connection:
            for key in keys:
                row = {
                    "event_name": "order.placed",
                    "topic": topic or self.topic,
                    "key": None if key is None else key.encode(),
                    "payload": b"{}",
                    **columns,
                }
                done = connection.execute(sa.insert(self.outbox).values(row))
                ids.append(done.inserted_primary_key[0])
        return ids

    def write_many(self, count: int) -> None:
        """So many events of 50 keys, in one statement."""
        row = {"event_name": "order.placed", "topic": self.topic, "payload": b"{}"}
        with self.engine.begin() as connection:
            connection.execute(
                sa.insert(self.outbox), [{**row, "key": b"k%d" % (n % 50)} for n in range(count)]
            )

    def change(self, *ids: int, **columns: Any) -> None:
        """Set columns of these rows."""
        with self.engine.begin() as connection:
            connection.execute(
                sa.update(self.outbox).where(self.outbox.c.id.in_(ids)).values(**columns)
            )

    def delete(self, *ids: int) -> None:
        """Remove these rows."""
        with self.engine.begin() as connection:
            connection.execute(sa.delete(self.outbox).where(self.outbox.c.id.in_(ids)))

    def event_ids(self, *ids: int) -> list[str]:
        """Of these rows."""
        c = self.outbox.c
        with self.engine.begin() as connection:
            found = dict(connection.execute(sa.select(c.id, c.event_id).where(c.id.in_(ids))).all())
        return [str(found[row_id]) for row_id in ids]

    def arguments(self, *words: str) -> list[str]:
        """A command over this shop."""
        return [sys.executable, "-m", "outbox_relay", *words]

    @property
    def environment(self) -> dict[str, str]:
        """Of its commands."""
        clean = {name: value for name, value in os.environ.items() if "OUTBOX_RELAY" not in name}
        return clean | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command."""
        return subprocess.run(
            self.arguments(*words),
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    def relay(self) -> None:
        """Publish what is pending, by a relay in this process."""
        config = load_config(self.folder / "config.toml", {})

        async def run() -> None:
            await build_producer(config, build_observer(config)).run(until_empty=True)

        asyncio.run(run())

    def quickly(self, *words: str) -> Result:
        """A command in this process."""
        environ = {"OUTBOX_RELAY_CONFIG": str(self.folder / "config.toml"), "COLUMNS": "200"}
        return CliRunner().invoke(app, words, env=environ)

    def audit(self, *words: str, settle: float = 0.0) -> dict[str, Any]:
        """The report. The exit code says the same."""
        done = self.quickly("audit", "--json", "--settle", str(settle), *words)
        assert done.stdout, done.stderr
        report: dict[str, Any] = json.loads(done.stdout)
        assert done.exit_code == (0 if report["clean"] else 4)
        return report

    def publish(
        self, records: Sequence[Record], *, topic: str = "", partition: int | None = None
    ) -> None:
        """Put *records* on the topic, as they are."""
        producer = Producer({"bootstrap.servers": self.kafka.bootstrap_servers})
        for record in records:
            producer.produce(
                topic or self.topic,
                key=record.key,
                value=record.value,
                headers=list(record.headers.items()),
                partition=record.partition if partition is None else partition,
                timestamp=record.timestamp,
            )
        assert producer.flush(30) == 0

    def record_of(self, row_id: int) -> Record:
        """The record of a row."""
        wanted = str(row_id).encode()
        found = self.kafka.consume_all(self.topic)
        return next(record for record in found if record.headers.get("outbox-seq") == wanted)

    def remove_before(self, offset: int, *, partition: int = 0) -> None:
        """What retention does: records in front of *offset* are gone."""
        admin = AdminClient({"bootstrap.servers": self.kafka.bootstrap_servers})
        for done in admin.delete_records([TopicPartition(self.topic, partition, offset)]).values():
            done.result(30)


def found_ids(report: dict[str, Any], kind: str) -> list[int]:
    """The ids of rows that were found."""
    return [finding["outbox_seq"] for finding in report["findings"][kind]]


NewShop = Callable[..., Shop]


@pytest.fixture
def server() -> str:
    """Where nothing depends on it."""
    return "mariadb"


@pytest.fixture
def new_shop(
    request: pytest.FixtureRequest, server: str, tmp_path: Path, kafka: Kafka, topic_name: str
) -> NewShop:
    """Makes a shop with its topic, on the database that `server` names."""

    def make(*, partitions: int = 2, settings: str = "", **config: str) -> Shop:
        kafka.create_topic(topic_name, partitions=partitions, config=config)
        database = request.getfixturevalue(f"{server}_database")
        return Shop(tmp_path, database, kafka, topic_name, settings)

    return make
