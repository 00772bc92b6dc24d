"""
A broker that is away for a minute, frozen or dead: with an idle relay, with a backlog, and while a
relay is asked to stop. A database that is away.

One server is frozen while another is dead: both outages last only once.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import sqlalchemy as sa

from outbox_relay import NotificationEvent, Outbox
from outbox_relay.migrate import migrate
from outbox_relay.store import DatabaseOptions
from tests.acceptance.relays import RelayProcess, wait_until_relayed, write_config
from tests.services.database import Database
from tests.services.kafka import Kafka
from tests.services.mariadb import MariaDB
from tests.services.process import Service

OUTAGE_SECONDS = 60
STOP_SECONDS = 10


class Counted(NotificationEvent, name="counted", key="counter"):
    """One of a series."""

    counter: str
    number: int


@dataclass
class Site:
    """A database, a topic and a relay of its own."""

    kafka: Kafka
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
def make_site(installed_wheel, tmp_path) -> Iterator[Callable[..., Site]]:
    """Makes sites whose relays run, on a server and a broker."""
    sites: list[Site] = []

    def make(name: str, server: MariaDB, kafka: Kafka) -> Site:
        database = server.create_database()
        migrate(DatabaseOptions(url=database.async_url))
        topic = f"outage-{uuid.uuid4().hex[:8]}"
        kafka.create_topic(topic, partitions=3)
        folder = tmp_path / f"{name}-{len(sites)}"
        folder.mkdir()
        relay = RelayProcess(
            installed_wheel.command, write_config(folder, database, kafka), name=name
        )
        engine = sa.create_engine(database.sync_url)
        sites.append(Site(kafka, database, topic, relay, engine))
        relay.start()
        return sites[-1]

    yield make
    for site in sites:
        site.relay.end()
        site.engine.dispose()


@pytest.fixture
def another_kafka() -> Iterator[Kafka]:
    """So that one may be frozen and one dead in the same minute."""
    with Kafka() as made:
        yield made


@pytest.fixture
def another_mariadb() -> Iterator[MariaDB]:
    """So that one may be frozen and one dead at the same time."""
    with MariaDB() as made:
        yield made


def away(frozen: Service, dead: Service) -> None:
    """Nobody answers any more."""
    frozen.freeze()
    dead.kill()


def back(frozen: Service, dead: Service) -> None:
    """Both answer again."""
    frozen.thaw()
    dead.start()


def test_a_minute_without_a_broker_loses_nothing(make_site, mariadb, kafka, another_kafka, capsys):
    """
    I2, I8, I9. A broker that is frozen, and one that is dead: nothing lost, nothing dead-lettered, no
    restart; a stop meanwhile fits its budget.
    """
    brokers = (kafka, another_kafka)
    idle, busy, stopping = (
        [make_site(name, mariadb, broker) for broker in brokers]
        for name in ("idle", "busy", "stopping")
    )
    for site in (*idle, *busy, *stopping):
        site.write(50)
    for site in (*idle, *busy, *stopping):
        wait_until_relayed(site.database, seconds=60)

    since = time.monotonic()
    away(*brokers)
    for site in busy:
        site.write(5000)
    for site in stopping:
        site.write(500)
    time.sleep(OUTAGE_SECONDS / 2)
    took = [site.relay.stop() for site in stopping]
    for site in idle:
        site.write(20)
    time.sleep(max(0.0, OUTAGE_SECONDS - (time.monotonic() - since)))
    back(*brokers)
    resumed = time.monotonic()
    for site in (*idle, *busy):
        wait_until_relayed(site.database, seconds=60)
    drained = time.monotonic() - resumed
    for site in stopping:
        site.relay.start()
    for site in stopping:
        wait_until_relayed(site.database, seconds=60)

    with capsys.disabled():
        stops = " and ".join(f"{seconds:.1f} s" for seconds in took)
        print(f"\n  away for {OUTAGE_SECONDS} s: drained {drained:.1f} s after, stops {stops}")
    assert max(took) <= STOP_SECONDS + 1
    for site in (*idle, *busy, *stopping):
        assert_nothing_is_lost(site)
    for site in (*idle, *busy):
        assert site.relay.running.poll() is None
        assert not site.relay.logged("dead_letter")


def test_a_database_that_goes_away_and_comes_back_loses_nothing(
    make_site, mariadb, another_mariadb, kafka
):
    """
    I8. Frozen or dead for longer than a statement may take and than the lease lasts; the relay needs no
    restart.
    """
    servers = (mariadb, another_mariadb)
    sites = [make_site("database", server, kafka) for server in servers]
    for site in sites:
        site.write(50)
    for site in sites:
        wait_until_relayed(site.database, seconds=30)
    for site in sites:
        site.write(3000)

    away(*servers)
    time.sleep(20)
    back(*servers)
    for site in sites:
        site.engine.dispose()
        site.write(500)
    for site in sites:
        wait_until_relayed(site.database, seconds=60)

    for site in sites:
        assert_nothing_is_lost(site)
        assert site.relay.running.poll() is None
        site.relay.stop()


def assert_nothing_is_lost(site: Site) -> None:
    """Every row is produced and on the topic; first occurrences in insert order within each key."""
    first: dict[int, bytes] = {}
    for record in site.kafka.consume_all(site.topic):
        first.setdefault(int(record.headers["outbox-seq"]), record.key)
    by_key: dict[bytes, list[int]] = {}
    for seq, key in first.items():
        by_key.setdefault(key, []).append(seq)

    assert site.statuses() == {1: site.written}
    assert len(first) == site.written
    assert all(seqs == sorted(seqs) for seqs in by_key.values())
