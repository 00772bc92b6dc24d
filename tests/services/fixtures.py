"""
The services as pytest fixtures; README.md in this folder lists them.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from tests.services.database import Database
from tests.services.kafka import Kafka
from tests.services.mariadb import MariaDB
from tests.services.mysql import MySQL
from tests.services.pgbouncer import PgBouncer
from tests.services.postgresql import PostgreSQL
from tests.services.process import MissingPartError, Service
from tests.services.rabbitmq import RabbitMQ
from tests.services.redis import Redis

_started: list[Service] = []

AnyService = TypeVar("AnyService", bound=Service)


def _serve(kind: type[AnyService]) -> Iterator[AnyService]:
    try:
        service = kind()
    except MissingPartError as missing:
        pytest.skip(str(missing))
    try:
        service.start()
        _started.append(service)
        yield service
    finally:
        if service in _started:
            _started.remove(service)
        service.close()


def pytest_runtest_setup() -> None:
    """Each test finds the services running, whatever the test before did to them."""
    for service in _started:
        service.heal()


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    """The MariaDB server of this session."""
    yield from _serve(MariaDB)


@pytest.fixture
def mariadb_database(mariadb: MariaDB) -> Database:
    """A fresh database; it goes with the server, so that a leaked connection blocks no teardown."""
    return mariadb.create_database()


@pytest.fixture(scope="session")
def mysql() -> Iterator[MySQL]:
    """The MySQL server of this session."""
    yield from _serve(MySQL)


@pytest.fixture
def mysql_database(mysql: MySQL) -> Database:
    """As `mariadb_database`, on MySQL."""
    return mysql.create_database()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """The PostgreSQL server of this session."""
    yield from _serve(PostgreSQL)


@pytest.fixture
def postgresql_database(postgresql: PostgreSQL) -> Database:
    """As `mariadb_database`, on PostgreSQL."""
    return postgresql.create_database()


@pytest.fixture
def pgbouncer(postgresql: PostgreSQL) -> Iterator[PgBouncer]:
    """A pooler of this test alone, in front of `postgresql`."""
    try:
        pooler = PgBouncer(postgresql)
    except MissingPartError as missing:
        pytest.skip(str(missing))
    with pooler:
        yield pooler


@pytest.fixture
def sqlite_database(tmp_path: Path) -> Database:
    """A SQLite file that does not exist yet."""
    path = tmp_path / "outbox.db"
    return Database(
        name=str(path), async_url=f"sqlite+aiosqlite:///{path}", sync_url=f"sqlite:///{path}"
    )


@pytest.fixture(scope="session")
def kafka() -> Iterator[Kafka]:
    """The Kafka broker of this session."""
    yield from _serve(Kafka)


@pytest.fixture(scope="session")
def redis() -> Iterator[Redis]:
    """The Redis server of this session."""
    yield from _serve(Redis)


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitMQ]:
    """The RabbitMQ node of this session."""
    yield from _serve(RabbitMQ)


@pytest.fixture
def topic_name() -> str:
    """A name that no other test uses; the topic itself is not created."""
    return f"t-{uuid.uuid4().hex[:12]}"
