"""
A shop, its database, its broker, a relay, and a Prometheus that looks at it with hurried alerts.
"""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pymysql
import sqlalchemy as sa
import yaml
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource

from outbox_relay import Outbox
from tests.acceptance.relays import RelayProcess, write_config
from tests.deploy.image import ROOT
from tests.deploy.prometheus import Prometheus
from tests.deploy.runbook import Operator, faster
from tests.services.database import Database
from tests.services.kafka import Kafka
from tests.services.mariadb import MariaDB
from tests.services.process import free_port

FILES = ROOT / "deploy" / "prometheus"
JOB = "shop"


class World:
    """What an alert is about. Its parts may be broken; the operator mends them."""

    def __init__(
        self,
        folder: Path,
        command: str | Path,
        *,
        mariadb: MariaDB,
        database: Database,
        kafka: Kafka,
        topic: str,
        factor: int,
        settings: str = "",
        **relay: Any,
    ) -> None:
        self.folder, self.command, self.factor = folder, str(command), factor
        self.mariadb, self.database, self.kafka, self.topic = mariadb, database, kafka, topic
        self.asked_for = topic
        self.port = free_port()
        options = {"sample_seconds": 0.5, "backoff_max_seconds": 1.0, **relay}
        config = write_config(folder, database, kafka, publish_deadline_seconds=4.0, **options)
        text = config.read_text().replace("port = 0", f"port = {self.port}")
        config.write_text(f"{text}{settings}\n")
        self.config = config
        self.relay = RelayProcess(self.command, config)
        self.outbox = Outbox(compressor=None)
        self.engine = sa.create_engine(database.sync_url, poolclass=sa.NullPool)
        self._writing = threading.Event()
        self._writer: threading.Thread | None = None

    # The shop

    def migrate(self) -> None:
        """Make the tables."""
        subprocess.run(
            [self.command, "migrate", "--config", str(self.config)],
            check=True,
            cwd=self.folder,
            capture_output=True,
        )

    def write(self, topic: str, *payloads: object, key: str | None = None) -> None:
        """Commit events."""
        with self.engine.begin() as connection:
            self.outbox.add(connection, *payloads, name="e", topic=topic, key=key)

    def execute(self, *statements: str) -> None:
        """Run SQL with every right: triggers need it."""
        connection = self.mariadb.root_connection(self.database.name)
        with connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def write_for_ever(self, write: Callable[[], None] | None = None) -> None:
        """Write an event five times a second until `stop_writing`, as far as the database lets us."""

        def work() -> None:
            while not self._writing.wait(0.2):
                with contextlib.suppress(sa.exc.SQLAlchemyError, pymysql.MySQLError):
                    (write or (lambda: self.write(self.topic, {"a": 1})))()

        self._writing.clear()
        self._writer = threading.Thread(target=work, daemon=True)
        self._writer.start()

    def stop_writing(self) -> None:
        """Write nothing more."""
        self._writing.set()
        if self._writer is not None:
            self._writer.join()

    def set_topic(self, topic: str, **settings: str) -> None:
        """Change settings of a topic, such as max_message_bytes."""
        admin = AdminClient({"bootstrap.servers": self.kafka.bootstrap_servers})
        entries = [
            ConfigEntry(name.replace("_", "."), value, incremental_operation=AlterConfigOpType.SET)
            for name, value in settings.items()
        ]
        resource = ConfigResource("topic", topic, incremental_configs=entries)
        for done in admin.incremental_alter_configs([resource]).values():
            done.result(timeout=30)

    # Who looks at it, and who mends it

    @contextlib.contextmanager
    def watched(self) -> Iterator[Prometheus]:
        """A Prometheus with the alerts of deploy/, each time in them divided by the factor."""
        rules = self.folder / "alerts.yml"
        rules.write_text(faster((FILES / "alerts.yml").read_text(), self.factor))
        config = self.folder / "prometheus.yml"
        targets = [{"targets": [f"127.0.0.1:{self.port}"]}]
        config.write_text(
            yaml.safe_dump(
                {
                    "global": {"scrape_interval": "250ms", "evaluation_interval": "250ms"},
                    "rule_files": [str(rules)],
                    "scrape_configs": [{"job_name": JOB, "static_configs": targets}],
                }
            )
        )
        with Prometheus(config) as server:
            yield server

    @contextlib.contextmanager
    def operator(self) -> Iterator[Operator]:
        """Somebody with the runbook."""
        environment = {
            "OUTBOX_RELAY_CONFIG": str(self.config),
            "RELAY": f"http://127.0.0.1:{self.port}",
            "KAFKA": self.kafka.bootstrap_servers,
            "TOPIC": self.asked_for,
        }
        person = Operator(self.folder, self.command, does=self._do, environment=environment)
        try:
            yield person
        finally:
            person.close()

    def _do(self, words: Sequence[str]) -> None:
        match list(words):
            case ["systemctl", "status", *_]:
                pass
            case ["systemctl", "start" | "restart", "outbox-relay"]:
                self.relay.end()
                self.relay.start()
            case ["systemctl", "start", "kafka" | "mariadb" as name]:
                service = self.kafka if name == "kafka" else self.mariadb
                service.thaw()
                service.start()
            case ["kafka-topics.sh", *_, "--create", "--topic", topic]:
                self.kafka.create_topic(topic)
            case _:
                raise AssertionError(f"the runbook says {words}, which nobody here can do")

    def end(self) -> None:
        """Leave nothing behind."""
        self.stop_writing()
        self.relay.end()
        self.engine.dispose()


def wait_until(server: Prometheus, expression: str, *, seconds: float = 90) -> None:
    """Until *expression* gives nothing."""
    deadline = time.monotonic() + seconds
    while found := server.query(expression):
        assert time.monotonic() < deadline, f"{expression} still gives {found}"
        time.sleep(0.1)
