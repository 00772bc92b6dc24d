"""What the acceptance tests share."""

from __future__ import annotations

import subprocess

import pytest

from tests.acceptance.relays import RelayProcess, write_config


@pytest.fixture
def migrated(installed_wheel, mariadb_database, kafka, topic_name, tmp_path):
    """A table made by `outbox-relay migrate`, and a topic."""
    kafka.create_topic(topic_name, partitions=12)
    config = write_config(tmp_path, mariadb_database, kafka)
    subprocess.run(
        [installed_wheel.command, "migrate", "--config", str(config)], check=True, cwd=tmp_path
    )
    return mariadb_database


@pytest.fixture
def make_relay(installed_wheel, mariadb_database, kafka, tmp_path):
    """Makes relays, and ends those that still run."""
    made: list[RelayProcess] = []

    def make(name: str = "relay", **settings) -> RelayProcess:
        folder = tmp_path / name
        folder.mkdir()
        config = write_config(folder, mariadb_database, kafka, **settings)
        made.append(RelayProcess(installed_wheel.command, config, name=name))
        return made[-1]

    yield make
    for relay in made:
        relay.end()
