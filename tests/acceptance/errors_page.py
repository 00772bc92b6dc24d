"""docs/reference/errors.md: what a relay says and does in each trouble, as it was seen."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tests.acceptance.troubles import TROUBLES, Stage, Trouble

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "errors.md"
LIMIT_SECONDS = 90.0

HEAD = """\
# Errors

What `outbox-relay run` says and does when something around it is wrong. The relay **waits** for what can
be mended without it: it tries again with growing pauses, says so at most once in 10 seconds, and goes on
by itself. A trouble of one topic holds up only that topic. It **exits** where only a new start can help.

While it waits, the log has one line of level `warning`, here as `event`: error. `repeated` counts the
equal ones that were held back. When it exits, standard error has one line for each problem. The
[exit codes](command-line.md#exit-codes) are part of the interface. No line ever holds a secret, a payload
or a key.

A test makes each of these failures for a real relay with MariaDB and Kafka, mends it, and compares what it
saw with this page. Names, addresses and paths are examples.

| failure | what the relay says | what it does | what mends it |
|---|---|---|---|
"""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a relay did. *complaints* are what it said until it had said something twice."""

    complaints: list[str]
    seconds_between: float | None
    exit_code: int | None
    went_on: bool
    printed: str


class Relay:
    """`outbox-relay run` with what it prints."""

    def __init__(self, stage: Stage) -> None:
        self._output = stage.file("printed")
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [stage.command, "run", "--config", stage.write_config()],
                cwd=stage.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def printed(self) -> str:
        """Everything so far."""
        return self._output.read_text()

    def complaints(self) -> list[Mapping[str, str]]:
        """What it printed besides news: log lines of a warning or worse, and plain text."""
        lines = self.printed().splitlines()
        told = [json.loads(line) if line.startswith("{") else {"text": line} for line in lines]
        return [fields for fields in told if fields.get("level") != "info"]

    def end(self) -> None:
        """SIGTERM, and wait."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        self._process.wait(timeout=LIMIT_SECONDS)


def watch(stage: Stage, trouble: Trouble) -> Seen:
    """Make the trouble, start a relay, see what it says, mend the trouble, see that it goes on."""
    if trouble.migrated:
        stage.migrate()
        stage.write_event()
    trouble.make(stage)
    relay = Relay(stage)
    try:
        wait_until(lambda: relay.exit_code is not None or len(relay.complaints()) > 1)
        code, complaints = relay.exit_code, relay.complaints()
        trouble.mend(stage)
        if code is None:
            if not trouble.migrated:
                stage.write_event()
            wait_until(lambda: relay.exit_code is not None or stage.is_relayed())
        went_on = code is None and relay.exit_code is None
    finally:
        relay.end()
    return Seen(
        complaints=[stage.told(as_text(fields)) for fields in complaints],
        seconds_between=None if code is not None else seconds_between(complaints),
        exit_code=code,
        went_on=went_on,
        printed=relay.printed(),
    )


def wait_until(ready: Callable[[], bool]) -> None:
    """Return when *ready*; fail after a long while."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while not ready():
        assert time.monotonic() < deadline, f"not within {LIMIT_SECONDS} s"
        time.sleep(0.1)


def as_text(fields: Mapping[str, str]) -> str:
    """A complaint as the page writes it."""
    if "event" not in fields:
        return fields["text"]
    return f"`{fields['event']}`: {fields['error']}" if "error" in fields else fields["event"]


def seconds_between(complaints: list[Mapping[str, str]]) -> float:
    """From the first to the second."""
    first, second = (datetime.fromisoformat(fields["timestamp"]) for fields in complaints[:2])
    return (second - first).total_seconds()


def row(trouble: Trouble, seen: Seen) -> str:
    """One line of the table."""
    says = " ".join(dict.fromkeys(seen.complaints)).replace("|", "\\|")
    does = "waits, and goes on by itself" if seen.went_on else f"exits with {seen.exit_code}"
    return f"| {trouble.failure} | {says} | {does} | {trouble.mends} |"


def page(rows: Mapping[str, str]) -> str:
    """The whole page, of a row for each failure."""
    return HEAD + "".join(rows[trouble.failure] + "\n" for trouble in TROUBLES)
