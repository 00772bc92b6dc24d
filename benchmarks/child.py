"""
The side of a measured program: it says lines of JSON, and waits for words on its standard input.

Standard library only: programs in other virtual environments import it.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path


def say(**fields: object) -> None:
    """Tell the benchmark something."""
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def wait_for_word() -> str:
    """The next word of the benchmark; "" when it is gone."""
    return sys.stdin.readline().strip()


class Stopwatch:
    """Wall time and CPU of this process since it was made."""

    def __init__(self) -> None:
        self._started, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        """Both so far, and the largest resident memory, as fields of an answer."""
        return {
            "seconds": time.perf_counter() - self._started,
            "cpu_seconds": time.process_time() - self._cpu,
            "peak_mb": memory_mb("VmHWM"),
        }


def memory_mb(kind: str = "VmRSS", pid: int | str = "self") -> float:
    """Resident memory of a process: now, or with VmHWM its peak; ru_maxrss counts its parent's."""
    with Path(f"/proc/{pid}/status").open() as file:
        return next(int(line.split()[1]) for line in file if line.startswith(kind)) / 1024
