"""
A shop, its database, its broker, a relay, and a Prometheus that looks at it with hurried alerts.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pymysql
import sqlalchemy as sa
import yaml

from outbox_relay import Outbox
from tests.acceptance.relays import RelayProcess, write_config
from tests.deploy.image import ROOT
from tests.deploy.prometheus import Prometheus
from tests.deploy.runbook import Operator, faster
from tests.services.database import Database
from tests.services.kafka import Kafka
from tests.services.process import free_port
from tests.services.sql_server import SqlServer

FILES = ROOT / "deploy" / "prometheus"
JOB = "shop"
TERM_SECONDS = 15.0

Work = Callable[[threading.Event], None]


class World:
    """
    What an alert is about. Its parts may be broken; the operator mends them.

    `words` are the variables of the runbook beside those that are always there. Whatever outlives the
    world is put right again by `after`.
    """

    def __init__(
        self,
        folder: Path,
        command: str | Path,
        *,
        mariadb: SqlServer,
        database: Database,
        kafka: Kafka,
        topic: str,
        factor: int,
        settings: str = "",
        **relay: Any,
    ) -> None:
        self.folder, self.command, self.factor = folder, str(command), factor
        self.mariadb, self.database, self.kafka, self.topic = mariadb, database, kafka, topic
        self.words = {"TOPIC": topic}
        self.after = contextlib.ExitStack()
        self.ports = [free_port()]
        options = {
            "sample_seconds": 0.5,
            "backoff_max_seconds": 1.0,
            "publish_deadline_seconds": 4.0,
            **relay,
        }
        self.config = write_config(folder, database, kafka, **options)
        text = self.config.read_text().replace("port = 0", f"port = {self.ports[0]}")
        self.config.write_text(f"{text}{settings}\n")
        self.relays = [RelayProcess(self.command, self.config)]
        self.memory_max = float("inf")
        self.end_of_limit: Callable[[], None] = lambda: None
        self.outbox = Outbox(compressor=None)
        self.engine = sa.create_engine(database.sync_url, poolclass=sa.NullPool)
        self._jobs: list[tuple[threading.Event, threading.Thread]] = []

    @property
    def relay(self) -> RelayProcess:
        """The first, and most often the only one."""
        return self.relays[0]

    # The shop

    def migrate(self) -> None:
        """Make the tables."""
        self.run("migrate")

    def run(self, *words: str) -> None:
        """Let somebody call outbox-relay."""
        subprocess.run(
            [self.command, *words, "--config", str(self.config)],
            check=True,
            cwd=self.folder,
            capture_output=True,
        )

    def write(self, topic: str, *payloads: object, key: str | None = None) -> None:
        """Commit events."""
        with self.engine.begin() as connection:
            self.outbox.add(connection, *payloads, name="e", topic=topic, key=key)

    def execute(self, *statements: str) -> None:
        """Run SQL with every right."""
        connection = self.mariadb.root_connection(self.database.name)
        with connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def write_for_ever(self, *payloads: object, topic: str = "", key: str | None = None) -> None:
        """Write *payloads* five times a second, as far as the database lets us."""
        payloads = payloads or ({"a": 1},)

        def work(stop: threading.Event) -> None:
            while not stop.wait(0.2):
                with contextlib.suppress(sa.exc.SQLAlchemyError, pymysql.MySQLError):
                    self.write(topic or self.topic, *payloads, key=key)

        self.spawn(work)

    def spawn(self, work: Work) -> Callable[[], None]:
        """Let *work* go on beside, until the event that it is given is set. What ends it."""
        stop = threading.Event()
        thread = threading.Thread(target=work, args=(stop,), daemon=True)
        self._jobs.append((stop, thread))
        thread.start()

        def end() -> None:
            stop.set()
            thread.join()

        return end

    def stop_jobs(self) -> None:
        """End all that `spawn` began."""
        for stop, _ in self._jobs:
            stop.set()
        while self._jobs:
            self._jobs.pop()[1].join()

    # The machine

    def one_more_relay(self) -> None:
        """A second relay of the same table, on a port of its own."""
        self.ports.append(free_port())
        text = self.config.read_text()
        config = self.folder / "config-2.toml"
        config.write_text(text.replace(f"port = {self.ports[0]}", f"port = {self.ports[1]}"))
        self.relays.append(RelayProcess(self.command, config, name="relay-2"))
        self.relays[-1].start()

    def limit_memory(self, more_bytes: int) -> None:
        """
        As the kernel and systemd do with `MemoryMax` and `Restart=always`: whoever takes more than that
        over what the relay has now is killed, and started again.
        """
        self.memory_max = psutil.Process(self.relay.running.pid).memory_info().rss + more_bytes

        def work(stop: threading.Event) -> None:
            while not stop.wait(0.01):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process = psutil.Process(self.relay.running.pid)
                    if process.memory_info().rss > self.memory_max:
                        self.relay.kill()
                        self.relay.start()

        self.spawn(work)

    def _restart(self, relay: RelayProcess) -> None:
        """As systemd does."""
        process = relay.running
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGCONT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(TERM_SECONDS)
        relay.end()
        relay.start()

    # Who looks at it, and who mends it

    @contextlib.contextmanager
    def watched(self) -> Iterator[Prometheus]:
        """A Prometheus with the alerts of deploy/, each time in them divided by the factor."""
        rules = self.folder / "alerts.yml"
        rules.write_text(faster((FILES / "alerts.yml").read_text(), self.factor))
        config = self.folder / "prometheus.yml"
        targets = [{"targets": [f"127.0.0.1:{port}" for port in self.ports]}]
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
        """Somebody with the runbook, who is the database's administrator."""
        (self.folder / ".my.cnf").write_text(f"[client]\nuser=root\nsocket={self.mariadb.socket}\n")
        environment = {
            "HOME": str(self.folder),
            "OUTBOX_RELAY_CONFIG": str(self.config),
            "RELAY": f"http://127.0.0.1:{self.ports[0]}",
            "KAFKA": self.kafka.bootstrap_servers,
            "DATABASE": self.database.name,
            **self.words,
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
            case ["systemctl", "set-property", "outbox-relay", "MemoryMax=1G"]:
                self.memory_max = 2**30
            case ["systemctl", "set-property", "outbox-relay" | "kafka", "CPUQuota="]:
                self.end_of_limit()
            case ["systemctl", "start" | "restart" as verb, "outbox-relay"]:
                for relay in self.relays:
                    if verb == "restart" or relay.running.poll() is not None:
                        self._restart(relay)
            case ["systemctl", "start" | "restart" as verb, "kafka" | "mariadb" as name]:
                service = self.kafka if name == "kafka" else self.mariadb
                if verb == "restart":
                    service.stop()
                # Of one that runs, frozen or not, systemd believes that it is well.
                if not service.is_running:
                    service.start()
            case _:
                raise AssertionError(f"the runbook says {words}, which nobody here can do")

    def end(self) -> None:
        """Leave nothing behind."""
        self.stop_jobs()
        for relay in self.relays:
            relay.end()
        self.engine.dispose()
        self.after.close()


def wait_until(server: Prometheus, expression: str, *, seconds: float = 90) -> None:
    """Until *expression* gives nothing."""
    deadline = time.monotonic() + seconds
    while found := server.query(expression):
        assert time.monotonic() < deadline, f"{expression} still gives {found}"
        time.sleep(0.1)
