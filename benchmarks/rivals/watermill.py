"""
watermill's forwarder from watermill-sql's MySQL tables to Kafka.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from benchmarks.orders import customer, order_json
from benchmarks.rivals.install import FORWARDER
from benchmarks.rivals.rival import Rival, Writer
from benchmarks.servers import Servers
from tests.services.process import MissingPartError, Service
from tests.services.sql_server import PASSWORD, USER

COLUMNS = "watermill_events (uuid, payload, metadata)"
ENVELOPE = (
    'CONCAT(\'{{"destination_topic": "{topic}", "uuid": "\', UUID(), \'", "payload": "\', '
    "REPLACE(TO_BASE64(order_json), '\\n', ''), '\", \"metadata\": {{\"key\": \"', customer, '\"}}}}')"
)
"""`envelope` in SQL."""

REQUIRED = {"RequiredAcks": "WaitForAll"}
"""The acks that the others wait for, too."""

TUNED = {"SubscribeBatchSize": "1000", "PollInterval": "10ms", "interpolateParams": "true"}
OPTIONS = {"SubscribeBatchSize": "-batch", "PollInterval": "-poll"}


class Forwarder(Service):
    """The forwarder as a process; it has no port of its own."""

    name = "forwarder"

    def __init__(self, arguments: Sequence[str]) -> None:
        if not FORWARDER.exists():
            raise MissingPartError(
                "watermill's forwarder is not here; run: python -m benchmarks.rivals.install"
            )
        super().__init__(None)
        self._arguments = arguments

    def _prepare(self) -> None:
        self.log_path.write_text("")

    def _command(self) -> Sequence[str]:
        return [str(FORWARDER), *self._arguments]

    def _is_ready(self) -> bool:
        return "running\n" in self.log_path.read_text()


class Watermill(Rival):
    """Fresh tables for each work; held, its process does not run."""

    system = "watermill-sql 3.1 forwarder"

    def __init__(self, servers: Servers, *, how: str, tuning: Mapping[str, str]) -> None:
        super().__init__(servers)
        self.how = how
        self.settings = {**REQUIRED, **tuning}
        self._tuning = tuning
        self._process: Forwarder | None = None

    def prepare(self, work: str) -> None:
        """The forwarder makes its tables."""
        self.database = self.servers.database.create_database()
        server = f"tcp(127.0.0.1:{self.servers.database.service.port})"
        address = f"{USER}:{PASSWORD}@{server}/{self.database.name}"
        if "interpolateParams" in self._tuning:
            address += f"?interpolateParams={self._tuning['interpolateParams']}"
        options = [
            f"{option}={self._tuning[name]}"
            for name, option in OPTIONS.items()
            if name in self._tuning
        ]
        self._process = Forwarder(
            [f"-dsn={address}", f"-broker={self.servers.kafka.bootstrap_servers}", *options]
        )
        self._process.start()
        self._process.stop()

    def fill(self, work: str, rows: int) -> None:
        """Each order in the envelope that the forwarder's publisher makes."""
        columns = f"UUID(), {ENVELOPE.format(topic=work)}, '{{}}'"
        self.insert_orders(self.database, COLUMNS, columns, rows)

    def release(self) -> None:
        """The process starts."""
        self._running.start()

    def hold(self) -> None:
        """The process ends."""
        self._running.stop()
        self._running.close()

    def writer(self, work: str) -> Writer:
        """The INSERT that watermill-sql's publisher executes."""
        statement = sa.text(f"INSERT INTO {COLUMNS} VALUES (:uuid, :payload, '{{}}')")
        return lambda connection, number: connection.execute(
            statement,
            {
                "uuid": str(uuid.uuid4()),
                "payload": envelope(work, customer(number), order_json(number)),
            },
        )

    def cpu_seconds(self) -> float:
        """None before the process starts."""
        return super().cpu_seconds() if self._running.is_running else 0.0

    @property
    def pid(self) -> int:
        """The forwarder's."""
        return self._running.pid

    @property
    def _running(self) -> Forwarder:
        assert self._process is not None
        return self._process


def envelope(topic: str, key: str, payload: bytes) -> str:
    """What watermill's forwarder.Publisher writes for one message."""
    return json.dumps(
        {
            "destination_topic": topic,
            "uuid": str(uuid.uuid4()),
            "payload": base64.b64encode(payload).decode(),
            "metadata": {"key": key},
        }
    )
