"""
Pause, resume and replay beside a relay at work, on MariaDB and Kafka.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from outbox_relay import NotificationEvent, Outbox
from outbox_relay.migrate import migrate
from outbox_relay.store.options import DatabaseOptions

ROOT = Path(__file__).parents[2]
KEYS = 7
PRODUCED = "SELECT COUNT(*) FROM outbox WHERE status = 1"
ROWS = "SELECT SUM(CRC32(CONCAT_WS(',', id, status, produced_at, attempts))) FROM outbox WHERE id <= 300"


class Counted(NotificationEvent, name="counted", key="who"):
    who: int
    number: int


class Site:
    """An outbox on MariaDB, a topic, an application that writes, and commands."""

    def __init__(self, folder: Path, database: Any, kafka: Any, topic: str) -> None:
        self.folder, self.kafka, self.topic = folder, kafka, topic
        migrate(DatabaseOptions(url=database.async_url))
        kafka.create_topic(topic, partitions=3)
        (folder / "config.toml").write_text(
            f'[database]\nurl = "{database.async_url}"\n'
            f'[kafka]\nbootstrap_servers = "{kafka.bootstrap_servers}"\n'
            '[relay]\nlease_seconds = 12.0\n[http]\nenabled = false\n[log]\nformat = "json"\n'
        )
        self.engine = sa.create_engine(database.sync_url)
        self.started: list[subprocess.Popen[str]] = []
        self.written = 0

    def start(self, *words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "outbox_relay", *words],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "160"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def call(self, *words: str) -> str:
        process = self.start(*words)
        out, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        return out

    def write(self, count: int) -> None:
        """*count* events in transactions of their own."""
        outbox = Outbox(source="/site", compressor=None)
        with self.engine.connect() as connection:
            for _ in range(count):
                self.written += 1
                event = Counted(who=self.written % KEYS, number=self.written)
                outbox.add(connection, event, topic=self.topic)
                connection.commit()

    @contextmanager
    def load(self) -> Iterator[None]:
        """An application that writes without a pause, until the end of the block."""
        enough = threading.Event()

        def write() -> None:
            while not enough.is_set():
                self.write(5)

        writing = threading.Thread(target=write)
        writing.start()
        try:
            yield
        finally:
            enough.set()
            writing.join()

    def numbers(self, sql: str) -> int:
        with self.engine.connect() as connection:
            return int(connection.execute(sa.text(sql)).scalar_one() or 0)

    def wait_until(self, true: Callable[[], bool]) -> None:
        give_up = time.monotonic() + 60
        while not true():
            assert time.monotonic() < give_up, "it did not happen in a minute"
            threading.Event().wait(0.05)

    def pending(self) -> int:
        return self.numbers("SELECT COUNT(*) FROM outbox WHERE status = 0")

    def published(self, *, replayed: bool = False) -> dict[bytes, list[int]]:
        """Numbers by key in the order of the topic: those that are replayed, or the others."""
        found = defaultdict(list)
        for record in self.kafka.consume_all(self.topic):
            if ("replay-of" in record.headers) == replayed:
                found[record.key].append(json.loads(record.value)["number"])
        return dict(found)

    def close(self) -> None:
        for process in self.started:
            process.kill()
            process.communicate()
        self.engine.dispose()


@pytest.fixture
def site(tmp_path: Path, mariadb_database: Any, kafka: Any, topic_name: str) -> Iterator[Site]:
    made = Site(tmp_path, mariadb_database, kafka, topic_name)
    yield made
    made.close()


def until(process: subprocess.Popen[str], event: str) -> dict[str, Any]:
    """Read its log up to *event*."""
    assert process.stderr is not None
    for text in process.stderr:
        line: dict[str, Any] = json.loads(text)
        if line["event"] == event:
            return line
    raise AssertionError(f"{event} was never logged")


def in_order(numbers: dict[bytes, list[int]]) -> bool:
    return all(found == sorted(found) for found in numbers.values())


def test_a_pause_of_all_loses_nothing_also_if_the_relay_dies(site: Site) -> None:
    """
    I2, I4, I8. Under load; what waits costs no attempt, and comes in order when all goes on.
    """
    relay = site.start("run")
    site.write(50)
    site.wait_until(lambda: site.pending() == 0)
    with site.load():
        site.call("pause", "--all", "--reason", "broker upgrade")
        assert until(relay, "operator_paused")["topics"] == ["*"]
        site.wait_until(lambda: site.pending() > 50)
    # Only what was under way at that moment was still produced.
    produced = site.numbers(PRODUCED)
    relay.kill()
    another = site.start("run")
    assert until(another, "operator_paused")["topics"] == ["*"]
    site.write(20)
    waiting = site.call("events", "show", str(site.written))
    before = sum(len(found) for found in site.published().values())

    assert "waits for: paused: all topics are paused: broker upgrade (" in waiting
    assert site.numbers(PRODUCED) == produced
    site.call("resume", "--all")
    site.wait_until(lambda: site.pending() == 0)
    after = site.published()
    assert before < site.written
    assert {n for found in after.values() for n in found} == set(range(1, site.written + 1))
    assert site.numbers("SELECT SUM(attempts) FROM outbox") == 0
    # The relay that was killed may have had a batch that was acked and not yet marked.
    assert all(list(dict.fromkeys(found)) == sorted(set(found)) for found in after.values())


def test_a_replay_beside_live_traffic(site: Site) -> None:
    """
    I4, I6. Live events come once and in order; those of the replay in their order, all of them, though it
    was killed; rows stay as they are.
    """
    site.start("run")
    site.write(300)
    site.wait_until(lambda: site.pending() == 0)
    before = site.numbers(ROWS)
    words = ("replay", "--topic", site.topic, "--yes", "--resume", "kept.json")
    kept = site.folder / "kept.json"
    with site.load():
        first = site.start(*words, "--rate", "120")
        site.wait_until(lambda: kept.exists() and json.loads(kept.read_text())["published"] >= 90)
        first.kill()
        last_id = json.loads(kept.read_text())["last_id"]
        site.call("replay", "--yes", "--resume", "kept.json", "--rate", "2000")
    site.wait_until(lambda: site.pending() == 0)
    live, replayed = site.published(), site.published(replayed=True)

    assert sorted(n for found in live.values() for n in found) == list(range(1, site.written + 1))
    assert in_order(live)
    again = sorted(n for found in replayed.values() for n in found)
    assert set(range(1, 301)) <= set(again) <= set(range(1, last_id + 1))
    assert len(again) - len(set(again)) <= 30
    for found in replayed.values():
        # One step back at most, where the second began.
        steps_back = [a for a, b in pairwise(found) if b <= a]
        assert len(steps_back) <= 1
    assert site.numbers(ROWS) == before
