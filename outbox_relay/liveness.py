"""When the relay counts as alive: the one rule of /livez and of systemd's watchdog."""

from __future__ import annotations

from typing import Final

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
