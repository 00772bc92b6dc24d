"""What can go wrong between two programs that both live, each made and taken back by a proxy."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.services.toxiproxy import Toxiproxy

HALF_OPEN_SECONDS = 600
STRIKE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Link:
    """The way from a relay to one server, through a proxy of its own."""

    proxy: Toxiproxy
    name: str

    def cut(self) -> None:
        """Connections are closed, and new ones refused."""
        self.proxy.switch(self.name, on=False)

    def reset(self) -> None:
        """Connections are reset (RST) as soon as they are used."""
        self.proxy.poison(self.name, "reset_peer", timeout=0)

    def black_hole(self) -> None:
        """Connections stay, new ones come about, and nothing arrives on either side."""
        for stream in ("upstream", "downstream"):
            self.proxy.poison(self.name, "timeout", stream=stream, timeout=0)

    def lose_replies(self) -> None:
        """The server gets each request and acts; the connection ends instead of the reply."""
        self.proxy.poison(self.name, "limit_data", bytes=0)

    def swallow_replies(self) -> None:
        """The server gets each request and acts; the reply never comes."""
        self.proxy.poison(self.name, "timeout", timeout=0)

    def half_open(self) -> None:
        """The server has closed the connections of this moment, and the relay is never told."""
        self.proxy.poison(self.name, "slow_close", delay=HALF_OPEN_SECONDS * 1000)
        self.proxy.poison(self.name, "limit_data", stream="upstream", bytes=0)
        # Each connection is struck at its next request; new ones are let through after that.
        time.sleep(STRIKE_SECONDS)
        self.proxy.cure(self.name, "limit_data")

    def delay(self, milliseconds: int = 300) -> None:
        """Each way takes about so long."""
        for stream in ("upstream", "downstream"):
            latency = {"latency": milliseconds, "jitter": milliseconds // 3}
            self.proxy.poison(self.name, "latency", stream=stream, **latency)

    def drip(self) -> None:
        """What the relay says trickles: 8 KB a second, in pieces of 40 bytes."""
        self.proxy.poison(self.name, "bandwidth", stream="upstream", rate=8)
        self.proxy.poison(
            self.name, "slicer", stream="upstream", average_size=40, size_variation=20, delay=500
        )

    def cure(self) -> None:
        """All is well again."""
        self.proxy.cure(self.name)


FAULTS: dict[str, Callable[[Link], None]] = {
    "cut": Link.cut,
    "reset": Link.reset,
    "black hole": Link.black_hole,
    "reply lost": Link.lose_replies,
    "reply swallowed": Link.swallow_replies,
    "half-open": Link.half_open,
    "delay": Link.delay,
    "drip": Link.drip,
}
