"""
A real Prometheus.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

from tests.services.process import MissingPartError, Service, free_port

ANSWER_SECONDS = 60.0


class Prometheus(Service):
    """Prometheus on 127.0.0.1 with the configuration file *config*."""

    name = "prometheus"

    def __init__(self, config: Path, folder: Path | None = None) -> None:
        if shutil.which("prometheus") is None:
            raise MissingPartError(
                "prometheus is not installed; run: python -m tests.deploy.install"
            )
        super().__init__(folder)
        self.config = config
        self.port = free_port()

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series that *expression* gives now, each with `metric` and `value`."""
        return list(self._ask("query", query=expression)["result"])

    def wait_for(self, expression: str) -> list[dict[str, Any]]:
        """The same, asked until it gives any."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while not (found := self.query(expression)):
            assert time.monotonic() < deadline, f"{expression} gives nothing"
            time.sleep(0.1)
        return found

    def _ask(self, what: str, **parameters: str) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self.port}/api/v1/{what}?{urlencode(parameters)}"
        with urlopen(url, timeout=10) as answer:
            data: dict[str, Any] = json.load(answer)["data"]
        return data

    def _prepare(self) -> None:
        """Nothing: it makes its folder itself."""

    def _command(self) -> Sequence[str]:
        return [
            "prometheus",
            f"--config.file={self.config}",
            f"--storage.tsdb.path={self.folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
        ]

    def _is_ready(self) -> bool:
        try:
            with urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=2):
                return True
        except (URLError, OSError):
            return False
