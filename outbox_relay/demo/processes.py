"""
Child processes that never outlive the demo.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from pathlib import Path
from typing import Final

_EXEC_AND_DIE_WITH_PARENT: Final = """
import os, sys
parent, *command = sys.argv[1:]
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL; it survives exec
    if os.getppid() != int(parent):
        sys.exit(1)
os.execv(command[0], command)
"""


class ChildEnded(RuntimeError):
    """A process of the demo ended by itself. The text holds the end of its log."""


class Child:
    """A Python process in a session of its own, so that Ctrl-C reaches only the demo itself."""

    def __init__(self, name: str, *arguments: str, log: Path) -> None:
        self.name = name
        self.log = log
        self._arguments = arguments
        self._process: Process | None = None
        self._expected_to_run = False

    async def start(self) -> None:
        """Start it, with its standard error added to its log."""
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", "-c", _EXEC_AND_DIE_WITH_PARENT, str(os.getpid())),
                *(sys.executable, *self._arguments),
                stdin=DEVNULL,
                stdout=PIPE,
                stderr=log,
                env=_environment(),
                start_new_session=True,
            )
        self._expected_to_run = True

    @property
    def is_started(self) -> bool:
        """Whether it has been started, ever."""
        return self._process is not None

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    async def read_line(self) -> str:
        """Its next line on standard output, or "" when it has closed it."""
        assert self._process is not None
        assert self._process.stdout is not None
        return (await self._process.stdout.readline()).decode()

    def check(self) -> None:
        """Raise ChildEnded if it ended without having been told to."""
        process = self._process
        if self._expected_to_run and process is not None and process.returncode is not None:
            raise ChildEnded(
                f"the {self.name} ended by itself with exit code {process.returncode}; "
                f"its last words:\n{self.last_words()}"
            )

    def freeze(self) -> None:
        """Stop it without a word to anybody (SIGSTOP)."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on (SIGCONT)."""
        self._signal(signal.SIGCONT)

    async def kill(self) -> None:
        """End it as ``kill -9`` does, frozen or not, and wait until it is gone."""
        self._expected_to_run = False
        self._signal(signal.SIGKILL)
        if self._process is not None:
            await self._process.wait()

    async def wait(self) -> int:
        """Wait until it has ended. Its exit code."""
        assert self._process is not None
        return await self._process.wait()

    def last_words(self, *, lines: int = 15) -> str:
        """The end of its log."""
        words = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join(words[-lines:]) or "(nothing)"

    async def terminate(self, *, timeout_seconds: float) -> int | None:
        """Ask it to stop (SIGTERM). Its exit code, or None if it had to be killed."""
        self._expected_to_run = False
        self._signal(signal.SIGTERM)
        assert self._process is not None
        try:
            return await asyncio.wait_for(self._process.wait(), timeout_seconds)
        except TimeoutError:
            await self.kill()
            return None

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)


def _environment() -> dict[str, str]:
    # Settings of a relay of the user's own must not leak into the demo's.
    return {
        name: value for name, value in os.environ.items() if not name.startswith("OUTBOX_RELAY_")
    }
