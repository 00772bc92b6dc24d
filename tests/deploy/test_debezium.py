"""
deploy/debezium: Debezium's EventRouter over the outbox table, on a real Kafka Connect.
"""

from __future__ import annotations

import json
import time
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from benchmarks.rivals.debezium import Connect
from outbox_relay import NotificationEvent, Outbox
from outbox_relay.migrate import migrate
from outbox_relay.store import DatabaseOptions
from tests.integration.guide_programs import imported
from tests.services.database import Database
from tests.services.kafka import Kafka, Record
from tests.services.mariadb import MariaDB
from tests.services.process import MissingPartError

DEPLOY = Path(__file__).resolve().parents[2] / "deploy" / "debezium"
WAIT_SECONDS = 90.0
KEYS = 5


class Placed(NotificationEvent, name="order.placed", topic="orders", key="order_id"):
    order_id: int
    number: int
    note: str = ""


@pytest.fixture
def connect(kafka: Kafka) -> Iterator[Connect]:
    """A Connect worker."""
    try:
        worker = Connect(kafka)
    except MissingPartError as missing:
        pytest.skip(str(missing))
    with worker:
        yield worker


@pytest.fixture
def engine(mariadb: MariaDB, mariadb_database: Database) -> Iterator[sa.Engine]:
    """The shop's database, with the tables and what mariadb.sql adds to them."""
    migrate(DatabaseOptions(url=mariadb_database.async_url))
    script = (DEPLOY / "mariadb.sql").read_text().replace("shop.", f"{mariadb_database.name}.")
    with mariadb.root_connection() as root, root.cursor() as cursor:
        for statement in filter(str.strip, script.split(";\n")):
            cursor.execute(statement)
    engine = sa.create_engine(mariadb_database.sync_url)
    yield engine
    engine.dispose()


def connector(mariadb: MariaDB, database: Database, kafka: Kafka) -> dict[str, Any]:
    """deploy/debezium/mariadb.json; only addresses and names are this test's."""
    text = (DEPLOY / "mariadb.json").read_text().replace("shop.outbox", f"{database.name}.outbox")
    wanted = json.loads(text)
    wanted["config"] |= {
        "database.hostname": mariadb.host,
        "database.port": str(mariadb.port),
        "database.include.list": database.name,
        "schema.history.internal.kafka.bootstrap.servers": kafka.bootstrap_servers,
        "schema.history.internal.kafka.topic": f"history-{database.name}",
    }
    return wanted


def begin(worker: Connect, wanted: dict[str, Any]) -> None:
    """Create the connector, as `curl` would; a worker that starts may refuse for a moment."""

    def accepted() -> bool:
        try:
            worker.ask("POST", "/connectors", wanted)
        except urllib.error.HTTPError:
            return False
        return True

    wait_for(accepted, worker)


def wait_for(reached: Callable[[], bool], worker: Connect) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not reached():
        if time.monotonic() > deadline:
            pytest.fail("Debezium did not get there:\n" + worker.log_path.read_text()[-3000:])
        time.sleep(0.2)


def write(engine: sa.Engine, topic: str, numbers: range) -> None:
    """One transaction for each, as the library writes by default: large payloads compressed."""
    outbox = Outbox(source="/orders")
    for number in numbers:
        with engine.begin() as connection:
            note = "é" * 300 if number % 3 == 0 else ""
            event = Placed(order_id=number % KEYS, number=number, note=note)
            outbox.add(connection, event, topic=topic, headers={"tenant": "blue"})


def test_what_the_outbox_holds_arrives_in_order(
    mariadb, mariadb_database, engine, kafka, connect, topic_name, tmp_path, monkeypatch
):
    """
    I1, I2, I4, for this path: rows that waited when it began, those written meanwhile, those that are
    deleted as soon as they arrived, and those written while the worker was dead; each with its key,
    value and headers, and first occurrences in order.
    """
    kafka.create_topic(topic_name, partitions=3)
    outbox = Outbox().table
    write(engine, topic_name, range(10))
    with engine.begin() as connection:  # what a relay had produced before
        connection.execute(sa.update(outbox).where(outbox.c.id <= 5).values(status=1))
        stored = {
            r.event_id: r for r in connection.execute(sa.select(outbox).order_by(outbox.c.id))
        }
    wanted = connector(mariadb, mariadb_database, kafka)

    def arrived(count: int) -> bool:
        return len({record.headers["ce_id"] for record in kafka.consume_all(topic_name)}) >= count

    begin(connect, wanted)
    wait_for(lambda: arrived(5), connect)
    write(engine, topic_name, range(10, 60))
    wait_for(lambda: arrived(55), connect)
    with engine.begin() as connection:
        stored |= {r.event_id: r for r in connection.execute(sa.select(outbox))}
        connection.execute(sa.delete(outbox).where(outbox.c.id <= 30))
    connect.kill()
    write(engine, topic_name, range(60, 80))
    with engine.begin() as connection:
        stored |= {r.event_id: r for r in connection.execute(sa.select(outbox))}
        Outbox().add(connection, None, name="order.gone", topic=topic_name, key=1)
    connect.start()
    begin(connect, wanted)
    wait_for(lambda: arrived(76), connect)

    records = kafka.consume_all(topic_name)
    read_value = imported("log-tailing.md", "read_value", tmp_path, monkeypatch).read_value
    tombstones = [r for r in records if r.headers["ce_type"] == b"order.gone"]
    placed = first_occurrences([r for r in records if r not in tombstones])
    expected = {str(e): row for e, row in stored.items() if row.status == 0}
    assert placed.keys() == expected.keys()
    for event_id, record in placed.items():
        row = expected[event_id]
        assert record.key == row.key
        assert record.headers == {
            "ce_specversion": b"1.0",
            "ce_id": event_id.encode(),
            "ce_source": b"/orders",
            "ce_type": b"order.placed",
            "ce_time": record.headers["ce_time"],
            "outbox-seq": b"%d" % row.id,
            "content-type": b"application/json",
            "outbox-codec": b"%d" % row.codec,
            "outbox-headers": b'{"ce_source":"/orders","tenant":"blue"}',
        }
        assert Placed.model_validate_json(read_value(record.value, record.headers))
    assert {row.codec for row in expected.values()} == {0, 1}
    assert [read_value(r.value, r.headers) for r in tombstones] == [None] * len(tombstones)
    for key in {row.key for row in expected.values()}:
        seqs = [int(r.headers["outbox-seq"]) for r in placed.values() if r.key == key]
        assert seqs == sorted(seqs)


def first_occurrences(records: list[Record]) -> dict[str, Record]:
    """Event id -> its first record, in the order of the log."""
    found: dict[str, Record] = {}
    for record in records:
        found.setdefault(record.headers["ce_id"].decode(), record)
    return found
