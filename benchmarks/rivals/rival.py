"""
What another relay is to the benchmark: something that can be held and let go.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

import sqlalchemy as sa
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec

from benchmarks.child import memory_mb
from benchmarks.programs import cpu_seconds
from benchmarks.rows import make_shapes, orders
from benchmarks.servers import Servers
from tests.services.database import Database
from tests.services.kafka import Kafka

Writer = Callable[[sa.Connection, int], object]
"""Inserts the order with this number; the caller commits."""

FILL_ROWS = 1000
"""Rows in a transaction of a fill."""


class Rival(ABC):
    """
    One relay with its settings. Held, it takes nothing: rows wait. Let go, it publishes them.
    """

    system: str
    how: str
    settings: Mapping[str, str]
    """What differs from its defaults, for the page."""
    note = ""
    """What else the page says."""

    def __init__(self, servers: Servers) -> None:
        self.servers = servers
        self.database = servers.database.create_database()

    def running(self) -> AbstractContextManager[object]:
        """What lives as long as the measurements of this relay."""
        return nullcontext()

    def topic(self, work: str) -> str:
        """The topic where the events of *work* arrive."""
        return work

    @abstractmethod
    def prepare(self, work: str) -> None:
        """Be held, with an empty backlog, ready for the rows of *work*."""

    @abstractmethod
    def fill(self, work: str, rows: int) -> None:
        """Insert *rows* orders in the table's own shape, FILL_ROWS in a transaction."""

    @abstractmethod
    def release(self) -> None:
        """Let go."""

    @abstractmethod
    def hold(self) -> None:
        """Take no more; what is under way comes to its end."""

    @abstractmethod
    def writer(self, work: str) -> Writer:
        """How an application writes one order."""

    @property
    @abstractmethod
    def pid(self) -> int:
        """The relay's process."""

    def cpu_seconds(self) -> float:
        """What the relay's process has used so far."""
        return cpu_seconds(self.pid)

    def peak_mb(self) -> float:
        """Its largest resident memory so far."""
        return memory_mb("VmHWM", self.pid)

    def insert_orders(self, database: Database, into: str, columns: str, rows: int) -> None:
        """Execute ``INSERT INTO into SELECT columns`` over the orders 0 to *rows* - 1."""
        server = self.servers.database
        with server.connect(database.name) as connection, connection.cursor() as cursor:
            make_shapes(cursor)
            for first in range(0, rows, FILL_ROWS):
                last = min(first + FILL_ROWS, rows) - 1
                cursor.execute(
                    f"INSERT INTO {into} SELECT {columns} "
                    f"FROM ({orders(first, last)}) AS orders ORDER BY seq"
                )


class EndOffsets:
    """How many records a topic has."""

    def __init__(self, kafka: Kafka, topic: str, partitions: int) -> None:
        self._admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 0})
        latest: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        self._asked = {TopicPartition(topic, number): latest for number in range(partitions)}

    def count(self) -> int:
        """Now; a topic that was made for the purpose begins at 0."""
        answers = self._admin.list_offsets(self._asked).values()
        return sum(answer.result(30).offset for answer in answers)
