"""Async work for callers that cannot await: one event loop in a thread, for the whole process."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from outbox_relay.cqrs.errors import CqrsError

T = TypeVar("T")

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_pid: int | None = None


def run_blocking(work: Coroutine[Any, Any, T]) -> T:
    """
    What *work* answers. It runs in the one background loop, whoever calls: connections of a pool
    belong to a loop.

    Raises CqrsError where a loop runs: it would stand still.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        future = asyncio.run_coroutine_threadsafe(work, _background_loop())
    else:
        work.close()
        raise CqrsError("an event loop runs here, which `execute` would block: await `dispatch`")
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def _background_loop() -> asyncio.AbstractEventLoop:
    global _loop, _pid
    with _lock:
        # A fork has no threads but its own.
        if _loop is None or _pid != os.getpid():
            _loop, _pid = asyncio.new_event_loop(), os.getpid()
            threading.Thread(
                target=_loop.run_forever, name="outbox-relay-cqrs", daemon=True
            ).start()
        return _loop
