"""
The life of one server process: started, stopped, killed, frozen, never left behind.
"""

from __future__ import annotations

import atexit
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

READY_SECONDS = 60.0
STOP_SECONDS = 30.0
POLL_SECONDS = 0.05

# Below the range that the kernel gives to outgoing connections (from 32768): while a server is
# down, a client's own connection could otherwise take its port, and even connect to itself.
PORTS = range(20_000, 30_000)

# Two processes that test at once would find the same port free before either server listens there.
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
OWN_PORTS = PORTS[_WORKER % 10 * 1000 :][:1000]


# A server that was just killed may still write: what it leaves is removed a moment later.
GUARDIAN = """
read _
kill -s KILL -- "-$1"
[ -z "$2" ] || { rm -rf -- "$2"; sleep 1; rm -rf -- "$2"; } 2>/dev/null
"""


class MissingPartError(Exception):
    """A program that the service needs is not installed; the text says how to get it."""


class ServiceFailedError(Exception):
    """The server ended or did not answer in time; the text ends with its log."""


# Whoever was given a port may listen only later: nobody else gets it before all others were given out.
_given: set[int] = set()


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on now."""
    if len(_given) > len(OWN_PORTS) - 200:
        _given.clear()
    for port in random.sample(sorted(set(OWN_PORTS) - _given), k=200):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            _given.add(port)
            return port
    raise ServiceFailedError(f"no free port between {OWN_PORTS.start} and {OWN_PORTS.stop}")


def temporary_folder(name: str) -> Path:
    """A new folder that other users can enter: MariaDB runs as the user mysql. Gone at our end."""
    folder = Path(tempfile.mkdtemp(prefix=f"outbox-{name}-"))
    folder.chmod(0o755)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


class Service(ABC):
    """
    A server with a port and a folder that stay the same across any number of starts.

    It ends with this process in every case, `kill -9` included.
    """

    name: str

    def __init__(self, folder: Path | None) -> None:
        self._folder_is_ours = folder is None
        self.folder = temporary_folder(self.name) if folder is None else folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self._process: subprocess.Popen[bytes] | None = None
        self._guardian: subprocess.Popen[bytes] | None = None
        self._frozen = False
        atexit.register(self.close)

    @abstractmethod
    def _command(self) -> Sequence[str]:
        """What to execute; the folder is prepared already."""

    @abstractmethod
    def _prepare(self) -> None:
        """Make the folder ready for the first start."""

    @abstractmethod
    def _is_ready(self) -> bool:
        """Whether it serves clients now; False on any error."""

    @property
    def log_path(self) -> Path:
        """Where the server's own output goes."""
        return self.folder / f"{self.name}.log"

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        if self._process is None:
            raise ServiceFailedError(f"{self.name} is not running; call start() first")
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process lives, frozen or not."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start on the same port and data; returns when it answers. A running one is left alone."""
        if self.is_running:
            self.thaw()
            return
        self._forget()
        self._prepare()
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                start_new_session=True,
            )
        self._guardian = guard(self._process.pid, self.folder if self._folder_is_ours else None)
        self._wait_until_ready()

    def stop(self) -> None:
        """End it in order: SIGTERM, and SIGKILL when that takes too long."""
        self._signal(signal.SIGCONT)
        self._signal(signal.SIGTERM)
        self._wait_for_the_end()

    def write_declarations(self) -> None:  # noqa: B027 - most need nothing
        """Return when what was declared outlives a kill: at once, unless the server says yes earlier."""

    def kill(self) -> None:
        """End it at once: SIGKILL."""
        self._signal(signal.SIGKILL)
        self._wait_for_the_end()

    def freeze(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)
        self._frozen = True

    def thaw(self) -> None:
        """SIGCONT after freeze(); nothing otherwise."""
        if self._frozen:
            self._signal(signal.SIGCONT)
            self._frozen = False

    def heal(self) -> None:
        """Bring back a server that a test left stopped or frozen."""
        was_disturbed = self._frozen or not self.is_running
        self.start()
        if was_disturbed:
            self._wait_until_ready()

    def close(self) -> None:
        """Kill it and remove its folder if we made it; safe to repeat."""
        self.kill()
        atexit.unregister(self.close)
        if self._folder_is_ours:
            _remove_beside(self.folder)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _signal(self, number: signal.Signals) -> None:
        if self.is_running:
            os.killpg(self.pid, number)

    def _wait_for_the_end(self) -> None:
        if self._process is not None:
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._signal(signal.SIGKILL)
                self._process.wait()
        self._forget()

    def _forget(self) -> None:
        if self._guardian is not None:
            # Left alive it would later kill whatever process group has our number by then.
            self._guardian.kill()
            self._guardian.communicate()
        self._process = self._guardian = None
        self._frozen = False

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not self._is_ready():
            if not self.is_running or time.monotonic() > deadline:
                ended = "is not ready" if self.is_running else "ended"
                self.kill()
                raise ServiceFailedError(f"{self.name} {ended}; its log ends:\n{self._log_tail()}")
            time.sleep(POLL_SECONDS)

    def _log_tail(self) -> str:
        lines = self.log_path.read_text(errors="replace").splitlines()
        return "\n".join(lines[-30:])


# Else they would be waited for when they are collected.
_removals: list[subprocess.Popen[bytes]] = []


def _remove_beside(folder: Path) -> None:
    """Remove *folder* in a process of its own: the thousand files of many databases take seconds."""
    gone = folder.with_name(f"{folder.name}-gone")
    with suppress(FileNotFoundError):
        folder.rename(gone)
        _removals.append(
            subprocess.Popen(["rm", "-rf", "--", str(gone)], start_new_session=True, close_fds=True)
        )


def guard(group: int, folder: Path | None) -> subprocess.Popen[bytes]:
    """
    A shell that kills process group *group*, and removes *folder*, when this process is gone.

    It reads from a pipe whose other end only this process holds. (PR_SET_PDEATHSIG is no good here:
    it follows the thread that started the server, and tests start servers in worker threads.)
    """
    return subprocess.Popen(
        ["/bin/sh", "-c", GUARDIAN, "guardian", str(group), str(folder or "")],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
