"""
A stop of `outbox-relay run` fits its budget, whatever hangs.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.command import LATEST_SECONDS, Running, arguments, environment

pytestmark = pytest.mark.alone

STALLED_LOOP = """
import time
from outbox_relay.relay import producer

async def run(self, *, until_empty=False):
    self._observer.log("stalled")
    time.sleep(600)

producer.EventProducer.run = run
import outbox_relay.__main__ as main
import sys
sys.argv = ["outbox-relay", "run"]
main.main()
"""


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_fits_its_budget_when_everything_hangs(
    run: Callable[..., Running], black_hole: int, signum: int
) -> None:
    """
    I9. A database and a broker that take the connection and never answer hold up no stop.
    """
    running = run(
        *("--set", f"database.url=mysql+asyncmy://ob:geheim@127.0.0.1:{black_hole}/shop"),
        *("--set", f"kafka.bootstrap_servers=127.0.0.1:{black_hole}"),
    )
    running.until("http_listening")
    running.process.send_signal(signum)
    code, seconds = running.ended()

    assert code == 0
    assert seconds < LATEST_SECONDS


@pytest.mark.parametrize(("signals", "expected"), [(1, 0), (2, 128 + signal.SIGTERM)])
def test_a_loop_that_hangs_cannot_hold_the_process(
    folder: Path, signals: int, expected: int
) -> None:
    """
    I9. One signal: gone with 0 at the end of the budget. Two: gone at once with 143.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", STALLED_LOOP],
        cwd=folder,
        env=environment(OUTBOX_RELAY_RELAY__STOP_SECONDS="2" if signals == 1 else "60"),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    while '"stalled"' not in process.stderr.readline():
        pass
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    if signals == 2:
        # Equal signals that wait together are one: let the first be taken.
        _until_taken(process.pid)
        process.send_signal(signal.SIGTERM)
    code = process.wait(30)
    seconds = time.monotonic() - started
    process.stderr.close()

    assert code == expected
    assert seconds < 3.0


THREADS_BEFORE_US = """
import threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
import outbox_relay.__main__ as main
import sys
sys.argv = ["outbox-relay", "run"]
main.main()
"""


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_threads_that_were_there_first_take_no_signal_from_us(folder: Path, signum: int) -> None:
    """
    I9. `opentelemetry-instrument` starts threads before the relay: a stop is a stop all the same.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", THREADS_BEFORE_US],
        cwd=folder,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    while '"http_listening"' not in process.stderr.readline():
        pass
    process.send_signal(signum)

    assert process.wait(60) == 0
    process.stderr.close()


def _until_taken(pid: int) -> None:
    """Wait until no SIGTERM is pending for the process."""
    bit = 1 << (signal.SIGTERM - 1)
    while True:
        status = Path(f"/proc/{pid}/status").read_text()
        pending = next(line for line in status.splitlines() if line.startswith("ShdPnd"))
        if not int(pending.split()[1], 16) & bit:
            return


def test_a_reader_of_the_logs_that_stalls_cannot_hold_the_process(folder: Path) -> None:
    """
    I9. Standard error is a full pipe that nobody reads; SIGTERM still ends the process with 0.
    """
    reading, writing = os.pipe()
    size = fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    filled = size - 200  # room for the first line and not for the second
    os.write(writing, b"x" * filled)
    process = subprocess.Popen(
        arguments("run"), cwd=folder, env=environment(), stderr=writing, stdout=subprocess.PIPE
    )
    os.close(writing)
    _until_more_than(filled, reading)
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    code = process.wait(30)
    seconds = time.monotonic() - started
    os.close(reading)
    assert process.stdout is not None
    process.stdout.close()

    assert code == 0
    assert seconds < LATEST_SECONDS


def _until_more_than(count: int, pipe: int) -> None:
    """Wait until more than *count* bytes lie in the pipe."""
    while int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder) <= count:
        pass
