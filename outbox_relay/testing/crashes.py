"""
Crash points: where a process dies in the worst moment, as often as a test wants.

Each is a place in the way of an event: before the commit that holds it, right after that commit, and
after the broker's ack, before the relay has marked the event.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Literal, TypeAlias

from outbox_relay.relay.marker import Marker

CrashPoint: TypeAlias = Literal["before_commit", "after_commit", "after_ack"]

CRASH_POINTS: Final = ("before_commit", "after_commit", "after_ack")


class Crashed(BaseException):
    """
    The process died here, so to say. No `except Exception` of an application hides it.

    The database connection is closed with it, as a dead process' would be.
    """


_asked: dict[str, bool] = {}
"""Crash point -> whether it kills the process."""


@contextmanager
def crash_at(point: CrashPoint, *, kill: bool = False) -> Iterator[None]:
    """
    Within the block, whoever comes to *point* with an event dies there.

    By raising `Crashed`, or with *kill* by SIGKILL, for a test that runs the application in a process
    of its own. Transactions that wrote no event live on.
    """
    if point not in CRASH_POINTS:
        raise ValueError(f"{point!r} is no crash point: choose of {', '.join(CRASH_POINTS)}")
    if point in _asked:
        raise RuntimeError(f"crash_at({point!r}) is on already")
    from outbox_relay.testing.outboxed import watch  # noqa: PLC0415 - which asks us at each commit

    watch()
    _asked[point] = kill
    marking = Marker._mark
    if point == "after_ack":
        Marker._mark = _die_instead  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        Marker._mark = marking  # type: ignore[method-assign]
        del _asked[point]


def crash_if_asked(point: CrashPoint) -> None:
    """Die here, if this is the point."""
    kill = _asked.get(point)
    if kill is None:
        return
    if kill:
        os.kill(os.getpid(), signal.SIGKILL)
    raise Crashed(point)


async def _die_instead(_marker: Marker, _ids: Sequence[int]) -> None:
    crash_if_asked("after_ack")
