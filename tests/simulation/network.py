"""
What lies between a relay and the database: delays, outages, and single statements that go wrong.

A statement may be lost on its way; take effect while its answer is lost; take effect long after its
relay gave it up; or wait for a row lock between the test of its term and its effect.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any

from outbox_relay.errors import OutboxRelayError, StoreUnavailable
from tests.simulation.loop import Process, VirtualLoop

if TYPE_CHECKING:
    from tests.simulation.store import SimulatedStore

TIMEOUT_SECONDS = 0.6
Trace = Callable[..., None]


class Network:
    """The way to the database, for all relays."""

    def __init__(self, loop: VirtualLoop, random: Random, hit: Counter[str], trace: Trace) -> None:
        self.loop = loop
        self._random = random.random
        self._hit = hit
        self._trace = trace
        self.refuses = False
        self.hangs = False
        self.cut_off: set[Process] = set()
        self.slow = 1.0
        self.armed: list[tuple[Process, str, str]] = []
        self.on_trouble: Callable[[Process], None] = lambda process: None
        self.on_crash: Callable[[Process], None] = lambda process: None

    def arm(self, process: Process, kind: str, name: str) -> None:
        """The next statement *name* of *process* meets a fault."""
        self.armed.append((process, kind, name))

    def _fault(self, process: Process, name: str) -> str:
        for index, (whose, kind, which) in enumerate(self.armed):
            if whose is process and which == name:
                if kind == "statement waits for a lock" and name not in ("mark", "dead"):
                    continue
                del self.armed[index]
                self._hit[kind] += 1
                self.on_trouble(process)
                return kind
        return ""

    def statement(
        self,
        store: SimulatedStore,
        name: str,
        channel: int,
        effect: Callable[..., Any],
        first: Callable[[], Any] | None,
        answer: asyncio.Future[Any],
    ) -> None:
        """Send a statement on its way; *answer* will say what its relay learns."""
        process = store.process
        loop, random = self.loop, self._random
        fault = self._fault(process, name) if self.armed else ""
        hangs = self.hangs or process in self.cut_off
        way = (0.0003 + 0.0012 * random()) * self.slow
        if hangs or fault in ("statement lost", "answer lost", "statement late"):
            self._gives_up(process, answer, way if random() < 0.5 else TIMEOUT_SECONDS)
        elif self.slow > 1.0:
            self._gives_up(process, answer, TIMEOUT_SECONDS)
        if fault:
            self._trace(process.name, name, fault)
        if fault == "statement lost" or (hangs and random() < 0.5):
            return
        if fault == "statement late":
            way = TIMEOUT_SECONDS + random() * 4.0
        silent = fault in ("answer lost", "statement late") or hangs
        server = [store.server]

        def arrive() -> None:
            try:
                if self.refuses:
                    raise StoreUnavailable("connection refused")
                if fault != "statement late":
                    store.arrives(channel)
                elif server[0] != store.server:
                    return  # it was sent to a server that is gone
                self._trace(process.name, name, "arrives")
                known = first() if first is not None else None
            except OutboxRelayError as error:
                self._answers(answer, None, error, silent)
                return
            if fault == "crash at a statement" and random() < 0.5:
                self.on_crash(process)
            server[0] = store.server
            if fault == "statement waits for a lock":
                self._gives_up(process, answer, TIMEOUT_SECONDS)
                loop.later(0.1 + random() * 4.0, take_effect, known)
            else:
                take_effect(known)

        def take_effect(known: Any) -> None:
            if server[0] != store.server:
                return
            try:
                result = effect(known) if first is not None else effect()
            except OutboxRelayError as error:
                self._answers(answer, None, error, silent)
                return
            if fault == "crash at a statement":
                self.on_crash(process)
            self._answers(answer, result, None, silent)

        loop.later(way, arrive)

    def _gives_up(self, process: Process, answer: asyncio.Future[Any], after: float) -> None:
        """By the relay's own time: one that stands still learns of it later."""

        def give_up() -> None:
            if not answer.done():
                self.on_trouble(process)
                answer.set_exception(StoreUnavailable("the database did not answer in time"))

        self.loop.call_later(after, give_up, context=process.context)

    def _answers(
        self,
        answer: asyncio.Future[Any],
        result: Any,
        error: OutboxRelayError | None,
        silent: bool,
    ) -> None:
        if silent:
            return

        def arrive() -> None:
            if answer.done():
                return
            if error is None:
                answer.set_result(result)
            else:
                answer.set_exception(error)

        self.loop.later((0.0002 + 0.001 * self._random()) * self.slow, arrive)
