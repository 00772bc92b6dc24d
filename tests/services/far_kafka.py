"""
Kafka that tells its clients to come through a proxy.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.services.kafka import Kafka
from tests.services.process import free_port
from tests.services.toxiproxy import Toxiproxy


@dataclass(frozen=True, slots=True)
class Door:
    """One way to the broker: the port that it listens on, and the one that it tells clients."""

    name: str
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
        pairs = [(ports.pop(), ports.pop()) for _ in range(doors)]
        self.doors = [Door(f"door-{port}", port, far) for port, far in pairs]
        super().__init__(folder, heap=heap)

    def open_doors(self, proxy: Toxiproxy) -> None:
        """All of them lead to the broker from now on."""
        for door in self.doors:
            proxy.add(door.name, upstream=door.port, listen=door.proxy_port)

    def _own_settings(self) -> dict[str, str]:
        settings = super()._own_settings()
        for number, door in enumerate(self.doors):
            settings["listeners"] += f",FAR{number}://127.0.0.1:{door.port}"
            settings["advertised.listeners"] += f",FAR{number}://127.0.0.1:{door.proxy_port}"
        names = ["PLAINTEXT", "CONTROLLER", *(f"FAR{n}" for n in range(len(self.doors)))]
        settings["listener.security.protocol.map"] = ",".join(f"{n}:PLAINTEXT" for n in names)
        settings["inter.broker.listener.name"] = "PLAINTEXT"
        return settings
