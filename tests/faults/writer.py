"""
An application that keeps a ledger of what it committed, and lives through every outage of its database.

    python -m tests.faults.writer URL TOPIC LEDGER SEED

writes until SIGTERM. Each transaction locks its aggregates in key order, raises their versions and outboxes an
event for each change. A fifth of them roll back; one in forty is held open. The ledger tells the events of each
transaction before its end, and the end when it is known, on the disk before the next transaction begins.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa

from outbox_relay import NotificationEvent, Outbox

KEYS = 300
CONNECTIONS = 3
PAUSE_SECONDS = 0.05
AWAY_SECONDS = 0.2
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


class Ledger:
    """A file with a line for each fact: `begun TRANSACTION EVENT...`, `committed T`, `rolled_back T`."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def begun(self, transaction: str, events: list[VersionRaised]) -> None:
        """The transaction is about to end, nobody knows how."""
        self._write(f"begun {transaction} {' '.join(event.event_id.hex for event in events)}")

    def ended(self, how: str, transaction: str) -> None:
        """The database has said so. On the disk when this returns."""
        self._write(f"{how} {transaction}")
        os.fsync(self._file)

    def _write(self, line: str) -> None:
        os.write(self._file, f"{line}\n".encode())


@dataclass
class Application:
    """What the connections share."""

    engine: sa.Engine
    topic: str
    ledger: Ledger
    outbox: Outbox = field(default_factory=lambda: Outbox(source="/kill-loop"))
    stopping: threading.Event = field(default_factory=threading.Event)

    def prepare(self) -> None:
        """The aggregates, at version 0."""
        METADATA.create_all(self.engine)
        with self.engine.begin() as connection:
            rows = [{"name": f"agg-{n}", "version": 0} for n in range(KEYS)]
            connection.execute(AGGREGATES.insert(), rows)

    def write(self, seed: int) -> None:
        """One connection's work, and the next one's when the database went away."""
        rng = random.Random(seed)
        while not self.stopping.is_set():
            try:
                with self.engine.connect() as connection:
                    while not self.stopping.wait(PAUSE_SECONDS):
                        self.transaction(connection, rng)
            except sa.exc.DBAPIError:
                self.stopping.wait(AWAY_SECONDS)

    def transaction(self, connection: sa.Connection, rng: random.Random) -> None:
        """Lock, change, outbox; then commit or not. A COMMIT without an answer is never noted as ended."""
        names = sorted(f"agg-{rng.randrange(KEYS)}" for _ in range(rng.randint(1, 30)))
        versions = {}
        for name in dict.fromkeys(names):
            locked = sa.select(AGGREGATES.c.version).where(AGGREGATES.c.name == name)
            versions[name] = connection.execute(locked.with_for_update()).scalar_one()
        events = []
        for name in names:
            versions[name] += 1
            events.append(VersionRaised(aggregate=name, version=versions[name]))
        connection.execute(
            AGGREGATES.update()
            .where(AGGREGATES.c.name == sa.bindparam("n"))
            .values(version=sa.bindparam("v")),
            [{"n": name, "v": version} for name, version in versions.items()],
        )
        self.outbox.add(connection, *events, topic=self.topic)
        transaction = uuid.uuid4().hex
        self.ledger.begun(transaction, events)
        if rng.random() < 1 / 40:
            # Longer than a cursor keeps behind: only its knowledge of open ids keeps the order then.
            self.stopping.wait(rng.uniform(0.2, 4.0))
        if rng.random() < 0.2:
            connection.rollback()
            self.ledger.ended("rolled_back", transaction)
        else:
            connection.commit()
            self.ledger.ended("committed", transaction)


def main() -> None:
    """Write until SIGTERM."""
    url, topic, ledger, seed = sys.argv[1:]
    engine = sa.create_engine(url, isolation_level="READ COMMITTED", poolclass=sa.NullPool)
    application = Application(engine, topic, Ledger(Path(ledger)))
    signal.signal(signal.SIGTERM, lambda *_: application.stopping.set())
    application.prepare()
    threads = [
        threading.Thread(target=application.write, args=(int(seed) * 100 + number,))
        for number in range(CONNECTIONS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
