"""
outbox-relay among the relays whose latency and idle cost are measured.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.orders import EVENT_NAME, customer, order_json
from benchmarks.programs import Program
from benchmarks.relays import settings_for, start_relay
from benchmarks.results import OURS
from benchmarks.rivals.rival import Rival, Writer
from benchmarks.rows import fill
from benchmarks.servers import Servers
from outbox_relay import Outbox


class Ours(Rival):
    """The relay with its defaults, and with hints if asked for; a fresh table for each work."""

    system = OURS

    def __init__(self, servers: Servers, *, hints: bool = False) -> None:
        super().__init__(servers)
        self.how = "mark, with hints" if hints else "mark"
        self._hints = hints
        self.settings = (
            {"relay.wake_address": "unix:…", "Outbox(wake=…)": "the same"} if hints else {}
        )
        self._wake = ""
        self._relay: Program | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """The folder of the socket."""
        with tempfile.TemporaryDirectory() as folder:
            self._wake = f"unix:{folder}/wake" if self._hints else ""
            yield

    def prepare(self, work: str) -> None:
        """A process that has loaded everything and waits."""
        self.database = self.servers.database.create_outbox()
        wake = {"relay.wake_address": self._wake} if self._hints else {}
        self._relay = start_relay(settings_for(self.servers, self.database, wake))

    def fill(self, work: str, rows: int) -> None:
        """Compressed, as the library writes them."""
        fill(self.servers.database, self.database.name, work, rows)

    def release(self) -> None:
        """It begins."""
        self._program.tell("go")

    def hold(self) -> None:
        """The process ends."""
        self._program.stop()
        self._program.close()

    def writer(self, work: str) -> Writer:
        """With the library."""
        outbox = Outbox(wake=self._wake or None)
        return lambda connection, number: outbox.add(
            connection, order_json(number), name=EVENT_NAME, topic=work, key=customer(number)
        )

    @property
    def pid(self) -> int:
        """The relay's."""
        return self._program.pid

    @property
    def _program(self) -> Program:
        assert self._relay is not None
        return self._relay
