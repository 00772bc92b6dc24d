"""A relay with a table and a topic of its own, whose ways to both servers can be spoiled."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol
from urllib.request import urlopen

import sqlalchemy as sa
from sqlalchemy.engine import make_url

from outbox_relay import NotificationEvent, Outbox
from outbox_relay.migrate import migrate
from outbox_relay.schema import Status
from outbox_relay.store import DatabaseOptions
from tests.acceptance.relays import RelayProcess, write_config
from tests.faults.network import Link
from tests.services.database import Database
from tests.services.far_kafka import FarKafka
from tests.services.kafka import Kafka
from tests.services.kafka_cluster import KafkaCluster
from tests.services.toxiproxy import Toxiproxy

KEYS = 7
NO_DOOR = "none"
SETTINGS: dict[str, Any] = {
    "lease_seconds": 3.0,
    "publish_deadline_seconds": 2.0,
    "standby_seconds": 0.2,
    "poll_seconds": 0.2,
    "backoff_max_seconds": 1.0,
    "in_flight_rows": 600,
    "chunk_rows": 200,
    "stop_seconds": 3.0,
}
"""Everything that takes long by default takes a few seconds."""

DEFAULTS: dict[str, Any] = {
    "lease_seconds": 15.0,
    "publish_deadline_seconds": 10.0,
    "backoff_max_seconds": 60.0,
}
"""The times as they are by default, for tests of what depends on them."""

DATABASE_TIMES = ("database.timeout_seconds=1", "database.connect_timeout_seconds=1")


class Counted(NotificationEvent, name="counted", key="counter"):
    """One of a series."""

    counter: str
    number: int


@dataclass(frozen=True, slots=True)
class Account:
    """The table and the topic, compared."""

    lost: int
    ghosts: int
    inversions: int
    duplicates: int
    statuses: dict[int, int]


@dataclass
class Site:
    """*near* is the database as the test sees it; the relay goes through *database*."""

    name: str
    near: Database
    kafka: Kafka | KafkaCluster
    topic: str
    relay: RelayProcess
    broker: Link
    database: Link
    engine: sa.Engine = field(init=False)
    written: int = 0

    def __post_init__(self) -> None:
        self.engine = sa.create_engine(self.near.sync_url, pool_pre_ping=True)

    def start(self, *arguments: str) -> None:
        """Start the relay with the short times."""
        flags = [word for setting in (*DATABASE_TIMES, *arguments) for word in ("--set", setting)]
        self.relay.start(*flags)

    def write(self, count: int) -> None:
        """Commit *count* events over seven keys."""
        outbox = Outbox(source="/faults")
        numbers = range(self.written, self.written + count)
        events = [Counted(counter=f"c{n % KEYS}", number=n) for n in numbers]
        with self.engine.begin() as connection:
            outbox.add(connection, *events, topic=self.topic)
        self.written += count

    def statuses(self) -> dict[int, int]:
        """Rows by status."""
        with self.engine.connect() as connection:
            rows = connection.execute(
                sa.text("SELECT status, COUNT(*) FROM outbox GROUP BY status")
            )
            return dict(list(rows))

    def unknown_outcomes(self) -> int:
        """Of how many batches the relay could not say whether the broker has them: from its /metrics."""
        port = self.relay.logged("http_listening")[-1]["port"]
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        [line] = [text for text in lines if text.startswith("outbox_relay_unknown_outcomes_total ")]
        return int(float(line.partition(" ")[2]))

    def wait_until_relayed(self, *, seconds: float = 60) -> float:
        """Until no row is pending; how long that took."""
        started = time.monotonic()
        while self.statuses().get(Status.PENDING, 0):
            if time.monotonic() > started + seconds:
                log = self.relay.log.read_text()[-3000:]
                raise AssertionError(f"{self.name}: rows are pending after {seconds} s\n{log}")
            time.sleep(0.02)
        return time.monotonic() - started

    def account(self) -> Account:
        """What became of every committed event; order by the number that the event carries."""
        seen: set[int] = set()
        last: dict[bytes | None, int] = {}
        duplicates = inversions = 0
        for record in self.kafka.consume_all(self.topic):
            number = json.loads(record.value or b"{}")["number"]
            if number in seen:
                duplicates += 1
                continue
            seen.add(number)
            inversions += number < last.get(record.key, -1)
            last[record.key] = number
        return Account(
            lost=len(set(range(self.written)) - seen),
            ghosts=len(seen - set(range(self.written))),
            inversions=inversions,
            duplicates=duplicates,
            statuses=self.statuses(),
        )

    def end(self) -> None:
        """Nothing of it is left."""
        self.relay.end()
        self.engine.dispose()
        with suppress(OSError):
            self.database.proxy.remove(self.database.name)
            if self.broker.name != NO_DOOR:
                self.broker.cure()


def assert_all_is_well(site: Site, *, most_duplicates: int) -> None:
    """I1, I2, I4, I6, I8. Every event is there, in order, produced; no event paid for the fault."""
    found = site.account()

    assert replace(found, duplicates=0) == Account(0, 0, 0, 0, {Status.PRODUCED: site.written})
    assert found.duplicates <= most_duplicates


class Server(Protocol):
    """Where a site's table is. Without a port there is no proxy before it."""

    port: int

    def create_database(self) -> Database:
        """A new one."""


@dataclass
class Sites:
    """Makes sites; each takes the next door of the broker, if it has doors."""

    command: str
    proxy: Toxiproxy
    kafka: FarKafka | KafkaCluster
    folder: Path
    made: list[Site] = field(default_factory=list)

    def make(
        self,
        name: str,
        server: Server,
        *,
        partitions: int = 3,
        topic_config: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> Site:
        """A site whose relay is not started yet."""
        prefix = f"{self.folder.name}-{name}"
        broker, address = self._broker()
        database = Link(self.proxy, f"{prefix}-db")
        near = server.create_database()
        migrate(DatabaseOptions(url=near.async_url))
        topic = f"{prefix}-{uuid.uuid4().hex[:8]}"
        self.kafka.create_topic(topic, partitions=partitions, config=topic_config)
        folder = self.folder / name
        folder.mkdir()
        far = self._far(near, server.port, database) if server.port else near
        config = write_config(folder, far, address, **{**SETTINGS, **settings})
        relay = RelayProcess(self.command, config, name=name)
        self.made.append(Site(name, near, self.kafka, topic, relay, broker, database))
        return self.made[-1]

    def _broker(self) -> tuple[Link, Any]:
        """The next door and where it is; a cluster has none, and nothing spoils the way to it."""
        if isinstance(self.kafka, KafkaCluster):
            return Link(self.proxy, NO_DOOR), self.kafka
        door = self.kafka.doors[len(self.made)]
        return Link(self.proxy, door.name), door

    def _far(self, near: Database, upstream: int, link: Link) -> Database:
        port = self.proxy.add(link.name, upstream=upstream)
        url = make_url(near.async_url).set(port=port)
        return replace(near, async_url=url.render_as_string(hide_password=False))

    def end(self) -> None:
        """All of them."""
        for site in self.made:
            site.end()


def until(condition: Callable[[], object], *, seconds: float = 30) -> float:
    """Wait for *condition*, looking fifty times a second; how long it took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() < started + seconds, f"not within {seconds} s"
        time.sleep(0.02)
    return time.monotonic() - started
