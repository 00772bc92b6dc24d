"""
One terminal: a shell that is given commands one after the other, and keeps folder, variables and jobs.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.services.process import guard

LONGEST_SECONDS = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """How a command ended. *output* is what it printed, errors too."""

    code: int
    seconds: float
    output: str


class Terminal:
    """
    A bash that begins in *folder*; *scratch* is for what it prints. TimeoutError if a command takes longer
    than *longest_seconds*, EOFError if it ends the shell.
    """

    def __init__(
        self,
        folder: Path,
        *,
        scratch: Path,
        environment: Mapping[str, str],
        longest_seconds: float = LONGEST_SECONDS,
    ) -> None:
        self.folder, self._longest_seconds = folder, longest_seconds
        self._typed, self._screen = scratch / "typed", scratch / "screen"
        self._answers, answer = os.pipe()
        with self._screen.open("wb") as screen:
            self._shell = subprocess.Popen(
                ["bash", "--norc", "--noprofile"],
                cwd=folder,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=screen,
                stderr=subprocess.STDOUT,
                pass_fds=[answer],
                start_new_session=True,
            )
        # Also when this process is killed: nobody else would end what the commands left running.
        self._guardian = guard(self._shell.pid, None)
        os.close(answer)  # the shell's alone: its end is the pipe's end
        # What a command leaves in the background does not keep the pipe.
        self._line = f". '{self._typed}' </dev/null {answer}>&-; echo $? $PWD >&{answer}\n"
        self._read = 0

    def run(self, command: str) -> Done:
        """Type *command*, and wait until the shell takes the next one."""
        assert self._shell.stdin is not None
        self._typed.write_text(f"{command}\n", encoding="utf-8")
        began = time.monotonic()
        self._shell.stdin.write(self._line.encode())
        self._shell.stdin.flush()
        code, folder = self._answered(command)
        seconds = time.monotonic() - began
        self.folder = Path(folder)
        return Done(code=code, seconds=seconds, output=self._printed())

    def close(self) -> None:
        """End the shell and all that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self._shell.pid, signal.SIGKILL)
        self._shell.communicate()
        self._guardian.kill()
        self._guardian.communicate()
        os.close(self._answers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _answered(self, command: str) -> tuple[int, str]:
        ready, _, _ = select.select([self._answers], [], [], self._longest_seconds)
        if not ready:
            raise TimeoutError(
                f"{command}: still runs after {self._longest_seconds} s\n{self._printed()}"
            )
        answer = os.read(self._answers, 4096).decode()
        if not answer:
            raise EOFError(f"{command}: ended the shell\n{self._printed()}")
        code, _, folder = answer.rstrip("\n").partition(" ")
        return int(code), folder

    def _printed(self) -> str:
        with self._screen.open("rb") as screen:
            screen.seek(self._read)
            fresh = screen.read()
        self._read += len(fresh)
        return fresh.decode(errors="replace")
