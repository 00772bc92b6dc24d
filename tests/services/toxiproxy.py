"""
toxiproxy: a proxy that delays, cuts or swallows what goes through it.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.services.process import MissingPartError, Service, free_port

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / ".cache" / "toxiproxy" / "server"
VERSION = "v2.5.0"
MODULE = f"github.com/Shopify/toxiproxy/v2/cmd/server@{VERSION}"


class Toxiproxy(Service):
    """One server with any number of proxies, on 127.0.0.1."""

    name = "toxiproxy"

    def __init__(self) -> None:
        if not PROGRAM.exists():
            raise MissingPartError(f"{PROGRAM} is not there; run: python -m tests.services.install")
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

    def remove(self, name: str) -> None:
        """Take the proxy away, with its connections."""
        self._ask("DELETE", f"/proxies/{name}", allowed=(404,))

    def redirect(self, name: str, *, upstream: int) -> None:
        """New connections go to another port of this machine; the old ones are cut."""
        self._ask("POST", f"/proxies/{name}", {"upstream": f"127.0.0.1:{upstream}"})

    def switch(self, name: str, *, on: bool) -> None:
        """Off: connections are cut, and new ones refused."""
        self._ask("POST", f"/proxies/{name}", {"enabled": on})

    def poison(
        self, name: str, kind: str, *, stream: str = "downstream", **attributes: int
    ) -> None:
        """Add a toxic. *downstream* is what the server says, *upstream* what the client says."""
        toxic = {"name": f"{kind}-{stream}", "type": kind, "stream": stream}
        self._ask("POST", f"/proxies/{name}/toxics", {**toxic, "attributes": attributes})

    def cure(self, name: str, kind: str = "") -> None:
        """Take all toxics away, or those of one kind; the proxy is on again."""
        for toxic in self._ask("GET", f"/proxies/{name}/toxics"):
            if toxic["type"].startswith(kind):
                self._ask("DELETE", f"/proxies/{name}/toxics/{toxic['name']}", allowed=(404,))
        self.switch(name, on=True)

    def set_round_trip(self, name: str, milliseconds: int) -> None:
        """From now on, half of it in each direction; 0 for none."""
        self.cure(name, "latency")
        if milliseconds:
            for stream in ("upstream", "downstream"):
                self.poison(name, "latency", stream=stream, latency=milliseconds // 2)

    def _ask(
        self, method: str, path: str, content: object = None, *, allowed: Sequence[int] = ()
    ) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request(method, path, None if content is None else json.dumps(content))
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        if answer.status >= 400 and answer.status not in allowed:
            raise RuntimeError(f"toxiproxy: {method} {path}: {answer.status} {text}")
        return json.loads(text) if text.startswith(("{", "[")) else None

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
