"""
A SQLite outbox that an operator works on by the command line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from outbox_relay.cli.app import app
from outbox_relay.migrate import migrate
from outbox_relay.schema import tables
from outbox_relay.store.options import DatabaseOptions

ROOT = Path(__file__).parents[2]
Call = Callable[..., subprocess.CompletedProcess[str]]
NOW = datetime.now(UTC).replace(tzinfo=None)


class Outbox:
    """A SQLite outbox whose broker is a file, and its command line."""

    def __init__(self, folder: Path, database: Any) -> None:
        self.folder = folder
        self.published = folder / "published.jsonl"
        (folder / "config.toml").write_text(
            f'[database]\nurl = "{database.async_url}"\n'
            f'[broker]\nkind = "jsonl"\n[jsonl]\npath = "{self.published}"\n[log]\nformat = "json"\n'
        )
        migrate(DatabaseOptions(url=database.async_url))
        self.engine = sa.create_engine(database.sync_url)
        self.table = tables().outbox
        self.environ = {"OUTBOX_RELAY_CONFIG": str(folder / "config.toml"), "COLUMNS": "160"}

    def call(self, *words: str, answer: str = "") -> subprocess.CompletedProcess[str]:
        done = CliRunner().invoke(app, words, input=answer, env=self.environ)
        return subprocess.CompletedProcess(words, done.exit_code, done.stdout, done.stderr)

    def json(self, *words: str) -> dict[str, Any]:
        done = self.call(*words, "--json")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def start(self, *words: str, **more: Any) -> subprocess.Popen[str]:
        """The command in a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "outbox_relay", *words],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), **self.environ},
            text=True,
            **more,
        )

    def insert(self, *rows: dict[str, Any]) -> list[int]:
        ids = []
        with self.engine.begin() as connection:
            for given in rows:
                row = {
                    "event_name": "order.placed",
                    "topic": "orders",
                    "payload": b'{"n": 1}',
                } | given
                insert = self.table.insert().values(**row)
                ids.append(connection.execute(insert).inserted_primary_key[0])
        return ids

    def rows(self) -> list[Any]:
        with self.engine.connect() as connection:
            return list(connection.execute(sa.select(self.table).order_by(self.table.c.id)).all())

    def lines(self) -> list[dict[str, Any]]:
        """What was published: the payload, and some headers."""
        found = [json.loads(line) for line in self.published.read_text().splitlines()]
        names = ("ce_id", "replay-of", "outbox-seq")
        return [
            {"n": line["value"]["n"], **{n: line["headers"][n] for n in names}} for line in found
        ]


@pytest.fixture
def outbox(tmp_path: Path, sqlite_database: Any) -> Outbox:
    made = Outbox(tmp_path, sqlite_database)
    yield made
    made.engine.dispose()


def produced(**given: Any) -> dict[str, Any]:
    return {"status": 1, "produced_at": NOW, **given}
