"""
How many connections a relay holds: the guide's table, counted on real servers.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import sqlalchemy as sa

from outbox_relay import Outbox
from outbox_relay.migrate import migrate
from outbox_relay.store.options import DatabaseOptions
from tests.acceptance.relays import RelayProcess, wait_until_relayed, write_config
from tests.unit.test_connection_docs import HELD

ROOT = Path(__file__).resolve().parents[2]
SERVERS = ["mariadb", "postgresql"]
# What the server itself counts, our own connection left out.
COUNTED = {
    "mariadb": "SELECT count(*) FROM information_schema.processlist "
    "WHERE db = '{}' AND id <> connection_id()",
    "postgresql": "SELECT count(*) FROM pg_stat_activity "
    "WHERE datname = '{}' AND pid <> pg_backend_pid()",
}


@pytest.fixture(params=SERVERS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def relays(
    request: pytest.FixtureRequest, kind: str, kafka: Any, topic_name: str, tmp_path: Path
) -> Iterator[tuple[Any, list[RelayProcess]]]:
    """Two relays that do all that a relay does, often, and their database."""
    database = request.getfixturevalue(f"{kind}_database")
    kafka.create_topic(topic_name, partitions=3)
    migrate(DatabaseOptions(url=database.async_url))
    program = tmp_path / "outbox-relay"
    program.write_text(
        f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m outbox_relay "$@"\n'
    )
    program.chmod(0o755)
    made = []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        settings = {"sample_seconds": 0.5, "retention_seconds": 0.5, "lease_seconds": 3.0}
        config = write_config(folder, database, kafka, publish_deadline_seconds=2.0, **settings)
        made.append(RelayProcess(str(program), config))
    yield database, made
    for relay in made:
        relay.end()


def held(relay: RelayProcess, port: int) -> int:
    """Connections of the relay's process to a server's port."""
    connections = psutil.Process(relay.running.pid).net_connections("tcp")
    return sum(c.status == "ESTABLISHED" and c.raddr.port == port for c in connections)


def work(relay: RelayProcess, database: Any, topic: str, ports: tuple[int, int]) -> tuple[int, int]:
    """The most connections to database and broker that *relay* holds while it has much to do."""
    engine = sa.create_engine(database.sync_url, poolclass=sa.NullPool)
    most = (0, 0)
    deadline = time.monotonic() + 60
    while most != HELD["active"] and time.monotonic() < deadline:
        with engine.begin() as connection:
            events = [{"number": number} for number in range(400)]
            Outbox().add(connection, *events, name="e", topic=topic, key=None)
        wait_until_relayed(database)
        most = max(most[0], held(relay, ports[0])), max(most[1], held(relay, ports[1]))
    return most


def test_a_relay_holds_what_the_guide_says(
    relays: Any, kind: str, kafka: Any, topic_name: str
) -> None:
    """
    I10. Active, standing by, and standing by after it was active; the server counts the same.
    """
    database, (first, second) = relays
    ports = sa.make_url(database.sync_url).port, int(kafka.bootstrap_servers.rpartition(":")[2])
    engine = sa.create_engine(database.sync_url, poolclass=sa.NullPool)
    first.start()
    active = work(first, database, topic_name, ports)
    second.start()
    until(lambda: bool(second.logged("started")) and held(second, ports[0]) > 0)
    standby = held(second, ports[0]), held(second, ports[1])
    held_by_both = held(first, ports[0]) + held(second, ports[0])
    with engine.connect() as connection:
        counted = connection.scalar(sa.text(COUNTED[kind].format(database.name)))
    first.running.send_signal(signal.SIGSTOP)
    until(lambda: bool(second.logged("lease_acquired")))
    first.running.send_signal(signal.SIGCONT)
    until(lambda: bool(first.logged("term_over")))
    until(lambda: held(first, ports[0]) == HELD["standby that was active"][0])

    assert active == HELD["active"]
    assert standby == HELD["standby"]
    assert counted == held_by_both
    assert held(first, ports[1]) <= HELD["standby that was active"][1]


def until(holds: Callable[[], bool], *, seconds: float = 60) -> None:
    """Wait until *holds*."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
