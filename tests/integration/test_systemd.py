"""
`outbox-relay run` as a service of systemd, with a manager's socket of our own.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.command import arguments, environment

# The loop hangs as soon as a line comes in.
FREEZES = """
import sys, time
from outbox_relay.relay import producer

run = producer.EventProducer.run

async def freezing(self, **options):
    import asyncio
    def freeze():
        sys.stdin.readline()
        time.sleep(600)
    asyncio.get_running_loop().add_reader(sys.stdin, freeze)
    await run(self, **options)

producer.EventProducer.run = freezing
import outbox_relay.__main__ as main
sys.argv = ["outbox-relay", "run"]
main.main()
"""


class Service:
    """A relay with what its manager hears."""

    def __init__(self, folder: Path, command: list[str]) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(folder / "notify"))
        self._socket.settimeout(30)
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment(NOTIFY_SOCKET=str(folder / "notify"), WATCHDOG_USEC="300000"),
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def until(self, assignment: str, *, timeout_seconds: float = 30.0) -> list[str]:
        """Everything heard up to *assignment*; TimeoutError when nothing comes for so long."""
        self._socket.settimeout(timeout_seconds)
        heard: list[str] = []
        while assignment not in heard:
            heard += self._socket.recv(4096).decode().split("\n")
        return heard

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdin is not None
        self.process.stdin.close()
        self._socket.close()


@pytest.fixture
def start(folder: Path) -> Iterator[Callable[[list[str]], Service]]:
    started: list[Service] = []

    def begin(command: list[str]) -> Service:
        started.append(Service(folder, command))
        return started[-1]

    yield begin
    for service in started:
        service.close()


def test_it_is_ready_alive_and_stopping(start: Callable[[list[str]], Service]) -> None:
    """
    Ready although there is no table and no broker: it waits for both, and a manager that waited with
    it would end it.
    """
    service = start(arguments("run"))
    before = service.until("READY=1")
    after = service.until("WATCHDOG=1")
    service.process.send_signal(signal.SIGTERM)
    service.until("STOPPING=1")

    assert before == ["READY=1"]
    assert any(line.startswith("STATUS=") for line in after)
    assert service.process.wait(30) == 0


def test_a_loop_that_hangs_is_silent(start: Callable[[list[str]], Service]) -> None:
    """
    Then systemd ends it, once WatchdogSec has passed, and starts it again.
    """
    service = start([sys.executable, "-c", FREEZES])
    service.until("WATCHDOG=1")
    assert service.process.stdin is not None
    service.process.stdin.write(b"freeze\n")
    service.process.stdin.flush()

    with pytest.raises(TimeoutError):
        # After what was still under way: three are due each 0.3 s, and none comes in a second.
        service.until("never told", timeout_seconds=1.0)
