"""
The main job on the other databases: the installed relay, a real server, real Kafka.
"""

from __future__ import annotations

import subprocess

import pytest
import sqlalchemy as sa

from outbox_relay import Outbox
from tests.acceptance.relays import wait_until_relayed, write_config
from tests.services.database import Database
from tests.services.kafka import Kafka
from tests.services.wheel import InstalledWheel

EVENTS = 2_000


@pytest.fixture(params=["mysql", "postgresql"])
def database(request: pytest.FixtureRequest) -> Database:
    found: Database = request.getfixturevalue(f"{request.param}_database")
    return found


def test_every_event_arrives_once_and_in_order(
    installed_wheel: InstalledWheel,
    database: Database,
    kafka: Kafka,
    topic_name: str,
    tmp_path,
) -> None:
    """
    From `migrate` to Kafka: nothing is lost, nothing comes twice, each key keeps its order.
    """
    kafka.create_topic(topic_name, partitions=4)
    config = write_config(tmp_path, database, kafka)

    def relay(*arguments: str) -> None:
        command = [installed_wheel.command, *arguments, "--config", str(config)]
        subprocess.run(command, check=True, cwd=tmp_path, timeout=60)

    relay("migrate")
    write(database, topic_name)
    relay("run", "--until-empty")
    wait_until_relayed(database)

    records = kafka.consume_all(topic_name)
    by_key: dict[bytes, list[int]] = {}
    for record in records:
        by_key.setdefault(record.key, []).append(int(record.value))
    assert len(records) == EVENTS
    assert sorted(n for numbers in by_key.values() for n in numbers) == list(range(EVENTS))
    assert all(numbers == sorted(numbers) for numbers in by_key.values())


def write(database: Database, topic: str) -> None:
    """Events of ten keys; a rolled back one among them every now and then."""
    engine = sa.create_engine(database.sync_url)
    outbox = Outbox()
    for first in range(0, EVENTS, 100):
        with engine.connect() as connection:
            outbox.add(connection, b"-1", name="n", topic=topic, key="rolled back")
            connection.rollback()
            for number in range(first, first + 100):
                body, key = str(number).encode(), f"k{number % 10}"
                outbox.add(connection, body, name="n", topic=topic, key=key)
            connection.commit()
    engine.dispose()
