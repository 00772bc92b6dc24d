"""
The servers that all systems share: MariaDB or PostgreSQL, durable, and Kafka.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import psutil
import psycopg
import pymysql

from benchmarks.programs import cpu_seconds
from outbox_relay.migrate import migrate
from outbox_relay.store.options import DatabaseOptions
from tests.services.database import Database
from tests.services.kafka import Kafka
from tests.services.mariadb import MariaDB
from tests.services.postgresql import PostgreSQL
from tests.services.sql_server import SqlServer

MARIADB_SETTINGS = ("--innodb-buffer-pool-size=2G", "--innodb-log-file-size=1G")
KAFKA_HEAP = "1g"
USER = PASSWORD = "ob"


class Kind(StrEnum):
    """The databases that `--database` names."""

    MARIADB = "mariadb"
    POSTGRESQL = "postgresql"


class DatabaseServer(ABC):
    """A running server that makes empty databases and says what it used."""

    kind: Kind
    title: str
    _any_database: str

    def __init__(self, service: SqlServer | PostgreSQL) -> None:
        self.service = service

    @abstractmethod
    def connect(self, name: str) -> Any:
        """A connection of the driver itself to a database, in autocommit, that waits for ever."""

    @abstractmethod
    def cpu_seconds(self) -> float:
        """CPU of the whole server so far."""

    @abstractmethod
    def statements(self, cursor: Any) -> int:
        """Statements that all clients sent so far, this one too; on PostgreSQL transactions."""

    @abstractmethod
    def version(self) -> str:
        """Of the server."""

    def create_database(self) -> Database:
        """An empty one."""
        return self.service.create_database()

    def create_outbox(self) -> Database:
        """One that holds our tables, empty."""
        database = self.create_database()
        migrate(DatabaseOptions(url=database.async_url))
        return database

    def drop(self, name: str) -> None:
        """Remove a database of ours."""
        self.execute(self._any_database, f"DROP DATABASE {name}")

    def execute(self, name: str, sql: str) -> list[tuple[Any, ...]]:
        """Run one statement; its rows."""
        with self.connect(name) as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall()) if cursor.description else []

    def number(self, name: str, sql: str) -> int:
        """The one number that a statement finds."""
        return int(self.execute(name, sql)[0][-1] or 0)


class MariaDBServer(DatabaseServer):
    """MariaDB with a binary log, each commit on disk."""

    kind = Kind.MARIADB
    title = "MariaDB"
    _any_database = "information_schema"

    def connect(self, name: str) -> Any:
        """See DatabaseServer."""
        return pymysql.connect(
            host=self.service.host,
            port=self.service.port,
            user=USER,
            password=PASSWORD,
            database=name,
            autocommit=True,
        )

    def cpu_seconds(self) -> float:
        """See DatabaseServer."""
        return cpu_seconds(self.service.pid)

    def statements(self, cursor: Any) -> int:
        """See DatabaseServer."""
        cursor.execute("SHOW GLOBAL STATUS LIKE 'Questions'")
        return int(cursor.fetchone()[1])

    def version(self) -> str:
        """See DatabaseServer."""
        (text,) = self.execute(self._any_database, "SELECT VERSION()")[0]
        return f"MariaDB {text.split('-')[0]}"


class PostgreSQLServer(DatabaseServer):
    """PostgreSQL, each commit on disk."""

    kind = Kind.POSTGRESQL
    title = "PostgreSQL"
    _any_database = "postgres"

    def connect(self, name: str) -> Any:
        """See DatabaseServer."""
        return psycopg.connect(
            host=self.service.host,
            port=self.service.port,
            user=USER,
            password=PASSWORD,
            dbname=name,
            autocommit=True,
        )

    def cpu_seconds(self) -> float:
        """See DatabaseServer."""
        # What a session that ended had used is in the first process's own number.
        pids = [child.pid for child in psutil.Process(self.service.pid).children(recursive=True)]
        return cpu_seconds(self.service.pid) + sum(_cpu_of_living(pid) for pid in pids)

    def statements(self, cursor: Any) -> int:
        """See DatabaseServer."""
        cursor.execute("SELECT sum(xact_commit + xact_rollback) FROM pg_stat_database")
        return int(cursor.fetchone()[0])

    def version(self) -> str:
        """See DatabaseServer."""
        (text,) = self.execute(self._any_database, "SHOW server_version")[0]
        return f"PostgreSQL {text.split()[0]}"


def _cpu_of_living(pid: int) -> float:
    try:
        return cpu_seconds(pid)
    except (FileNotFoundError, ProcessLookupError):
        return 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """What a scenario measures against."""

    database: DatabaseServer
    kafka: Kafka

    def cpu_seconds(self) -> tuple[float, float]:
        """CPU of database and broker so far."""
        return self.database.cpu_seconds(), cpu_seconds(self.kafka.pid)


@contextmanager
def database_server(kind: Kind) -> Iterator[DatabaseServer]:
    """A server of this kind, until the end of the block."""
    with ExitStack() as stack:
        if kind is Kind.MARIADB:
            yield MariaDBServer(stack.enter_context(MariaDB(extra_args=MARIADB_SETTINGS)))
        else:
            yield PostgreSQLServer(stack.enter_context(PostgreSQL()))


@contextmanager
def servers(kind: Kind) -> Iterator[Servers]:
    """Database and broker, until the end of the block."""
    with database_server(kind) as database, Kafka(heap=KAFKA_HEAP) as kafka:
        yield Servers(database=database, kafka=kafka)
