"""
`outbox-relay` in a process of its own, over SQLite, with a broker that is away.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
STOP_SECONDS = 1.5
LATEST_SECONDS = STOP_SECONDS + 1.0


@pytest.fixture
def folder(tmp_path: Path, sqlite_database: Any) -> Path:
    """A working folder with a config.toml over SQLite and a broker that is away."""
    (tmp_path / "config.toml").write_text(
        f'[database]\nurl = "{sqlite_database.async_url}"\n'
        '[kafka]\nbootstrap_servers = "127.0.0.1:1"\n'
        f"[relay]\nstop_seconds = {STOP_SECONDS}\n[http]\nport = 0\n",
        encoding="utf-8",
    )
    return tmp_path


def arguments(*words: str) -> list[str]:
    return [sys.executable, "-m", "outbox_relay", *words]


def environment(**more: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if "OUTBOX_RELAY" not in name}
    return clean | {"PYTHONPATH": str(ROOT), "COLUMNS": "80"} | more


def call(folder: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments(*words),
        cwd=folder,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


class Running:
    """`outbox-relay run` in a process of its own, with its log lines."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.process = subprocess.Popen(
            arguments("run", *words),
            cwd=folder,
            env=environment(),
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[dict[str, Any]] = []

    def until(self, event: str) -> dict[str, Any]:
        """Read the log up to *event*."""
        assert self.process.stderr is not None
        for text in self.process.stderr:
            line = json.loads(text)
            self.lines.append(line)
            if line["event"] == event:
                return line
        raise AssertionError(f"{event} was never logged: {self.lines}")

    def ended(self) -> tuple[int, float]:
        """Exit code, and how long it took from now."""
        started = time.monotonic()
        return self.process.wait(60), time.monotonic() - started


@pytest.fixture
def run(folder: Path) -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def start(*words: str) -> Running:
        started.append(Running(folder, *words))
        return started[-1]

    yield start
    for running in started:
        running.process.kill()
        running.process.wait()
        assert running.process.stderr is not None
        running.process.stderr.close()


@pytest.fixture
def black_hole() -> Iterator[int]:
    """A port that takes connections and never says a word, like a server that hangs."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        held: list[socket.socket] = []

        def accept() -> None:
            try:
                while True:
                    held.append(listener.accept()[0])
            except OSError:
                return

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        for connection in held:
            connection.close()
        listener.shutdown(socket.SHUT_RDWR)
