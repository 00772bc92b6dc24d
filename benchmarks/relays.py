"""
Our relay under measurement: its settings, and what a drain costs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from benchmarks.programs import Program
from benchmarks.servers import Servers
from tests.services.database import Database

ADDRESSES: Final = ("database.url", "kafka.bootstrap_servers")
QUIET: Final = {"http.port": "0", "log.level": "warning"}
"""What differs from the defaults in every run: several relays on one machine, and no chatter."""

DRAIN_SECONDS: Final = 1800.0


def settings_for(
    servers: Servers, database: Database, settings: Mapping[str, str] | None = None
) -> dict[str, str]:
    """All settings that are not defaults."""
    return {
        "database.url": database.async_url,
        "kafka.bootstrap_servers": servers.kafka.bootstrap_servers,
        **QUIET,
        **(settings or {}),
    }


def shown(settings: Mapping[str, str]) -> dict[str, str]:
    """Those that the page names."""
    return {key: value for key, value in settings.items() if key not in ADDRESSES}


def start_relay(settings: Mapping[str, str], *, until_empty: bool = False) -> Program:
    """A relay that has loaded everything and waits for "go"."""
    argument = {"settings": dict(settings), "until_empty": until_empty}
    relay = Program("benchmarks.relay_program", argument)
    relay.answer()
    return relay


def drain(servers: Servers, relay: Program, rows: int) -> dict[str, float]:
    """Let a program empty the table; what that cost, by row."""
    before = servers.cpu_seconds()
    relay.tell("go")
    used = relay.answer(DRAIN_SECONDS)
    after = servers.cpu_seconds()
    return {"whole_rows_per_second": rows / used["seconds"], **costs(used, before, after, rows)}


def costs(
    used: Mapping[str, Any],
    before: tuple[float, float],
    after: tuple[float, float],
    rows: int,
) -> dict[str, float]:
    """CPU of relay, database and broker by row, and the relay's memory."""
    return {
        "relay_us": used["cpu_seconds"] / rows * 1e6,
        "database_us": (after[0] - before[0]) / rows * 1e6,
        "broker_us": (after[1] - before[1]) / rows * 1e6,
        "peak_mb": used["peak_mb"],
    }
