"""
Relays that come and go under load: an application as a process of its own, and who ends which relay.

    python -m tests.acceptance.coming_and_going URL TOPIC SECONDS SEED

writes until SECONDS are over. Each transaction locks its aggregates in key order, raises their versions and
outboxes an event for each change. A fifth of them roll back; one in forty is held open.
"""

from __future__ import annotations

import json
import random
import signal
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

import sqlalchemy as sa

from outbox_relay import NotificationEvent, Outbox
from outbox_relay.schema import LANES, tables
from tests.acceptance.relays import RelayProcess
from tests.services.kafka import Kafka

KEYS = 1000
CONNECTIONS = 3
METADATA = sa.MetaData()
AGGREGATES = sa.Table(
    "aggregates",
    METADATA,
    sa.Column("name", sa.String(20), primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
)


class VersionRaised(NotificationEvent, name="aggregate.version_raised", key="aggregate"):
    """An aggregate has a new version."""

    aggregate: str
    version: int


def write(engine: sa.Engine, topic: str, until: float, seed: int) -> None:
    """One connection's work."""
    rng = random.Random(seed)
    outbox = Outbox(source="/coming-and-going")
    with engine.connect() as connection:
        while time.monotonic() < until:
            names = sorted(f"agg-{rng.randrange(KEYS)}" for _ in range(rng.randint(1, 50)))
            versions = {}
            for name in sorted(set(names)):
                locked = sa.select(AGGREGATES.c.version).where(AGGREGATES.c.name == name)
                versions[name] = connection.execute(locked.with_for_update()).scalar_one()
            events = []
            for name in names:
                versions[name] += 1
                events.append(VersionRaised(aggregate=name, version=versions[name]))
            change = AGGREGATES.update().where(AGGREGATES.c.name == sa.bindparam("n"))
            connection.execute(
                change.values(version=sa.bindparam("v")),
                [{"n": name, "v": version} for name, version in versions.items()],
            )
            outbox.add(connection, *events, topic=topic)
            if rng.random() < 1 / 40:
                time.sleep(rng.uniform(0.2, 1.5))
            if rng.random() < 0.2:
                connection.rollback()
            else:
                connection.commit()


def main() -> None:
    """Write until the time is over."""
    url, topic, seconds, seed = sys.argv[1:]
    engine = sa.create_engine(url, isolation_level="READ COMMITTED")
    METADATA.create_all(engine)
    with engine.begin() as connection:
        rows = [{"name": f"agg-{n}", "version": 0} for n in range(KEYS)]
        connection.execute(AGGREGATES.insert(), rows)
    until = time.monotonic() + float(seconds)
    threads = [
        threading.Thread(target=write, args=(engine, topic, until, int(seed) * 100 + number))
        for number in range(CONNECTIONS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@dataclass
class Fates:
    """Ends and pauses relays, and starts them again."""

    relays: list[RelayProcess]
    pause_seconds: float
    rng: random.Random
    counts: Counter[str] = field(default_factory=Counter)
    _paused: dict[int, float] = field(default_factory=dict)

    def step(self) -> None:
        """Something happens to a relay that is not just asleep."""
        self.wake()
        index = self.rng.choice([i for i in range(len(self.relays)) if i not in self._paused])
        relay = self.relays[index]
        fate = self.rng.choice(["kill", "stop", "pause"])
        if fate == "pause" and len(self._paused) + 2 > len(self.relays):
            fate = "kill"
        self.counts[fate] += 1
        if fate == "kill":
            relay.kill()
            relay.start()
        elif fate == "stop":
            relay.running.terminate()
            # A relay that has just been started may not listen to it yet.
            assert relay.running.wait(timeout=30) in (0, -signal.SIGTERM)
            relay.start()
        else:
            relay.running.send_signal(signal.SIGSTOP)
            self._paused[index] = time.monotonic() + self.pause_seconds

    def wake(self, *, all_of_them: bool = False) -> None:
        """Those that have slept long enough go on."""
        for index, until in list(self._paused.items()):
            if all_of_them or time.monotonic() >= until:
                del self._paused[index]
                self.relays[index].running.send_signal(signal.SIGCONT)

    @property
    def faults(self) -> int:
        """How often rows in flight may have been left behind."""
        return self.counts["kill"] + self.counts["pause"]


def owners(engine: sa.Engine) -> Counter[str]:
    """How many lanes each relay holds."""
    lease = tables().lease
    now = "UTC_TIMESTAMP(6)" if engine.dialect.name in ("mysql", "mariadb") else "now()"
    held = sa.select(lease.c.owner).where(lease.c.lane < LANES, lease.c.expires_at > sa.text(now))
    with engine.connect() as connection:
        return Counter(connection.execute(held).scalars())


def wait_for_shares(engine: sa.Engine, relays: list[RelayProcess], shares: list[int]) -> None:
    """Until the lanes are divided so among relays that live."""
    living = tuple(f":{relay.running.pid}" for relay in relays)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        held = owners(engine)
        if sorted(held.values()) == sorted(shares) and all(o.endswith(living) for o in held):
            return
        time.sleep(0.02)
    raise AssertionError(f"the lanes are not divided as {shares} within 60 s")


@dataclass(frozen=True, slots=True)
class Account:
    """The table and the topic, compared by event id; order by the version of the aggregate."""

    committed: int
    lost: int
    ghosts: int
    inversions: int
    duplicates: int
    pending: int


def account(engine: sa.Engine, kafka: Kafka, topic: str) -> Account:
    """What became of every committed event."""
    outbox = tables().outbox
    with engine.connect() as connection:
        rows = connection.execute(sa.select(outbox.c.event_id, outbox.c.status)).all()
    committed = {str(row.event_id) for row in rows}
    seen: set[str] = set()
    last: Counter[bytes | None] = Counter()
    duplicates = inversions = 0
    for record in kafka.consume_all(topic):
        event_id = record.headers["ce_id"].decode()
        if event_id in seen:
            duplicates += 1
            continue
        seen.add(event_id)
        version = json.loads(record.value or b"{}")["version"]
        inversions += version != last[record.key] + 1
        last[record.key] = version
    return Account(
        committed=len(committed),
        lost=len(committed - seen),
        ghosts=len(seen - committed),
        inversions=inversions,
        duplicates=duplicates,
        pending=sum(row.status == 0 for row in rows),
    )


if __name__ == "__main__":
    main()
