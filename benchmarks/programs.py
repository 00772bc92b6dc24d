"""
A measured program in a process of its own: a relay of ours, of another system, a consumer.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.child import memory_mb

ROOT = Path(__file__).resolve().parents[1]
READY_SECONDS = 60.0


class ProgramFailedError(Exception):
    """A measured program ended before it answered, or did not answer in time."""


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far, with that of its children that have ended."""
    with Path(f"/proc/{pid}/stat").open() as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")


class Program:
    """`python -m MODULE ARGUMENT`, where the argument is JSON; see `child` for its side."""

    def __init__(
        self, module: str, argument: object, *, python: str | Path = sys.executable
    ) -> None:
        self.name = module
        self._answers: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._process = subprocess.Popen(
            [str(python), "-m", module, json.dumps(argument)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            text=True,
            env={name: value for name, value in os.environ.items() if "OUTBOX_RELAY" not in name},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def cpu_seconds(self) -> float:
        """Its CPU time so far."""
        return cpu_seconds(self.pid)

    def precise_cpu_seconds(self) -> float:
        """The same in nanoseconds, for a program that does next to nothing; without ended threads."""
        threads = Path(f"/proc/{self.pid}/task").glob("*/schedstat")
        return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9

    def memory_mb(self) -> float:
        """Its resident memory now."""
        return memory_mb(pid=self.pid)

    def answer(self, seconds: float = READY_SECONDS) -> dict[str, Any]:
        """The next thing it says."""
        try:
            said = self._answers.get(timeout=seconds)
        except queue.Empty:
            raise ProgramFailedError(f"{self.name} said nothing for {seconds:g} s") from None
        if said is None:
            code = self._process.wait()
            raise ProgramFailedError(f"{self.name} ended with {code}; see what it wrote above")
        return said

    def tell(self, word: str) -> None:
        """Say a word to it."""
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()

    def stop(self, seconds: float = READY_SECONDS) -> dict[str, Any]:
        """Tell it to stop; its last answer."""
        self.tell("stop")
        return self.answer(seconds)

    def close(self) -> None:
        """End it, if it has not ended by itself."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.close()
            self._process.wait(5)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        self._reader.join()
        self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(json.loads(line))
        self._answers.put(None)


def run_program(
    module: str, argument: object, *, seconds: float, python: str | Path = sys.executable
) -> dict[str, Any]:
    """Run a program that answers once."""
    with Program(module, argument, python=python) as program:
        return program.answer(seconds)


def answers(programs: Sequence[Program]) -> list[dict[str, Any]]:
    """The next answer of each."""
    return [program.answer() for program in programs]
