"""
A broker that is away for a minute, frozen or dead: with an idle relay, with a backlog, and while a
relay is asked to stop.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import sqlalchemy as sa

from outbox_relay import NotificationEvent, Outbox
from outbox_relay.migrate import migrate
from outbox_relay.store import DatabaseOptions
from tests.acceptance.relays import RelayProcess, wait_until_relayed, write_config
from tests.services.database import Database

OUTAGE_SECONDS = 60
STOP_SECONDS = 10


class Counted(NotificationEvent, name="counted", key="counter"):
    """One of a series."""

    counter: str
    number: int


@dataclass
class Site:
    """A database, a topic and a relay of its own."""

    database: Database
    topic: str
    relay: RelayProcess
    engine: sa.Engine
    written: int = 0

    def write(self, count: int) -> None:
        """Commit *count* events over seven keys."""
        outbox = Outbox(source="/outage")
        with self.engine.begin() as connection:
            events = [
                Counted(counter=f"c{n % 7}", number=n)
                for n in range(self.written, self.written + count)
            ]
            outbox.add(connection, *events, topic=self.topic)
        self.written += count

    def statuses(self) -> dict[int, int]:
        """Rows by status."""
        with self.engine.connect() as connection:
            rows = connection.execute(
                sa.text("SELECT status, COUNT(*) FROM outbox GROUP BY status")
            )
            return dict(rows.all())


@pytest.fixture
def make_site(installed_wheel, mariadb, kafka, topic_name, tmp_path) -> Callable[[str], Site]:
    """Makes sites whose relays run."""
    sites: list[Site] = []

    def make(name: str) -> Site:
        database = mariadb.create_database()
        migrate(DatabaseOptions(url=database.async_url))
        topic = f"{topic_name}-{name}"
        kafka.create_topic(topic, partitions=3)
        folder = tmp_path / name
        folder.mkdir()
        relay = RelayProcess(
            installed_wheel.command, write_config(folder, database, kafka), name=name
        )
        engine = sa.create_engine(database.sync_url)
        sites.append(Site(database, topic, relay, engine))
        relay.start()
        return sites[-1]

    yield make
    for site in sites:
        site.relay.end()
        site.engine.dispose()


@pytest.mark.parametrize("outage", ["frozen", "dead"])
def test_a_minute_without_a_broker_loses_nothing(make_site, kafka, outage, capsys):
    """
    I2, I8, I9. Nothing lost, nothing dead-lettered, no restart; a stop meanwhile fits its budget.
    """
    idle, busy, stopping = (make_site(name) for name in ("idle", "busy", "stopping"))
    for site in (idle, busy, stopping):
        site.write(50)
        wait_until_relayed(site.database, seconds=30)

    away = time.monotonic()
    kafka.freeze() if outage == "frozen" else kafka.kill()
    busy.write(5000)
    stopping.write(500)
    time.sleep(OUTAGE_SECONDS / 2)
    took = stopping.relay.stop()
    idle.write(20)
    time.sleep(max(0.0, OUTAGE_SECONDS - (time.monotonic() - away)))
    kafka.thaw() if outage == "frozen" else kafka.start()
    back = time.monotonic()
    wait_until_relayed(idle.database, seconds=60)
    wait_until_relayed(busy.database, seconds=60)
    resumed = time.monotonic() - back
    stopping.relay.start()
    wait_until_relayed(stopping.database, seconds=60)

    with capsys.disabled():
        print(
            f"\n  {outage} for {OUTAGE_SECONDS} s: drained {resumed:.1f} s after, stop {took:.1f} s"
        )
    assert took <= STOP_SECONDS + 1
    for site in (idle, busy, stopping):
        assert site.statuses() == {1: site.written}
        assert_all_in_order(kafka, site)
    for site in (idle, busy):
        assert site.relay.running.poll() is None
        assert not site.relay.logged("dead_letter")


@pytest.mark.parametrize("outage", ["frozen", "dead"])
def test_a_database_that_goes_away_and_comes_back_loses_nothing(make_site, mariadb, kafka, outage):
    """
    I8. Longer than a statement may take and than the lease lasts; the relay needs no restart.
    """
    site = make_site("database")
    site.write(50)
    wait_until_relayed(site.database, seconds=30)
    site.write(3000)

    mariadb.freeze() if outage == "frozen" else mariadb.kill()
    time.sleep(20)
    mariadb.thaw() if outage == "frozen" else mariadb.start()
    site.engine.dispose()
    site.write(500)
    wait_until_relayed(site.database, seconds=60)

    assert site.statuses() == {1: site.written}
    assert_all_in_order(kafka, site)
    assert site.relay.running.poll() is None
    site.relay.stop()


def assert_all_in_order(kafka, site: Site) -> None:
    """Every event on the topic; first occurrences in insert order within each key."""
    first: dict[int, bytes] = {}
    for record in kafka.consume_all(site.topic):
        first.setdefault(int(record.headers["outbox-seq"]), record.key)
    by_key: dict[bytes, list[int]] = {}
    for seq, key in first.items():
        by_key.setdefault(key, []).append(seq)

    assert len(first) == site.written
    assert all(seqs == sorted(seqs) for seqs in by_key.values())
