"""
An application under load, as a process of its own: commits, rolls back, stalls.

    python -m tests.acceptance.writer URL TOPIC EVENTS KEYS CONNECTIONS SEED

Each transaction locks the rows of its aggregates in key order, raises their versions and outboxes an
event for each change; the event carries key and version. A fifth of the transactions roll back; one
in forty is held open for 0.5 to 3.5 s, so that ids commit out of order. Prints the counts.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time

import sqlalchemy as sa

from outbox_relay import NotificationEvent, Outbox


class VersionRaised(NotificationEvent, name="aggregate.version_raised", key="aggregate"):
    """An aggregate has a new version."""

    aggregate: str
    version: int
    note: str


METADATA = sa.MetaData()
AGGREGATES = sa.Table(
    "aggregates",
    METADATA,
    sa.Column("name", sa.String(20), primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
)


class Application:
    """What the threads share."""

    def __init__(self, url: str, topic: str, events: int, keys: int, seed: int) -> None:
        self.engine = sa.create_engine(url, isolation_level="READ COMMITTED", pool_size=8)
        self.outbox = Outbox(source="/acceptance")
        self.topic = topic
        self.keys = [f"agg-{n:04d}" for n in range(keys)]
        self.seed = seed
        self.lock = threading.Lock()
        self.wanted = events
        self.committed = self.rolled_back = self.held = 0

    def prepare(self) -> None:
        """The aggregates, at version 0."""
        METADATA.create_all(self.engine)
        with self.engine.begin() as connection:
            rows = [{"name": key, "version": 0} for key in self.keys]
            connection.execute(AGGREGATES.insert().prefix_with("IGNORE"), rows)

    def write(self, number: int) -> None:
        """One connection's work, until enough is committed."""
        rng = random.Random(self.seed * 100 + number)
        with self.engine.connect() as connection:
            while self.committed < self.wanted:
                self.transaction(connection, rng)

    def transaction(self, connection: sa.Connection, rng: random.Random) -> None:
        """Lock, change, outbox; then commit or not."""
        names = sorted(rng.choices(self.keys, k=rng.randint(1, 50)))
        events = []
        versions: dict[str, int] = {}
        try:
            for name in sorted(set(names)):
                versions[name] = connection.execute(
                    sa.select(AGGREGATES.c.version)
                    .where(AGGREGATES.c.name == name)
                    .with_for_update()
                ).scalar_one()
            for name in names:
                versions[name] += 1
                note = "x" * rng.randint(0, 600)
                events.append(VersionRaised(aggregate=name, version=versions[name], note=note))
            connection.execute(
                AGGREGATES.update()
                .where(AGGREGATES.c.name == sa.bindparam("n"))
                .values(version=sa.bindparam("v")),
                [{"n": name, "v": version} for name, version in versions.items()],
            )
            self.outbox.add(connection, *events, topic=self.topic)
        except sa.exc.OperationalError:  # a lock wait or a deadlock of our own: try another
            connection.rollback()
            return
        held = rng.random() < 1 / 40
        if held:
            time.sleep(rng.uniform(0.5, 3.5))
        give_up = rng.random() < 0.2
        if give_up:
            connection.rollback()
        else:
            connection.commit()
        with self.lock:
            self.held += held
            self.rolled_back += len(events) if give_up else 0
            self.committed += 0 if give_up else len(events)


def main() -> None:
    """Write until enough is committed, then say how much that was."""
    url, topic, *numbers = sys.argv[1:]
    events, keys, connections, seed = map(int, numbers)
    application = Application(url, topic, events, keys, seed)
    application.prepare()
    threads = [
        threading.Thread(target=application.write, args=(number,)) for number in range(connections)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = {name: getattr(application, name) for name in ("committed", "rolled_back", "held")}
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
