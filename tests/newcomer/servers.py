"""
The database and the broker that the pages speak of, and the programs of Kafka's `bin`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.results import kafka_version
from tests.services.kafka import LIBRARIES, Kafka
from tests.services.mariadb import MariaDB
from tests.services.process import free_port

# What bin/kafka-topics.sh runs. The jars come without the scripts.
_TOPICS = """#!/bin/sh
exec java -cp '{libraries}/*' org.apache.kafka.tools.TopicCommand "$@"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """
    *programs* is a folder for PATH, *moved* where the pages' addresses are on this machine; *administer* runs
    SQL with every right.
    """

    programs: Path
    moved: dict[str, str]
    http_port: int
    versions: str
    administer: Callable[[str], None]


def offered(mariadb: MariaDB, kafka: Kafka, programs: Path) -> Servers:
    """What a reader has who has *mariadb* and *kafka*, with the programs written into *programs*."""
    topics = programs / "kafka-topics.sh"
    topics.write_text(_TOPICS.format(libraries=LIBRARIES))
    topics.chmod(0o755)

    def administer(text: str) -> None:
        with mariadb.root_connection() as connection, connection.cursor() as cursor:
            for statement in text.split(";\n"):
                if statement.strip():
                    cursor.execute(statement)

    port = free_port()
    return Servers(
        programs=programs,
        moved={
            "localhost:3306": f"{mariadb.host}:{mariadb.port}",
            "localhost:9092": kafka.bootstrap_servers,
            "localhost:9464": f"localhost:{port}",
        },
        http_port=port,
        versions=f"MariaDB {mariadb_version(mariadb)}, {kafka_version()}",
        administer=administer,
    )


def mariadb_version(mariadb: MariaDB) -> str:
    """Such as 10.11.6."""
    with mariadb.root_connection() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT VERSION()")
        [version] = cursor.fetchone()
    return str(version).partition("-")[0]


@contextmanager
def running() -> Iterator[Servers]:
    """Both of them, of our own, until the end."""
    with (
        MariaDB() as mariadb,
        Kafka() as kafka,
        tempfile.TemporaryDirectory(prefix="newcomer-bin-") as programs,
    ):
        yield offered(mariadb, kafka, Path(programs))
