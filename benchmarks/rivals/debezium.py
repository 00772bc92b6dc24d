"""
Debezium's MariaDB connector with the outbox EventRouter, on Kafka Connect standalone.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from benchmarks.orders import EVENT_NAME, PARTITIONS, customer, order_json
from benchmarks.rivals.install import CONNECT
from benchmarks.rivals.rival import EndOffsets, Rival, Writer
from benchmarks.servers import Servers
from tests.services.kafka import Kafka
from tests.services.mariadb import MariaDB
from tests.services.process import MissingPartError, Service, free_port

WAIT_SECONDS = 60.0
WARM_UP_ROWS = 100_000
USER = PASSWORD = "debezium"

JAVA = (
    "-server -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -XX:InitiatingHeapOccupancyPercent=35 "
    "-XX:+ExplicitGCInvokesConcurrent -Xms256M -Xmx2G"
)
"""What connect-standalone.sh gives to Java."""

TABLE = """
CREATE TABLE outboxevent (
    id CHAR(36) NOT NULL PRIMARY KEY,
    aggregatetype VARCHAR(255) NOT NULL,
    aggregateid VARCHAR(255) NOT NULL,
    type VARCHAR(255) NOT NULL,
    payload JSON NOT NULL
)
"""
COLUMNS = "outboxevent (id, aggregatetype, aggregateid, type, payload)"

REQUIRED = {
    "snapshot.mode": "no_data",
    "key.converter": "org.apache.kafka.connect.storage.StringConverter",
    "value.converter": "org.apache.kafka.connect.storage.StringConverter",
}
"""The outbox is published from the binlog alone, as it is."""

TUNED = {
    "max.batch.size": "8192",
    "max.queue.size": "32768",
    "poll.interval.ms": "10",
    "producer.override.linger.ms": "5",
    "producer.override.batch.size": "262144",
}


class Connect(Service):
    """A Connect worker without connectors, reached over its REST interface."""

    name = "connect"

    def __init__(self, kafka: Kafka, folder: Path | None = None) -> None:
        if not (CONNECT / "plugins").is_dir():
            raise MissingPartError(
                "Kafka Connect is not here; run: python -m benchmarks.rivals.install"
            )
        super().__init__(folder)
        self._port = free_port()
        self._kafka = kafka

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """The answer of the REST interface to *body*, both JSON."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._port}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=WAIT_SECONDS) as answer:
            return json.loads(answer.read() or b"null")

    def _prepare(self) -> None:
        settings = {
            "bootstrap.servers": self._kafka.bootstrap_servers,
            "listeners": f"http://127.0.0.1:{self._port}",
            "plugin.path": str(CONNECT / "plugins"),
            "key.converter": "org.apache.kafka.connect.json.JsonConverter",
            "value.converter": "org.apache.kafka.connect.json.JsonConverter",
            "offset.storage.file.filename": str(self.folder / "offsets"),
        }
        self._worker.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))

    @property
    def _worker(self) -> Path:
        return self.folder / "worker.properties"

    def _command(self) -> Sequence[str]:
        return [
            "java",
            *JAVA.split(),
            "-Dlog4j2.level=WARN",
            "-cp",
            str(CONNECT / "libs" / "*"),
            "org.apache.kafka.connect.cli.ConnectStandalone",
            str(self._worker),
        ]

    def _is_ready(self) -> bool:
        try:
            self.ask("GET", "/connectors")
        except (OSError, ValueError):
            return False
        return True


