"""
What a relay is to the benchmark of rivals: something that can be held and let go.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from tests.services.database import Database
from tests.services.kafka import Kafka
from tests.services.mariadb import MariaDB

Writer = Callable[[sa.Connection, int], object]
"""Inserts the event with this number; the caller commits."""

PARTITIONS = 16
"""Of each drain's topic."""

FILL_ROWS = 1000
"""Rows in a transaction of a fill."""


class Subject(ABC):
    """
    One relay with its settings, on servers that others use too.

    Held, it takes nothing from its table: rows wait. Let go, it publishes them.
    """

    name: str
    settings: Mapping[str, str]
    """What differs from the product's defaults, and what the product asks for."""

    def __init__(self, mariadb: MariaDB, kafka: Kafka) -> None:
        self.mariadb = mariadb
        self.kafka = kafka

    def running(self) -> AbstractContextManager[object]:
        """What lives as long as the measurements of this relay."""
        return nullcontext()

    def topic(self, work: str) -> str:
        """The topic where the events of *work* arrive."""
        return work

    @abstractmethod
    def prepare(self, work: str) -> None:
        """Be held, with an empty backlog, so that the rows of *work* can be written."""

    @abstractmethod
    def fill(self, work: str, rows: int) -> None:
        """Insert *rows* events in the table's own shape, FILL_ROWS in a transaction."""

    @abstractmethod
    def release(self, *, until_empty: bool) -> None:
        """
        Let go. With *until_empty* it may end by itself when the backlog is gone.
        """

    def finish(self) -> None:
        """Return when the backlog that is on the topic is done with in the database too."""

    @abstractmethod
    def hold(self) -> None:
        """Take no more; what is under way comes to its end."""

    @abstractmethod
    def connection_url(self) -> str:
        """Where an application writes its events, for SQLAlchemy."""

    @abstractmethod
    def writer(self, work: str) -> Writer:
        """How an application writes one small event, whose value is its number."""

    def cpu_seconds(self) -> float:
        """What the relay's process has used so far."""
        return cpu_seconds(self.pid)

    @property
    @abstractmethod
    def pid(self) -> int:
        """The relay's process."""


class EndOffsets:
    """How many records a topic has."""

    def __init__(self, kafka: Kafka, topic: str, partitions: int) -> None:
        self._admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 0})
        self._asked = {
            TopicPartition(topic, partition): OffsetSpec.latest() for partition in range(partitions)
        }

    def count(self) -> int:
        """Now; a topic that was made for the purpose begins at 0."""
        answers = self._admin.list_offsets(self._asked).values()
        return sum(answer.result(30).offset for answer in answers)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    with Path(f"/proc/{pid}/stat").open() as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_mb(pid: int) -> float:
    """The largest resident memory of a process so far."""
    with Path(f"/proc/{pid}/status").open() as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024


def insert_all(database: Database, statement: str, rows: int, row: Callable[[int], Any]) -> None:
    """Execute *statement* with the values of each row, FILL_ROWS in a transaction."""
    engine = sa.create_engine(database.sync_url)
    with engine.connect() as connection:
        cursor = connection.connection.cursor()
        for start in range(0, rows, FILL_ROWS):
            cursor.executemany(
                statement, [row(number) for number in range(start, min(start + FILL_ROWS, rows))]
            )
            connection.connection.commit()
    engine.dispose()
