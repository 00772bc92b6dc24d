"""
An application that writes through a release of python-cqrs, and the relay that takes its table over.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import Result
from typer.testing import CliRunner

from outbox_relay.cli.app import app
from tests.integration.command import arguments, call, environment
from tests.services import python_cqrs
from tests.services.database import Database
from tests.services.process import MissingPartError

ID = "00112233-4455-6677-8899-aabbccddee{:02x}"
PATIENCE = 20.0
NAMES = {"MeetingRoomClosed": "notification", "RoomPriced ä": "pydantic"}


@dataclass
class Site:
    """An application that writes with one release, and its relay's settings."""

    release: str
    database: Database
    folder: Path
    topic: str
    bootstrap: str
    zlib: bool = True

    def __post_init__(self) -> None:
        self.engine = sa.create_engine(self.database.sync_url, poolclass=sa.NullPool)
        self.configure()

    def configure(self, *, wire: str = "", **settings: str) -> None:
        """Its settings, as a person would write them."""
        if self.release == "0.0.15":
            settings = {"layout_topic": self.topic} | settings
        lines = [f'{name} = "{value}"' for name, value in settings.items()]
        (self.folder / "config.toml").write_text(
            "\n".join(
                [
                    f'[database]\nurl = "{self.database.async_url}"',
                    'layout = "python-cqrs"',
                    *lines,
                    # On a machine that is busy nothing is published twice because it took long.
                    f"timeout_seconds = {PATIENCE}\nconnect_timeout_seconds = {PATIENCE}",
                    f'[kafka]\nbootstrap_servers = "{self.bootstrap}"',
                    f"publish_deadline_seconds = {PATIENCE}\nrequest_timeout_seconds = {PATIENCE / 2}",
                    f"[relay]\nlease_seconds = {2 * PATIENCE}",
                    f"[http]\nenabled = false\n[wire]\n{wire}\n",
                ]
            ),
            encoding="utf-8",
        )

    def event(self, number: int, **more: Any) -> dict[str, Any]:
        """The event of one number, of two kinds in turn."""
        name = list(NAMES)[number % 2]
        kind = "ecst" if self.release < "2" and number % 2 else NAMES[name]
        return {
            "name": name,
            "kind": kind,
            "topic": self.topic,
            "id": ID.format(number),
            "at": "2026-01-02T03:04:05.678901",
            "payload": {
                "number": number,
                "price": "1.10",
                "note": 'ä "quoted"',
                "user_id": number % 3,
            },
        } | more

    def take(self, *steps: dict[str, Any], release: str = "") -> None:
        """Steps of its application and of its relay, in one process."""
        python_cqrs.run(release or self.release, self.database, *steps, **self._argument())

    def _argument(self) -> dict[str, Any]:
        return {"zlib": self.zlib, "register": NAMES, "topic": self.topic}

    @contextmanager
    def relays_beside(self, **more: Any) -> Iterator[subprocess.Popen[bytes]]:
        """Its own relay, which goes on until it is killed."""
        endless = self.relays(batches=1_000_000, pause=0.05) | more
        command = python_cqrs.command(self.release, self.database, endless, **self._argument())
        with subprocess.Popen(
            command, env=python_cqrs.environment(), cwd=self.folder, stderr=subprocess.DEVNULL
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def writes(self, *numbers: int, **more: Any) -> dict[str, Any]:
        """One transaction."""
        return {"do": "write", "events": [self.event(number) for number in numbers]} | more

    def relays(self, **more: Any) -> dict[str, Any]:
        """Its own relay, once."""
        return {"do": "relay", "bootstrap": self.bootstrap} | more

    def execute(self, sql: str) -> list[Any]:
        with self.engine.begin() as connection:
            done = connection.execute(sa.text(sql))
            return list(done.all()) if done.returns_rows else []

    def states(self) -> list[tuple[str, int]]:
        found = self.execute("SELECT event_status, flush_counter FROM outbox ORDER BY id")
        return [(state, flushes) for state, flushes in found]

    def command(self, *words: str, code: int = 0, answer: str = "") -> str:
        """What `outbox-relay` says, which ends with *code*."""
        return self._invoked(*words, code=code, answer=answer).output

    def json(self, *words: str) -> Any:
        """The object that it prints."""
        return json.loads(self._invoked(*words, "--json").stdout)

    def _invoked(self, *words: str, code: int = 0, answer: str = "") -> Result:
        config = str(self.folder / "config.toml")
        done = CliRunner().invoke(app, [*words, "-c", config], env={"COLUMNS": "200"}, input=answer)
        assert done.exit_code == code, done.output
        return done

    def adopt(self, *words: str, code: int = 0) -> str:
        return self.command("adopt", "python-cqrs", *words, code=code)

    @contextmanager
    def runs(self, *words: str, until: str = "lease_acquired") -> Iterator[subprocess.Popen[str]]:
        """Our relay, as a daemon that has logged *until*; stopped by SIGTERM."""
        command = arguments("run", *words)
        with subprocess.Popen(
            command, cwd=self.folder, env=environment(), stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stderr is not None
            try:
                logged = next((line for line in process.stderr if f'"{until}"' in line), None)
                assert logged is not None, f"{until} was never logged"
                # What it says later must not fill the pipe.
                Thread(target=process.stderr.read, daemon=True).start()
                yield process
            finally:
                process.terminate()

    def drain(self, *words: str) -> None:
        """The relay, in a process of its own."""
        done = call(self.folder, "run", "--until-empty", *words)
        assert done.returncode == 0, done.stderr


@pytest.fixture
def site_of(request, kafka, topic_name, tmp_path):
    """Makes the site of one release, on MariaDB unless told otherwise."""
    kafka.create_topic(topic_name)

    def make(release: str, server: str = "mariadb", *, charset: str = "", **more: Any) -> Site:
        try:
            python_cqrs.install(release)
        except MissingPartError as missing:
            pytest.skip(str(missing))
        service = request.getfixturevalue(server)
        database = service.create_database(*([charset] if charset else []))
        if server == "mariadb":
            with service.root_connection(database.name) as root:
                python_cqrs.give_uuid_to_bin(root)
        return Site(release, database, tmp_path, topic_name, kafka.bootstrap_servers, **more)

    return make


CREATE = {"do": "create"}


def sql(text: str) -> dict[str, str]:
    """A statement by hand."""
    return {"do": "sql", "sql": text}
