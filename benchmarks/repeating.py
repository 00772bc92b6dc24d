"""One statement in a transaction of its own, again and again: how long each of them took."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any


class Repeating:
    """
    Does *sql* on a connection of its own until the end of the block, each time with a commit.

    *connect* gives a connection of the driver itself. `seconds` holds how long each took.
    """

    def __init__(self, connect: Callable[[], Any], sql: str, *, pause_seconds: float = 0.0) -> None:
        self._connect = connect
        self._sql = sql
        self._pause_seconds = pause_seconds
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.seconds: list[float] = []

    @property
    def longest_seconds(self) -> float:
        """Of those that are done."""
        return max(self.seconds, default=0.0)

    def until(self, count: int) -> None:
        """Wait for so many more."""
        wanted = len(self.seconds) + count
        while len(self.seconds) < wanted:
            assert self._thread.is_alive(), f"{self._sql} failed"
            time.sleep(0.001)

    def _run(self) -> None:
        connection = self._connect()
        cursor = connection.cursor()
        while not self._done.wait(self._pause_seconds):
            began = time.monotonic()
            cursor.execute(self._sql)
            connection.commit()
            self.seconds.append(time.monotonic() - began)
        connection.close()

    def __enter__(self) -> Repeating:
        self._thread.start()
        self.until(1)
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
