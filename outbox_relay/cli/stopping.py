"""
How `run` leaves: by signal within its budget, whatever the loop, database, Kafka or resolver do.

Signals are blocked in every thread and taken by one that waits for nothing else, so they are heard
before the loop runs and also when it hangs. Threads that were there before us, such as those that
`opentelemetry-instrument` starts, block nothing: what the kernel gives to one of them is passed on.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from typing import Final, NoReturn

from outbox_relay.cli.exits import SIGNALLED, Exit
from outbox_relay.logs import flush_logs

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
GRACE_SECONDS: Final = 0.5
"""What the process may take beyond stop_seconds to close what is left."""

FLUSH_SECONDS: Final = 0.3


def leave(code: int) -> NoReturn:
    """
    Flush the logs and end the process now.

    asyncio would first wait for executor threads, and a name look-up can hold one for 20 s. The
    flush has a limit too: whoever reads our standard error may have stalled.
    """
    flush = threading.Thread(target=flush_logs, daemon=True)
    flush.start()
    flush.join(FLUSH_SECONDS)
    os._exit(code)


class StopSignals:
    """
    Waits for SIGTERM and SIGINT in a thread of its own.

    The first asks for a stop, and the process is gone after the budget at the latest; before there
    is anything to stop it ends the process with 0. The second ends it at once.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stop: Callable[[], object] | None = None
        self._budget_seconds = 0.0
        self._listener = threading.Thread(target=self._listen, name="signals", daemon=True)

    def start(self) -> None:
        """Listen from now on. Call it before any other thread is started."""
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        self._listener.start()
        for number in SIGNALS:
            # Without a handler a thread that blocks nothing would end the process, with no farewell.
            signal.signal(number, self._pass_on)

    def on_stop(self, stop: Callable[[], object], *, stop_seconds: float) -> None:
        """From now on the first signal calls *stop*, from another thread."""
        with self._lock:
            self._stop = stop
            self._budget_seconds = stop_seconds + GRACE_SECONDS

    def _pass_on(self, number: int, _frame: object) -> None:
        if self._listener.ident is not None:
            signal.pthread_kill(self._listener.ident, number)

    def _listen(self) -> None:
        signal.sigwait(SIGNALS)
        with self._lock:
            stop, budget = self._stop, self._budget_seconds
        if stop is None:
            leave(Exit.OK)
        deadline = threading.Timer(budget, leave, args=(Exit.OK,))
        deadline.daemon = True
        deadline.start()
        with contextlib.suppress(RuntimeError):  # the loop has closed: the process is leaving
            stop()
        leave(SIGNALLED + signal.sigwait(SIGNALS))
