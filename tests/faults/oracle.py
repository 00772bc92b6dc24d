"""The ledger of the writer, the table and the topic, compared."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from outbox_relay.schema import Status, tables
from tests.services.kafka import Kafka, Record


@dataclass(frozen=True, slots=True)
class Told:
    """What the writer knows. Of *unknown* events nobody was told whether they were committed."""

    committed: frozenset[str]
    rolled_back: frozenset[str]
    unknown: frozenset[str]


def told(lines: Iterable[str]) -> Told:
    """The ledger's lines by what became of each event."""
    begun: dict[str, list[str]] = {}
    ended: dict[str, set[str]] = {"committed": set(), "rolled_back": set()}
    for line in lines:
        verb, transaction, *events = line.split()
        if verb == "begun":
            begun[transaction] = events
        else:
            ended[verb].update(begun.pop(transaction))
    return Told(
        committed=frozenset(ended["committed"]),
        rolled_back=frozenset(ended["rolled_back"]),
        unknown=frozenset(event for events in begun.values() for event in events),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """
    What became of every event.

    *vanished*: the database said that it was committed, and it is in no row. *lost*: in a row that is not
    dead, and never published. *ghosts*: published, and in no row.
    """

    committed: int
    rolled_back: int
    unknown: int
    published: int
    vanished: int
    lost: int
    ghosts: int
    inversions: int
    dead: int
    pending: int
    duplicates: int

    @property
    def is_well(self) -> bool:
        """Nothing lost, invented, inverted, given up or left."""
        wrong = (self.vanished, self.lost, self.ghosts, self.inversions, self.dead, self.pending)
        return not any(wrong)


def account(known: Told, rows: dict[str, int], records: Iterable[Record]) -> Account:
    """
    Compare by event id; order by the version of the aggregate, which knows nothing of our ids.

    *rows* are statuses by event id.
    """
    seen: set[str] = set()
    last: Counter[bytes | None] = Counter()
    duplicates = inversions = 0
    for record in records:
        event_id = record.headers["ce_id"].decode().replace("-", "")
        if event_id in seen:
            duplicates += 1
            continue
        seen.add(event_id)
        version = json.loads(record.value or b"{}")["version"]
        inversions += version != last[record.key] + 1
        last[record.key] = version
    statuses = Counter(rows.values())
    living = {event_id for event_id, status in rows.items() if status != Status.DEAD}
    return Account(
        committed=len(known.committed),
        rolled_back=len(known.rolled_back),
        unknown=len(known.unknown),
        published=len(seen),
        vanished=len(known.committed - rows.keys()),
        lost=len(living - seen),
        ghosts=len(seen - rows.keys()) + len(known.rolled_back & rows.keys()),
        inversions=inversions,
        dead=statuses[Status.DEAD],
        pending=statuses[Status.PENDING],
        duplicates=duplicates,
    )


def account_of(ledger: Path, engine: sa.Engine, kafka: Kafka, topic: str) -> Account:
    """The account of one table and one topic."""
    outbox = tables().outbox
    with engine.connect() as connection:
        found = connection.execute(sa.select(outbox.c.event_id, outbox.c.status)).all()
    rows = {row.event_id.hex: row.status for row in found}
    return account(told(ledger.read_text().splitlines()), rows, kafka.consume_all(topic))


class Repeats(threading.Thread):
    """Reads the topic all the time, and notes during which fault a record came again."""

    def __init__(self, kafka: Kafka, topic: str, partitions: int) -> None:
        super().__init__(daemon=True)
        self._options = {
            "bootstrap.servers": kafka.bootstrap_servers,
            "group.id": f"repeats-{topic}",
            "enable.auto.commit": False,
            "log_level": 0,
        }
        self._places = [TopicPartition(topic, p, OFFSET_BEGINNING) for p in range(partitions)]
        self._seen: set[bytes] = set()
        self._ended = threading.Event()
        self.fault = 0
        self.by_fault: Counter[int] = Counter()

    def run(self) -> None:
        """Read until `end`."""
        consumer = Consumer(self._options)
        consumer.assign(self._places)
        while not self._ended.is_set():
            for message in consumer.consume(num_messages=1000, timeout=0.2):
                if message.error() is None:
                    self._note(dict(message.headers() or [])["ce_id"])
        consumer.close()

    def _note(self, event_id: bytes) -> None:
        if event_id in self._seen:
            self.by_fault[self.fault] += 1
        self._seen.add(event_id)

    def end(self) -> None:
        """Stop reading."""
        self._ended.set()
        self.join()
