"""
toxiproxy: a proxy that adds a round trip to what goes through it.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Sequence
from pathlib import Path

from tests.services.process import MissingPartError, Service, free_port

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = ROOT / ".cache" / "toxiproxy" / "server"
VERSION = "v2.5.0"
MODULE = f"github.com/Shopify/toxiproxy/v2/cmd/server@{VERSION}"


class Toxiproxy(Service):
    """One server with any number of proxies, on 127.0.0.1."""

    name = "toxiproxy"

    def __init__(self) -> None:
        if not PROGRAM.exists():
            raise MissingPartError(f"{PROGRAM} is not there; run: make bench-install")
        super().__init__(None)
        self.port = free_port()

    def add(self, name: str, *, upstream: int, listen: int | None = None) -> int:
        """A proxy before a port of this machine, and its own port."""
        port = free_port() if listen is None else listen
        self._ask(
            "POST",
            "/proxies",
            {"name": name, "listen": f"127.0.0.1:{port}", "upstream": f"127.0.0.1:{upstream}"},
        )
        return port

    def set_round_trip(self, name: str, milliseconds: int) -> None:
        """From now on, half of it in each direction; 0 for none."""
        for stream in ("upstream", "downstream"):
            toxic = f"/proxies/{name}/toxics"
            self._ask("DELETE", f"{toxic}/{stream}", allowed=(404,))
            if milliseconds:
                self._ask(
                    "POST",
                    toxic,
                    {
                        "name": stream,
                        "type": "latency",
                        "stream": stream,
                        "attributes": {"latency": milliseconds // 2},
                    },
                )

    def _ask(
        self, method: str, path: str, content: object = None, *, allowed: Sequence[int] = ()
    ) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request(method, path, None if content is None else json.dumps(content))
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        if answer.status >= 400 and answer.status not in allowed:
            raise RuntimeError(f"toxiproxy: {method} {path}: {answer.status} {text}")

    def _command(self) -> Sequence[str]:
        return [str(PROGRAM), "-host", "127.0.0.1", "-port", str(self.port)]

    def _prepare(self) -> None:
        pass

    def _is_ready(self) -> bool:
        try:
            self._ask("GET", "/version")
        except OSError:
            return False
        return True
