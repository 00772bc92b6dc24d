"""
Kafka that tells its clients to come through a proxy.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.services.kafka import Kafka
from tests.services.process import free_port


@dataclass(frozen=True, slots=True)
class Door:
    """One way to the broker: the port that it listens on, and the one that it tells clients."""

    port: int
    proxy_port: int

    @property
    def bootstrap_servers(self) -> str:
        """What a client connects to first: the proxy, which must be there."""
        return f"127.0.0.1:{self.proxy_port}"


class FarKafka(Kafka):
    """Kafka with any number of doors; who takes one is led through its proxy ever after."""

    def __init__(self, folder: Path | None = None, *, doors: int = 1, heap: str = "512m") -> None:
        ports: set[int] = set()
        while len(ports) < 2 * doors:
            ports.add(free_port())
        self.doors = [Door(ports.pop(), ports.pop()) for _ in range(doors)]
        super().__init__(folder, heap=heap)

    def _own_settings(self) -> dict[str, str]:
        settings = super()._own_settings()
        for number, door in enumerate(self.doors):
            settings["listeners"] += f",FAR{number}://127.0.0.1:{door.port}"
            settings["advertised.listeners"] += f",FAR{number}://127.0.0.1:{door.proxy_port}"
        names = ["PLAINTEXT", "CONTROLLER", *(f"FAR{n}" for n in range(len(self.doors)))]
        settings["listener.security.protocol.map"] = ",".join(f"{n}:PLAINTEXT" for n in names)
        settings["inter.broker.listener.name"] = "PLAINTEXT"
        return settings
