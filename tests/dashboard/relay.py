"""
A relay with a dashboard in a process of its own: SQLite, and a file instead of a broker.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from outbox_relay import Outbox
from outbox_relay.migrate import migrate
from outbox_relay.schema import tables
from outbox_relay.store.options import DatabaseOptions

ROOT = Path(__file__).parents[2]
TOKEN = "a token of 24 characters"
TOPICS = ("orders", "orders", "payments", "customers.address-changed.v2")
START_SECONDS = 60


class RelayWithDashboard:
    """One relay; `address` is its dashboard's."""

    def __init__(self, folder: Path, *, token: bool = True) -> None:
        self.folder = folder
        url = f"sqlite+aiosqlite:///{folder}/outbox.db"
        migrate(DatabaseOptions(url=url))
        self.engine = sa.create_engine(
            f"sqlite:///{folder}/outbox.db", connect_args={"timeout": START_SECONDS}
        )
        self.outbox = Outbox(source="/shop")
        self.table = tables().outbox
        (folder / "token").write_text(TOKEN)
        login = f'token_file = "{folder}/token"\n' if token else ""
        (folder / "config.toml").write_text(
            f'[database]\nurl = "{url}"\n[broker]\nkind = "jsonl"\n'
            f'[jsonl]\npath = "{folder}/events.jsonl"\n'
            "[relay]\nsample_seconds = 1.0\n[http]\nport = 0\n"
            f"[admin]\nenabled = true\nport = 0\nshow_payloads = true\n{login}"
        )
        self.address = ""
        self._said: queue.Queue[dict[str, Any]] = queue.Queue()
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it, and wait until its dashboard listens."""
        clean = {name: value for name, value in os.environ.items() if "OUTBOX_RELAY" not in name}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "outbox_relay", "run", "-c", "config.toml"],
            cwd=self.folder,
            env=clean | {"PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
        )
        threading.Thread(target=self._read_log, daemon=True).start()
        self.address = f"http://localhost:{self.wait_for('admin_listening')['port']}"

    def wait_for(self, event: str, **fields: Any) -> dict[str, Any]:
        """The next line of its log that is *event* with these *fields*."""
        while True:
            said = self._said.get(timeout=START_SECONDS)
            if said.get("event") == event and fields.items() <= said.items():
                return said

    def _read_log(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        for line in self._process.stderr:
            with contextlib.suppress(ValueError):
                self._said.put(json.loads(line))

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def write(self, count: int = 1, topic: str | None = None, seed: int = 1) -> None:
        """Events as an application outboxes them."""
        some = random.Random(seed)
        with self.engine.begin() as connection:
            for number in range(count):
                where = topic or some.choice(TOPICS)
                self.outbox.add(
                    connection,
                    {"order": number, "note": "x" * some.randint(5, 300)},
                    name=f"{where}.happened",
                    topic=where,
                    key=f"c-{some.randint(1, 50)}",
                )

    def write_unreadable(self, topic: str = "orders") -> int:
        """A row that no relay can read; its id."""
        row = {"event_name": "order.placed", "topic": topic, "key": b"c-1", "codec": 1}
        with self.engine.begin() as connection:
            done = connection.execute(sa.insert(self.table).values(payload=b"no zlib", **row))
            return int(done.inserted_primary_key[0])

    def execute(self, statement: str) -> list[Any]:
        """Run a statement; its rows."""
        with self.engine.begin() as connection:
            found = connection.execute(sa.text(statement))
            return list(found.all()) if found.returns_rows else []


@contextmanager
def relay_with_dashboard(folder: Path, *, token: bool = True) -> Iterator[RelayWithDashboard]:
    """One that runs until the end of the block."""
    relay = RelayWithDashboard(folder, token=token)
    try:
        relay.start()
        yield relay
    finally:
        relay.kill()
        relay.engine.dispose()
