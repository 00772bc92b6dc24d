"""
What systemd is told: ready, alive by the rule of /livez, stopping; and nothing without it.
"""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from pathlib import Path

import pytest

from outbox_relay.liveness import STALLED_SECONDS
from outbox_relay.systemd import Systemd, status_text

PID = 4711


@dataclass
class Seen:
    """A relay as the watcher sees it."""

    idle_seconds: float = 0.0
    schema_problem: str | None = None
    lanes_owned: int = 0
    paused_topics: frozenset[str] = frozenset()

    def seconds_since_progress(self):
        return self.idle_seconds


class Manager:
    """A manager's socket; *name* as NOTIFY_SOCKET says it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{name[1:]}" if name.startswith("@") else name)
        self._socket.setblocking(False)

    async def hear(self):
        """The next datagram's lines."""
        async with asyncio.timeout(10):
            data = await asyncio.get_running_loop().sock_recv(self._socket, 4096)
        return data.decode().split("\n")

    def heard(self):
        """Everything that waits."""
        found = []
        while True:
            try:
                found.append(self._socket.recv(4096).decode().split("\n"))
            except BlockingIOError:
                return found

    def close(self):
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path: Path):
    name = str(tmp_path / "n") if request.param == "path" else f"@outbox-relay-{tmp_path.name}"
    manager = Manager(name)
    yield manager
    manager.close()


def environ(manager, seconds=0.03, **more):
    return {"NOTIFY_SOCKET": manager.name, "WATCHDOG_USEC": str(int(seconds * 1e6)), **more}


async def test_the_manager_hears_what_is_told(manager):
    """
    On a path and on an abstract address, which begins with @.
    """
    Systemd(environ(manager), pid=PID).tell("READY=1", "STATUS=x")

    assert await manager.hear() == ["READY=1", "STATUS=x"]


async def test_the_watchdog_hears_of_a_relay_that_makes_progress(manager):
    """
    Three times within the time allowed, with the status when it has changed.
    """
    seen = Seen(lanes_owned=64)
    task = asyncio.create_task(Systemd(environ(manager), pid=PID).keep_telling(seen))
    first, second = await manager.hear(), await manager.hear()
    seen.lanes_owned = 0
    while (changed := await manager.hear()) == ["WATCHDOG=1"]:
        pass
    task.cancel()

    assert first == ["STATUS=active: owns 64 lanes", "WATCHDOG=1"]
    assert second == ["WATCHDOG=1"]
    assert changed == ["STATUS=standing by, or waiting for the database: see the log", "WATCHDOG=1"]


async def test_the_watchdog_hears_nothing_of_a_relay_that_stalls(manager):
    """
    The loop runs, its main cycle does not: the rule of /livez. What is told is the reason.
    """
    seen = Seen(idle_seconds=STALLED_SECONDS + 1)
    task = asyncio.create_task(Systemd(environ(manager), pid=PID).keep_telling(seen))
    stalled = await manager.hear()
    seen.idle_seconds = 0
    well = await manager.hear()
    task.cancel()

    assert stalled == ["STATUS=stalled: the main loop has made no progress for 31 s"]
    assert well[-1] == "WATCHDOG=1"


@pytest.mark.parametrize(
    "more",
    [{"WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": ""}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "x"}],
)
async def test_without_a_watchdog_only_the_status_is_told(manager, more):
    """
    None is asked for, or it is asked of another process.
    """
    telling = Systemd({**environ(manager), **more}, pid=PID).keep_telling(Seen())
    task = asyncio.create_task(telling)
    heard = await manager.hear()
    task.cancel()

    assert heard == ["STATUS=standing by, or waiting for the database: see the log"]


@pytest.mark.parametrize("address", ["", "relative", "vsock:2:1"])
async def test_without_a_manager_nothing_happens(address):
    """
    In a container and on a terminal there is none; an address of another kind is not ours.
    """
    systemd = Systemd({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1"}, pid=PID)
    systemd.tell("READY=1")

    assert await systemd.keep_telling(Seen()) is None


async def test_a_manager_that_is_gone_or_full_harms_nothing(manager):
    """
    What cannot be told is dropped: the relay neither waits nor fails.
    """
    systemd = Systemd(environ(manager), pid=PID)
    for _ in range(10_000):
        systemd.tell("WATCHDOG=1")
    full = manager.heard()
    manager.close()
    systemd.tell("WATCHDOG=1")

    assert 0 < len(full) < 10_000


def test_the_status_is_one_line():
    """
    Neither a topic's name nor a line end gets in: a line of its own would be another assignment.
    """
    waiting = Seen(schema_problem="no table\nREADY=1: run `outbox-relay migrate`")
    paused = Seen(lanes_owned=32, paused_topics=frozenset({"a\nb"}))

    assert status_text(waiting) == "waiting: no table READY=1: run `outbox-relay migrate`"
    assert status_text(paused) == "active: owns 32 lanes, topics paused: 1"
