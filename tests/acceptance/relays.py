"""Relays as processes, from the installed wheel, and the account of what they did."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from tests.services.database import Database
from tests.services.kafka import Kafka


def write_config(folder: Path, database: Database, kafka: Kafka, **relay: Any) -> Path:
    """A config.toml as a user would write it."""
    deadline = relay.pop("publish_deadline_seconds", 10.0)
    request = min(4.0, deadline / 2)
    lines = [
        "[database]",
        f'url = "{database.async_url}"',
        "[kafka]",
        f'bootstrap_servers = "{kafka.bootstrap_servers}"',
        f"publish_deadline_seconds = {deadline}",
        f"request_timeout_seconds = {request}",
        "[relay]",
        *(f"{key} = {value}" for key, value in relay.items()),
        "[http]",
        "port = 0",
    ]
    path = folder / "config.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


class RelayProcess:
    """`outbox-relay run` under way."""

    def __init__(self, command: str, config: Path, *, name: str = "relay") -> None:
        self.command = command
        self.config = config
        self.log = config.parent / f"{name}.log"
        self.environment: Mapping[str, str] = {"PYTHONPATH": "", "PYTHONFAULTHANDLER": "1"}
        self.process: subprocess.Popen[bytes] | None = None
        self._logged_before = 0

    def start(self, *arguments: str) -> None:
        """Start it; the log goes on where it was."""
        with self.log.open("ab") as log:
            self._logged_before = log.tell()
            self.process = subprocess.Popen(
                [self.command, "run", "--config", str(self.config), *arguments],
                cwd=self.config.parent,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environment},
            )

    @property
    def listens(self) -> bool:
        """Whether it is so far that a signal asks it to stop, and does not end it."""
        return b'"started"' in self.log.read_bytes()[self._logged_before :]

    @property
    def running(self) -> subprocess.Popen[bytes]:
        """The process."""
        assert self.process is not None
        return self.process

    def kill(self) -> None:
        """`kill -9`."""
        self.running.kill()
        self.running.wait()

    def freeze(self) -> None:
        """SIGSTOP."""
        self.running.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self.running.send_signal(signal.SIGCONT)

    def pause(self, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after a while."""
        self.freeze()
        time.sleep(seconds)
        self.thaw()

    def stop(self) -> float:
        """SIGTERM once it listens; how long it took to leave. The exit code must be 0."""
        deadline = time.monotonic() + 60
        while not self.listens and self.running.poll() is None:
            assert time.monotonic() < deadline, self.log.read_text()[-3000:]
            time.sleep(0.01)
        started = time.monotonic()
        self.running.send_signal(signal.SIGTERM)
        code = self.running.wait(timeout=60)
        assert code == 0, f"exit code {code}:\n{self.log.read_text()[-3000:]}"
        return time.monotonic() - started

    def end(self) -> None:
        """Whatever state it is in."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()

    def logged(self, event: str) -> list[Mapping[str, Any]]:
        """The log lines of one event."""
        found = []
        for line in self.log.read_text().splitlines():
            if line.startswith("{"):
                fields = json.loads(line)
                if fields.get("event") == event:
                    found.append(fields)
        return found


@dataclass(frozen=True, slots=True)
class Account:
    """The table and the topic, compared."""

    committed: int
    delivered: int
    lost: int
    ghosts: int
    inversions: int
    duplicates: int
    dead: int


def wait_until_relayed(database: Database, *, seconds: float = 120) -> None:
    """Until no committed row is pending."""
    engine = sa.create_engine(database.sync_url, poolclass=sa.NullPool)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with engine.connect() as connection:
            count = connection.execute(sa.text("SELECT COUNT(*) FROM outbox WHERE status = 0"))
            if count.scalar_one() == 0:
                return
        time.sleep(0.2)
    raise AssertionError(f"rows are still pending after {seconds} s")


def wait_for_owner(database: Database, relays: list[RelayProcess]) -> RelayProcess:
    """The relay that holds the lease, by the process id in the owner's name."""
    engine = sa.create_engine(database.sync_url, poolclass=sa.NullPool)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with engine.connect() as connection:
            owner = connection.execute(
                sa.text("SELECT MAX(owner) FROM outbox_lease WHERE expires_at > UTC_TIMESTAMP(6)")
            ).scalar_one()
        for relay in relays:
            if owner and owner.endswith(f":{relay.running.pid}"):
                return relay
        time.sleep(0.05)
    raise AssertionError("no relay took the lease within 60 s")


def account(database: Database, kafka: Kafka, topic: str) -> Account:
    """
    Compare by event id; order by the aggregate's version, which knows nothing of our ids.
    """
    engine = sa.create_engine(database.sync_url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        rows = connection.execute(sa.text("SELECT LOWER(HEX(event_id)), status FROM outbox")).all()
    committed = {event_id for event_id, _ in rows}
    seen: set[str] = set()
    last: dict[bytes | None, int] = {}
    duplicates = inversions = ghosts = 0
    for record in kafka.consume_all(topic):
        event_id = record.headers["ce_id"].decode().replace("-", "")
        ghosts += event_id not in committed
        if event_id in seen:
            duplicates += 1
            continue
        seen.add(event_id)
        version = json.loads(record.value or b"{}")["version"]
        inversions += version != last.get(record.key, 0) + 1
        last[record.key] = version
    dead = sum(status == 2 for _, status in rows)
    return Account(
        committed=len(committed),
        delivered=len(seen),
        lost=len(committed - seen) - dead,
        ghosts=ghosts,
        inversions=inversions,
        duplicates=duplicates,
        dead=dead,
    )
