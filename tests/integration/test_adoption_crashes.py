"""
A table of python-cqrs under faults: our relay killed at the worst moment, and the whole way from the old relay
to ours, with both at work for a while.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import sqlalchemy as sa

from outbox_relay.adoption import prepare
from outbox_relay.store import DatabaseOptions
from tests.contract.adopted import create_adopted
from tests.integration.adopted_site import CREATE
from tests.integration.command import environment

IN_FLIGHT_ROWS = 100
ROWS = 1500
KEYS = 7


def insert(engine: sa.Engine, topics: list[str]) -> None:
    """Rows of both topics, each tenth tried before by the old relay; each says its key and its place."""
    on_postgresql = engine.dialect.name == "postgresql"
    raw = "uuid_send(CAST(:id AS uuid))" if on_postgresql else "UNHEX(REPLACE(:id, '-', ''))"
    new = "CAST(:id AS uuid)" if on_postgresql else raw
    statement = sa.text(
        "INSERT INTO outbox (event_id, event_id_bin, event_status, flush_counter, event_name, topic, "
        f"payload) VALUES ({new}, {raw}, :state, :flushes, 'e', :topic, :payload)"
    )
    rows = [
        {
            "id": f"00000000-0000-4000-8000-{place:012d}",
            "state": "NOT_PRODUCED" if place % 10 == 0 else "NEW",
            "flushes": 4 if place % 10 == 0 else 0,
            "topic": topics[place % 2],
            "payload": json.dumps({"k": place % KEYS, "place": place}).encode(),
        }
        for place in range(ROWS)
    ]
    with engine.begin() as connection:
        connection.execute(statement, rows)


def relay(folder: Path, marks: int | None = None) -> int:
    """The exit code of a relay that lives for so many marks."""
    words = [sys.executable, "-m"]
    words += ["outbox_relay"] if marks is None else ["tests.integration.deadly_mark", str(marks)]
    done = subprocess.run(
        [*words, "run", "--until-empty"],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


@pytest.mark.parametrize("server", ["mariadb", "postgresql"])
def test_killed_between_ack_and_mark_it_loses_nothing(request, kafka, topic_name, tmp_path, server):
    """
    I2, I3, I4, I6. Each event is published, again only what was in flight at a kill, and in order within its key,
    whichever state the old relay left it in; then all are PRODUCED.
    """
    database = request.getfixturevalue(f"{server}_database")
    topics = [topic_name, f"{topic_name}-2"]
    kafka.create_topic(topics[0], partitions=3)
    kafka.create_topic(topics[1], partitions=1)
    engine = sa.create_engine(database.sync_url, poolclass=sa.NullPool)
    create_adopted(engine)
    prepare(DatabaseOptions(url=database.async_url, layout="python-cqrs"))
    insert(engine, topics)
    (tmp_path / "config.toml").write_text(
        f'[database]\nurl = "{database.async_url}"\nlayout = "python-cqrs"\nlayout_key_path = "k"\n'
        f'[kafka]\nbootstrap_servers = "{kafka.bootstrap_servers}"\npublish_deadline_seconds = 1.9\n'
        f"request_timeout_seconds = 1\n[relay]\nlease_seconds = 3\nin_flight_rows = {IN_FLIGHT_ROWS}\n"
        f"chunk_rows = {IN_FLIGHT_ROWS // 3}\n"
        "[http]\nenabled = false\n",
        encoding="utf-8",
    )

    ends = [relay(tmp_path, marks) for marks in (0, 5)] + [relay(tmp_path)]

    assert ends == [-signal.SIGKILL, -signal.SIGKILL, 0]
    published = [json.loads(r.value) for topic in topics for r in kafka.consume_all(topic)]
    times = Counter(document["place"] for document in published)
    assert sorted(times) == list(range(ROWS))
    assert 0 < times.total() - ROWS <= 2 * IN_FLIGHT_ROWS
    for topic in topics:
        last: dict[Any, int] = {}
        for record in kafka.consume_all(topic):
            place = json.loads(record.value)["place"]
            if times[place] > 0:
                assert place > last.get(record.key, -1)
                last[record.key], times[place] = place, 0
    with engine.connect() as connection:
        states = connection.execute(sa.text("SELECT DISTINCT event_status FROM outbox")).all()
    assert states == [("PRODUCED",)]


def numbers(kafka: Any, topic: str) -> Counter[int]:
    """How often each event was published."""
    return Counter(json.loads(r.value)["payload"]["number"] for r in kafka.consume_all(topic))


def wait_until(what: Callable[[], bool]) -> None:
    """Asks until it is so."""
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_run_beside_then_switch_then_move(site_of, kafka):
    """
    I2. The whole way of the guide, with the real old relay. While both run, each event is published by one or
    both, and all of them are; in the same outage the old relay gives up what ours keeps.
    """
    site = site_of("5.3.0", zlib=False)
    site.take(CREATE, site.writes(*range(10)))
    with site.relays_beside(size=10, pause=0.02):
        # Beside: the application writes, the old relay works, and the index is made meanwhile.
        writing = Thread(
            target=site.take, args=[site.writes(*range(n, n + 5)) for n in range(10, 60, 5)]
        )
        writing.start()
        wait_until(lambda: ("PRODUCED", 0) in site.states())
        site.adopt("--prepare")
        with site.runs() as ours:
            writing.join()
            site.take(*[site.writes(*range(n, n + 5)) for n in range(60, 100, 5)])
            wait_until(lambda: set(site.states()) == {("PRODUCED", 0)})
            assert ours.poll() is None
    assert sorted(numbers(kafka, site.topic)) == list(range(100))

    # The same outage for each: five looks of the old relay and its rows are lost until somebody looks.
    site.take(site.writes(*range(100, 105)), site.relays(bootstrap=None, batches=5))
    assert site.states()[-5:] == [("NOT_PRODUCED", 5)] * 5
    site.take(site.writes(*range(105, 110)))
    with site.runs("-s", "kafka.bootstrap_servers=127.0.0.1:1", until="broker_unavailable"):
        pass
    assert site.states()[-5:] == [("NEW", 0)] * 5

    # Switched: the old relay is gone, what it gave up is asked for.
    assert "requeued 5" in site.adopt("--revive", "--yes")
    site.drain()
    assert {state for state, _ in site.states()} == {"PRODUCED"}

    # Moved.
    site.take(site.writes(*range(110, 115)))
    ours = ("-s", "database.layout=outbox", "-s", "database.table=events")
    site.command("migrate", *ours)
    assert "moved 5" in site.adopt("--move-to", "events", "--yes")
    site.drain(*ours)

    published = numbers(kafka, site.topic)
    assert sorted(published) == list(range(115))
    assert all(published[number] == 1 for number in range(100, 115))
