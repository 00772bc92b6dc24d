"""
Logs: machine-readable in a container, for eyes on a terminal, never a payload, key or secret.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from outbox_relay.config import LogOptions
from outbox_relay.logs import (
    ClientRepeats,
    RepeatLimit,
    configure_logs,
    flush_logs,
    get_logger,
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def configured(stream: io.StringIO | None = None, **options: Any) -> io.StringIO:
    stream = stream or io.StringIO()
    configure_logs(LogOptions(**options), stream=stream)
    return stream


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_container_gets_one_json_object_a_line() -> None:
    """
    Event name, level, fields, and the instant in UTC.
    """
    stream = configured()
    get_logger().info("lease_acquired", term=7)
    (line,) = lines(stream)

    assert (line["event"], line["level"], line["term"]) == ("lease_acquired", "info", 7)
    assert line["timestamp"].endswith("Z")


def test_a_terminal_gets_colours() -> None:
    """
    `auto` looks at the stream; `json` and `console` do not.
    """
    coloured = configured(Terminal())
    get_logger().info("started")
    plain = configured(Terminal(), format="json")
    get_logger().info("started")
    forced = configured(format="console")
    get_logger().info("started")

    assert "\x1b[" in coloured.getvalue()
    assert lines(plain)[0]["event"] == "started"
    assert not forced.getvalue().startswith("{")


def test_the_level_is_kept() -> None:
    """
    Lines below the level are not written.
    """
    stream = configured(level="warning")
    get_logger().info("quiet")
    get_logger().warning("loud")

    assert [line["event"] for line in lines(stream)] == ["loud"]


@pytest.mark.parametrize(("level", "lines_written"), [("info", 0), ("debug", 1)])
def test_aiokafka_logs_at_debug_only(level: str, lines_written: int) -> None:
    """
    Each trouble is told once, by the relay, with what mends it.
    """
    stream = configured(level=level)
    logging.getLogger("aiokafka.cluster").error("Topic t not found in cluster metadata")

    assert len(lines(stream)) == lines_written


@pytest.mark.parametrize(
    "name",
    ["aiokafka.producer", "aiormq.channel", "redis", "asyncmy", "sqlalchemy.engine", "uvicorn"],
)
def test_client_libraries_never_log_below_warning(name: str) -> None:
    """
    I11. aiokafka writes keys and values at DEBUG, whatever our own level is.
    """
    stream = configured(level="debug")
    logging.getLogger(name).debug("Sending (key=%r value=%r)", b"key-canary", b"value-canary")
    logging.getLogger(name).info("canary")
    logging.getLogger(name).warning("away")

    assert [line["event"] for line in lines(stream)] == ["away"]
    assert "canary" not in stream.getvalue()


def test_what_a_client_library_repeats_is_held_back_and_counted() -> None:
    """
    Equal lines, numbers aside, pass once in 30 s; ours always pass.
    """
    now = 0.0
    repeats = ClientRepeats(RepeatLimit(30.0, clock=lambda: now))

    def passes(name: str, text: str) -> str | None:
        record = logging.LogRecord(name, logging.WARNING, "", 0, text, None, None)
        return record.getMessage() if repeats.filter(record) else None

    first = [passes("aiokafka", f"Unable connect to node {node}") for node in (1, 2, 1)]
    own = [passes("outbox_relay", "same") for _ in range(2)]
    now = 31.0
    later = passes("aiokafka", "Unable connect to node 1")

    assert first == ["Unable connect to node 1", None, None]
    assert own == ["same", "same"]
    assert later == "Unable connect to node 1 (and 2 times before)"


def test_the_repeat_limit_forgets_rather_than_grows() -> None:
    """
    I10. A thousand different lines are remembered, not a million.
    """
    limit = RepeatLimit(30.0, clock=lambda: 0.0)
    for number in range(1002):
        limit.held_back(number)

    assert limit.held_back(0) == 0


def test_no_password_payload_or_key_is_logged() -> None:
    """
    I11. Neither in fields, nor in the text of an exception, nor as its local variables.
    """
    stream = configured()
    secret = "geh" + "eim"
    url = f"mysql+asyncmy://ob:{secret}@db/shop"

    def connect(password: str) -> None:
        raise OSError(f"cannot connect to {url}")

    try:
        connect(secret)
    except OSError:
        get_logger().exception(
            "failed", url=url, payload=secret.encode(), key=secret, topic="orders"
        )
    (line,) = lines(stream)

    assert "geheim" not in stream.getvalue()
    assert line["topic"] == "orders"
    assert line["payload"] == "(hidden)"
    assert "ob:***@db/shop" in line["exception"]


def test_a_terminal_shows_no_local_variables() -> None:
    """
    I11. Colourful tracebacks print what functions hold.
    """
    stream = configured(Terminal())

    def handle(payload: str) -> None:
        raise ValueError("no")

    try:
        handle("canary-" + "x")
    except ValueError:
        get_logger().exception("failed")

    assert "canary-x" not in stream.getvalue()


def test_configuring_again_does_not_double_the_lines() -> None:
    """
    The last configuration is the only one.
    """
    configured()
    stream = configured()
    get_logger().info("once")
    flush_logs()

    assert len(lines(stream)) == 1
