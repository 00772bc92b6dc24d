"""
When the relay counts as alive: the one rule of /livez and of systemd's watchdog; and how late its loop wakes.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from outbox_relay.metrics import Metrics

STALLED_SECONDS: Final = 30.0
"""A main loop without progress for this long is not alive."""


def stall(idle_seconds: float) -> str | None:
    """
    Why a main loop that made no progress for *idle_seconds* is not alive; None if it is.

    Waiting for a database or a broker is progress: it waits in bounded steps.

    >>> stall(30.0) is None
    True
    >>> stall(31.0)
    'the main loop has made no progress for 31 s'
    """
    if idle_seconds <= STALLED_SECONDS:
        return None
    return f"the main loop has made no progress for {idle_seconds:.0f} s"


async def watch_loop(metrics: Metrics, *, every_seconds: float = 1.0) -> None:
    """Measure for ever how late the event loop wakes."""
    while True:
        asked = time.monotonic()
        await asyncio.sleep(every_seconds)
        metrics.loop_lag.set(max(0.0, time.monotonic() - asked - every_seconds))
