"""
An operator who has the runbook and nothing else: runs the commands of a section as they are printed.

`outbox-relay`, Kafka's scripts, `mariadb`, `openssl` and `curl` are the real programs. What the test
has not is `systemctl`, and there the test does what it would do.
"""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.deploy.image import ROOT
from tests.pages import blocks_of
from tests.services.kafka import LIBRARIES

ALERTS = (ROOT / "deploy" / "prometheus" / "alerts.yml").read_text(encoding="utf-8")
RUNBOOK = (ROOT / "docs" / "guide" / "runbook.md").read_text(encoding="utf-8")
MEND_SECONDS = 120

_SHIM = """#!/bin/sh
exec curl --silent --fail-with-body --max-time 100 --data-binary "$(basename "$0") $*" {url}
"""
_RELAY = """#!/bin/sh
cd {home} && exec {command} "$@"
"""
# The scripts of Kafka's own archive do the same with longer paths.
_KAFKA = """#!/bin/sh
exec java -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp '{libraries}/*' {tool} "$@"
"""
KAFKA_TOOLS = {
    "kafka-configs.sh": "kafka.admin.ConfigCommand",
    "kafka-topics.sh": "org.apache.kafka.tools.TopicCommand",
}


def faster(text: str, factor: int) -> str:
    """
    Alerts whose every time is *factor* times shorter: ranges, `for`, offsets, and seconds that are
    marked as such.
    """

    def duration(match: re.Match[str]) -> str:
        seconds = int(match[1]) * {"m": 60, "h": 3600}[match[2]]
        return f"{seconds * 1000 // factor}ms"

    text = re.sub(r"(?<=\[)(\d+)([mh])(?=\])", duration, text)
    text = re.sub(r"(?<=for: )(\d+)([mh])\b", duration, text)
    text = re.sub(r"(?<=offset )(\d+)([mh])\b", duration, text)
    return re.sub(r"(\d+) # seconds", lambda match: str(int(match[1]) / factor), text)


def blocks(alert: str, part: str) -> list[str]:
    """The shell blocks of a section's *part*, Look or Mend."""
    section = RUNBOOK.split(f"\n## {alert}\n")[1].split("\n## ")[0]
    text = section.split(f"\n**{part}**\n")[1].split("\n**")[0]
    return [block.text for block in blocks_of(text, "sh")]


class Operator:
    """Runs blocks of the runbook. *does* says what becomes of a program that is not there."""

    def __init__(
        self,
        folder: Path,
        command: str | Path,
        *,
        does: Callable[[list[str]], None],
        environment: Mapping[str, str],
    ) -> None:
        self.failures: list[Exception] = []
        self._programs = folder / "bin"
        self._programs.mkdir()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(does, self.failures))
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{self._server.server_port}/"
        self._program("outbox-relay", _RELAY.format(home=folder, command=command))
        self._program("systemctl", _SHIM.format(url=url))
        for name, tool in KAFKA_TOOLS.items():
            self._program(name, _KAFKA.format(libraries=LIBRARIES, tool=tool))
        path = f"{self._programs}:{os.environ['PATH']}"
        self._environment = {**os.environ, "PYTHONPATH": "", **environment, "PATH": path}

    def _program(self, name: str, text: str) -> None:
        program = self._programs / name
        program.write_text(text)
        program.chmod(0o755)

    def run(self, block: str) -> str:
        """Paste *block* into a shell; what it printed. Its last command must succeed."""
        done = subprocess.run(
            ["bash", "-c", block],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=MEND_SECONDS,
            check=False,
        )
        assert self.failures == []
        assert done.returncode == 0, f"{block}\n{done.stdout}{done.stderr}"
        return done.stdout

    def close(self) -> None:
        """Do nothing more."""
        self._server.shutdown()
        self._server.server_close()


def _handler(
    does: Callable[[list[str]], None], failures: list[Exception]
) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            words = self.rfile.read(int(self.headers["Content-Length"])).decode().split()
            try:
                does(words)
            except Exception as error:  # noqa: BLE001 - told by the test
                failures.append(error)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            pass

    return Handler
