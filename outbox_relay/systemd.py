"""
Tells systemd how the relay is, under a unit of ``Type=notify``: ready, alive, stopping.

The protocol is sd_notify(3): datagrams to the socket that ``NOTIFY_SOCKET`` names. Alive means the
same as on /livez: a loop that hangs sends nothing, one without progress sends no ``WATCHDOG=1``. An
outage of database or broker is neither.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Mapping
from typing import Final, Protocol

from outbox_relay.liveness import stall

STATUS_SECONDS: Final = 5.0
"""How often what `systemctl status` shows may change, where no watchdog asks for more."""


class Seen(Protocol):
    """What is told of the relay; `MetricsObserver` has it."""

    schema_problem: str | None
    lanes_owned: int
    paused_topics: frozenset[str]

    def seconds_since_progress(self) -> float:
        """How long ago the main loop last made progress."""
        ...


class Systemd:
    """
    The manager that started this process; silent where there is none.

    Nothing here blocks or raises: a manager that does not listen harms no relay. `tell` may be
    called from any thread.
    """

    def __init__(self, environ: Mapping[str, str], *, pid: int) -> None:
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self._watchdog_seconds = _watchdog_seconds(environ, pid) if self._address else None
        self._socket: socket.socket | None = None
        if self._address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)

    def tell(self, *assignments: str) -> None:
        """Such as ``"READY=1"``; several are one datagram."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.sendto("\n".join(assignments).encode(), self._address)

    async def keep_telling(self, seen: Seen) -> None:
        """Tell for ever how *seen* is: ``STATUS`` when it changed, ``WATCHDOG=1`` while it is alive."""
        if self._socket is None:
            return
        told = ""
        while True:
            status = status_text(seen)
            alive = self._watchdog_seconds is not None and not stall(seen.seconds_since_progress())
            news = [f"STATUS={status}"] if status != told else []
            if news or alive:
                self.tell(*news, *(["WATCHDOG=1"] if alive else []))
            told = status
            # Three within the time that systemd allows: one may be late, one may be lost.
            await asyncio.sleep(min(STATUS_SECONDS, (self._watchdog_seconds or 60.0) / 3))


def status_text(seen: Seen) -> str:
    """
    One line for `systemctl status`.

    Without a topic's name: they come from rows, and may hold what ends a line.
    """
    if reason := stall(seen.seconds_since_progress()):
        return f"stalled: {reason}"
    if seen.schema_problem:
        return f"waiting: {' '.join(seen.schema_problem.split())}"
    if not seen.lanes_owned:
        return "standing by, or waiting for the database: see the log"
    paused = f", topics paused: {len(seen.paused_topics)}" if seen.paused_topics else ""
    return f"active: owns {seen.lanes_owned} lanes{paused}"


def _address(text: str) -> str:
    """Of NOTIFY_SOCKET: a path, or with ``@`` an abstract name; anything else is not ours."""
    if text.startswith("@"):
        return f"\0{text[1:]}"
    return text if text.startswith("/") else ""


def _watchdog_seconds(environ: Mapping[str, str], pid: int) -> float | None:
    if environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None  # meant for another process, which started us
    text = environ.get("WATCHDOG_USEC", "")
    return int(text) / 1_000_000 if text.isascii() and text.isdigit() and int(text) else None