class Debezium(Rival):
    """
    The connector reads the binlog; the rows stay in one table, which it never reads.

    It is held by Connect's own stop, which ends the connector's task and stores its position, and
    let go by resume: the worker's process, warm, is the same for all works.
    """

    system = "Debezium 3.4"

    def __init__(self, servers: Servers, *, how: str, tuning: Mapping[str, str]) -> None:
        super().__init__(servers)
        self.how = how
        self.settings = {**REQUIRED, **tuning}
        self._connect: Connect | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """A worker with the connector, which has published some rows before it is held."""
        kafka = self.servers.kafka
        self._make_table()
        # Where it tells of schema changes; a broker that makes topics by itself would make it.
        kafka.create_topic(self.database.name)
        with Connect(kafka) as self._connect:
            self._connect.ask("POST", "/connectors", {"name": "outbox", "config": self._config()})
            self._wait_for("RUNNING", tasks=1)
            self._warm_up()
            self._stop()
            self.note = (
                f"the start of Debezium's process and the {WARM_UP_ROWS:,} rows before the first run took "
                f"{self.cpu_seconds():.0f} s of CPU, which count nowhere"
            )
            yield

    def topic(self, work: str) -> str:
        """As the EventRouter names it by default."""
        return f"outbox.event.{work}"

    def prepare(self, work: str) -> None:
        """It is held already; the router finds the topic in the row."""

    def fill(self, work: str, rows: int) -> None:
        """The payload as text."""
        columns = f"UUID(), '{work}', customer, '{EVENT_NAME}', order_json"
        self.insert_orders(self.database, COLUMNS, columns, rows)

    def release(self) -> None:
        """Connect starts a task that goes on from the stored position."""
        self._worker.ask("PUT", "/connectors/outbox/resume")

    def hold(self) -> None:
        """Connect ends the task."""
        self._stop()

    def writer(self, work: str) -> Writer:
        """A plain INSERT."""
        statement = sa.text(
            f"INSERT INTO {COLUMNS} VALUES (:id, '{work}', :key, '{EVENT_NAME}', :payload)"
        )
        return lambda connection, number: connection.execute(
            statement,
            {"id": str(uuid.uuid4()), "key": customer(number), "payload": order_json(number)},
        )

    @property
    def pid(self) -> int:
        """The worker's."""
        return self._worker.pid

    @property
    def _worker(self) -> Connect:
        assert self._connect is not None
        return self._connect

    def _make_table(self) -> None:
        server = self.servers.database.service
        assert isinstance(server, MariaDB)
        with server.root_connection(self.database.name) as root, root.cursor() as cursor:
            cursor.execute(TABLE)
            cursor.execute(f"CREATE USER IF NOT EXISTS '{USER}'@'%' IDENTIFIED BY '{PASSWORD}'")
            cursor.execute(
                "GRANT SELECT, RELOAD, SHOW DATABASES, REPLICATION SLAVE, BINLOG MONITOR, "
                f"SLAVE MONITOR ON *.* TO '{USER}'@'%'"
            )

    def _config(self) -> dict[str, str]:
        name = self.database.name
        return {
            "database.hostname": "127.0.0.1",
            "database.port": str(self.servers.database.service.port),
            "database.user": USER,
            "database.password": PASSWORD,
            "database.server.id": "5400",
            "database.include.list": name,
            "table.include.list": f"{name}.outboxevent",
            "topic.prefix": name,
            "schema.history.internal.kafka.bootstrap.servers": self.servers.kafka.bootstrap_servers,
            "schema.history.internal.kafka.topic": f"schema-{name}",
            "connector.class": "io.debezium.connector.mariadb.MariaDbConnector",
            "tasks.max": "1",
            "transforms": "outbox",
            "transforms.outbox.type": "io.debezium.transforms.outbox.EventRouter",
            **self.settings,
        }

    def _warm_up(self) -> None:
        work = f"warm-{self._worker.pid}"
        kafka = self.servers.kafka
        kafka.create_topic(self.topic(work), partitions=PARTITIONS)
        ends = EndOffsets(kafka, self.topic(work), PARTITIONS)

        def reads() -> bool:
            # The rows from before its first position are none of its own, and it says nothing
            # when it has that position.
            self.fill(work, 1)
            time.sleep(1)
            return ends.count() > 0

        self._wait(reads)
        self.fill(work, WARM_UP_ROWS)
        self._wait(lambda: ends.count() > WARM_UP_ROWS)

    def _stop(self) -> None:
        self._worker.ask("PUT", "/connectors/outbox/stop")
        self._wait_for("STOPPED", tasks=0)

    def _wait_for(self, state: str, *, tasks: int) -> None:
        def reached() -> bool:
            try:
                status = self._worker.ask("GET", "/connectors/outbox/status")
            except urllib.error.HTTPError:
                return False
            return (
                status["connector"]["state"] == state
                and [task["state"] for task in status["tasks"]] == [state] * tasks
            )

        self._wait(reached)

    def _wait(self, reached: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while not reached():
            if time.monotonic() > deadline:
                log = self._worker.log_path.read_text(errors="replace").splitlines()
                raise AssertionError("Debezium did not get there:\n" + "\n".join(log[-30:]))
            time.sleep(0.1)
