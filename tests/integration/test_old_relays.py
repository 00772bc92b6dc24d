"""
A rollout needs no order: relays of older releases serve these tables, this one serves older tables.
"""

from __future__ import annotations

import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from outbox_relay import Outbox
from outbox_relay.migrate import migrate
from outbox_relay.relay.options import RelayOptions
from outbox_relay.relay.producer import EventProducer
from outbox_relay.schema import SCHEMA_VERSION, Status, tables
from outbox_relay.store import DatabaseOptions, open_store
from outbox_relay.testing.broker import RecordingBroker
from outbox_relay.testing.clock import FakeClock
from tests.acceptance.relays import RelayProcess, wait_until_relayed, write_config
from tests.integration.test_migrations_toolbox import RELEASED
from tests.integration.test_migrations_under_load import build

ROOT = Path(__file__).resolve().parents[2]
OLDER = range(1, SCHEMA_VERSION)
KEYS = ("a", "b", "c")
ROUND = 10


def release(version: int, folder: Path) -> Path:
    """The last relay whose tables had *version*, as a folder to import it from."""
    with tarfile.open(RELEASED / f"relay_{version:04d}.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


def command(source: Path, folder: Path) -> str:
    """A program that is `outbox-relay` of the package in *source*."""
    program = folder / "outbox-relay"
    program.write_text(
        f'#!/bin/sh\nPYTHONPATH="{source}" exec "{sys.executable}" -m outbox_relay "$@"\n'
    )
    program.chmod(0o755)
    return str(program)


@pytest.fixture
def database(request: pytest.FixtureRequest, version: int) -> Any:
    """Of each older version on another kind: a relay's start takes seconds."""
    kind = ("postgresql", "mariadb", "mysql")[(version - 1) % 3]
    return request.getfixturevalue(f"{kind}_database")


def write(engine: sa.Engine, topic: str, first: int) -> None:
    """Ten events of each key, in as many transactions."""
    outbox = Outbox()
    for number in range(first, first + ROUND):
        with engine.begin() as connection:
            for key in KEYS:
                outbox.add(connection, {"number": number}, name="e", topic=topic, key=key)


@pytest.mark.parametrize("version", OLDER)
def test_an_older_relay_lives_through_the_migration_and_a_rollback(
    database: Any, engine: sa.Engine, kafka: Any, topic_name: str, tmp_path: Path, version: int
) -> None:
    """
    I2, I3. It relays on its own tables, goes on while and after they are migrated, hands over to this
    release, and takes over again: everything once, in order, and it never says that tables do not fit.
    """
    kafka.create_topic(topic_name, partitions=2)
    build(engine, version)
    folders = {name: tmp_path / name for name in ("old", "new")}
    for folder in folders.values():
        folder.mkdir()
    programs = {
        "old": command(release(version, folders["old"] / "source"), folders["old"]),
        "new": command(ROOT, folders["new"]),
    }
    old, new = (
        RelayProcess(programs[name], write_config(folders[name], database, kafka, stop_seconds=5))
        for name in ("old", "new")
    )
    try:
        old.start()
        write(engine, topic_name, 0)
        wait_until_relayed(database)
        migrate(DatabaseOptions(url=database.async_url))
        write(engine, topic_name, ROUND)
        wait_until_relayed(database)
        new.start()
        until_logged(new, "started")
        old.stop()
        write(engine, topic_name, 2 * ROUND)
        wait_until_relayed(database)
        old.start()
        new.stop()
        write(engine, topic_name, 3 * ROUND)
        wait_until_relayed(database)
        old.stop()
    finally:
        old.end()
        new.end()

    found: dict[bytes, list[bytes]] = {key.encode(): [] for key in KEYS}
    for record in kafka.consume_all(topic_name):
        found[record.key].append(record.value)
    wanted = [b'{"number":%d}' % number for number in range(4 * ROUND)]
    assert found == {key.encode(): wanted for key in KEYS}
    assert old.logged("schema_mismatch") == new.logged("schema_mismatch") == []


def until_logged(relay: RelayProcess, event: str) -> None:
    """Wait for a line of its log."""
    while not relay.logged(event):
        assert relay.running.poll() is None, relay.log.read_text()


def test_the_older_relay_is_the_older_one(tmp_path: Path) -> None:
    """
    Else the test above would show nothing.
    """
    for version in OLDER:
        source = release(version, tmp_path / str(version))
        text = (source / "outbox_relay" / "schema.py").read_text()

        assert f"\nSCHEMA_VERSION = {version}\n" in text
        assert [part.name for part in source.iterdir()] == ["outbox_relay"]


@pytest.mark.parametrize("version", OLDER)
@pytest.mark.parametrize("kind", ["mariadb", "mysql", "postgresql", "sqlite"])
async def test_this_release_serves_older_tables(
    request: pytest.FixtureRequest, kind: str, version: int
) -> None:
    """
    The new image first, the migration later: every event is published and marked meanwhile.
    """
    database = request.getfixturevalue(f"{kind}_database")
    engine = sa.create_engine(database.sync_url, poolclass=sa.NullPool)
    build(engine, version)
    write(engine, "t", 0)
    broker = RecordingBroker(clock=FakeClock(), topics={"t": 2})
    store = open_store(DatabaseOptions(url=database.async_url))
    await EventProducer(store, broker, options=RelayOptions()).run(until_empty=True)
    with engine.connect() as connection:
        statuses = set(connection.scalars(sa.select(tables().outbox.c.status)))
        versions = connection.scalars(sa.select(tables().version.c.version)).all()
    engine.dispose()

    assert len(broker.published) == ROUND * len(KEYS)
    assert statuses == {Status.PRODUCED}
    assert max(versions) == version
