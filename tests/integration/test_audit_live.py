"""
An audit while applications write and a relay publishes; one that is killed; servers that are away.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import threading
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from tests.integration.auditing import NewShop, Shop, found_ids

ROWS = 1500
RATE = 300


@pytest.fixture
def shop(new_shop: NewShop) -> Shop:
    return new_shop(partitions=3)


class Writer(threading.Thread):
    """Commits events until told to stop; every transaction stays open for a moment, some roll back."""

    def __init__(self, shop: Shop, seed: int) -> None:
        super().__init__(daemon=True)
        self._shop, self._random = shop, random.Random(seed)
        self._ending = threading.Event()
        self.written = 0

    def run(self) -> None:
        engine = sa.create_engine(self._shop.database.sync_url)
        insert = sa.insert(self._shop.outbox)
        while not self._ending.is_set():
            with engine.connect() as connection:
                for _ in range(self._random.randint(1, 20)):
                    # Keys of its own: without a lock nothing orders what two writers write.
                    key = f"{self.name}-{self._random.randint(0, 30)}".encode()
                    row = {
                        "event_name": "e",
                        "topic": self._shop.topic,
                        "key": key,
                        "payload": b"{}",
                    }
                    connection.execute(insert, row)
                self._ending.wait(self._random.random() * 0.05)
                if self._random.random() < 0.1:
                    connection.rollback()
                else:
                    connection.commit()
                    self.written += 1

    def stop(self) -> None:
        self._ending.set()
        self.join(30)


def wait_until_produced(shop: Shop, rows: int) -> None:
    """Until the relay has marked so many."""
    produced = sa.select(sa.func.count()).where(shop.outbox.c.status == 1)
    for _ in range(600):
        with shop.engine.connect() as connection:
            if connection.execute(produced).scalar_one() >= rows:
                return
        threading.Event().wait(0.1)
    raise AssertionError((shop.folder / "relay.log").read_text()[-2000:])


@pytest.mark.parametrize("server", ["mariadb", "postgresql"])
def test_live_traffic_is_no_finding(shop: Shop) -> None:
    """
    Rows that commit late, are pending, or are marked while the audit looks: nothing is found, three times.
    """
    log = (shop.folder / "relay.log").open("w")
    relay = subprocess.Popen(
        shop.arguments("run"), cwd=shop.folder, env=shop.environment, stderr=log
    )
    writers = [Writer(shop, seed) for seed in range(3)]
    try:
        for writer in writers:
            writer.start()
        wait_until_produced(shop, 1000)
        reports = [shop.audit("--rate", str(rate), settle=30.0) for rate in (500, 1000, 20_000)]
    finally:
        for writer in writers:
            writer.stop()
        relay.send_signal(signal.SIGTERM)
        relay.wait(60)
        log.close()
    shop.relay()
    last = shop.audit()

    assert [report["found"] for report in [*reports, last]] == [
        dict.fromkeys(("loss", "duplicate", "inversion", "ghost"), 0)
    ] * 4
    assert last["topics"][0]["produced"] == last["topics"][0]["records"] > 0
    assert reports[0]["topics"][0]["records"] > 0


def test_a_killed_audit_goes_on(shop: Shop) -> None:
    """
    `kill -9` in the middle of the table: the same command reads the rest, and finds the same.
    """
    shop.write_many(ROWS)
    shop.relay()
    (lost,) = shop.write("k1", status=1, produced_at=datetime.now(UTC).replace(tzinfo=None))
    work = shop.folder / "audit.db"
    words = ["audit", "--json", "--work", str(work), "--rate", str(RATE), "--settle", "0"]
    killed = subprocess.Popen(
        shop.arguments(*words), cwd=shop.folder, env=shop.environment, stderr=subprocess.DEVNULL
    )
    while not (work.exists() and work.stat().st_size > 60_000):
        assert killed.poll() is None
        threading.Event().wait(0.05)
    killed.kill()
    killed.wait()

    other = shop.quickly("audit", "--work", str(work), "--since", "1h")
    again = shop.call(*words)

    first = json.loads(again.stderr.splitlines()[0])
    report = json.loads(again.stdout)
    assert (other.exit_code, again.returncode) == (1, 4), again.stderr
    assert "another audit that did not end (since differ)" in other.stderr
    assert first["phase"] == "table"
    assert 0 < first["done"] < ROWS
    assert found_ids(report, "loss") == [lost]
    assert report["topics"][0]["rows"] == ROWS + 1


def test_servers_that_are_away_are_told(shop: Shop) -> None:
    """
    With exit code 1, the server's name, and that the same command goes on.
    """
    work = str(shop.folder / "audit.db")
    no_kafka = shop.quickly("audit", "--work", work, "--set", "kafka.bootstrap_servers=127.0.0.1:1")
    away = sa.make_url(shop.database.async_url).set(port=1)
    no_database = shop.quickly(
        "audit", "--database-url", away.render_as_string(hide_password=False)
    )
    no_tables = shop.quickly("audit", "--set", "database.table=absent")
    no_topic = shop.quickly("audit", "--topic", "absent")
    other_broker = shop.quickly("audit", "--set", "broker.kind=jsonl")

    codes = [done.exit_code for done in (no_kafka, no_database, no_tables, no_topic, other_broker)]
    assert codes == [1, 1, 3, 1, 2]
    assert "kafka at 127.0.0.1:1" in no_kafka.stderr
    assert f"the same command goes on with what is in {work}" in no_kafka.stderr
    assert "topic absent does not exist" in no_topic.stderr
    assert "which Kafka alone can do" in other_broker.stderr


def test_a_signal_stops_it(shop: Shop) -> None:
    """
    SIGTERM ends it with 143, SIGINT with 130; what was read is kept.
    """
    shop.write(*(f"k{n}" for n in range(100)))
    running = subprocess.Popen(
        shop.arguments("audit", "--rate", "10", "--work", str(shop.folder / "audit.db")),
        cwd=shop.folder,
        env=shop.environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stderr is not None
    assert "audit_progress" in running.stderr.readline()
    running.send_signal(signal.SIGTERM)

    code = running.wait(60)

    assert code == 143
    assert "stopped; the same command goes on" in running.stderr.read()
    running.stderr.close()
