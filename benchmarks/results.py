"""
What a scenario found, as data: printed, kept as JSON, read again by the page and the charts.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import statistics
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from tests.services.kafka import LIBRARIES

RESULTS: Final = Path(__file__).with_name("results")
OURS: Final = "outbox-relay"
PACKAGES: Final = ("aiokafka", "asyncmy", "asyncpg", "SQLAlchemy", "uvloop")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A number that a run gives: its title, unit and form in tables."""

    title: str
    form: str = "{:,.0f}"

    def text(self, value: float | None) -> str:
        """As a table shows it."""
        return "–" if value is None else self.form.format(value)


MEASURES: Final[Mapping[str, Measure]] = {
    "rows_per_second": Measure(title="rows/s"),
    "whole_rows_per_second": Measure(title="rows/s, start to last mark"),
    "relay_us": Measure(title="relay CPU, µs/row", form="{:,.1f}"),
    "database_us": Measure(title="database CPU, µs/row", form="{:,.1f}"),
    "broker_us": Measure(title="broker CPU, µs/row", form="{:,.1f}"),
    "peak_mb": Measure(title="peak memory, MB"),
    "p50_ms": Measure(title="p50, ms", form="{:,.1f}"),
    "p99_ms": Measure(title="p99, ms", form="{:,.1f}"),
    "max_ms": Measure(title="max, ms", form="{:,.1f}"),
    "renewal_ms": Measure(title="longest renewal of the lease, ms", form="{:,.1f}"),
    "work_seconds": Measure(title="the work, s", form="{:,.2f}"),
    "writes": Measure(title="writes meanwhile"),
    "cpu_percent": Measure(title="CPU, % of a core", form="{:,.2f}"),
    "database_percent": Measure(title="database, % of a core", form="{:,.2f}"),
    "statements_per_second": Measure(title="statements/s", form="{:,.2f}"),
    "memory_mb": Measure(title="memory, MB"),
    "client_cpu_us": Measure(title="client CPU, µs/event", form="{:,.0f}"),
    "client_us": Measure(title="time of the transaction, µs"),
    "over_bare_us": Measure(title="CPU over the bare INSERT, µs", form="{:+,.0f}"),
    "statements": Measure(title="statements/event", form="{:,.1f}"),
    "cpu_over_alone": Measure(title="CPU, × the handler alone", form="{:,.2f}"),
    "time_over_alone": Measure(title="time, × the handler alone", form="{:,.2f}"),
    "cpu_to_theirs": Measure(title="CPU, × python-cqrs", form="{:,.2f}"),
    "over_first": Measure(title="cost, × the first", form="{:,.2f}"),
    "rate_to_first": Measure(title="rate, × the first", form="{:,.2f}"),
    "times_theirs": Measure(title="rate, × python-cqrs"),
    "lost": Measure(title="lost"),
    "duplicated": Measure(title="twice"),
    "inverted": Measure(title="inverted"),
    "split_keys": Measure(title="keys on several partitions"),
}


@dataclass(slots=True, kw_only=True)
class Case:
    """One line of a table: what ran, how it differs from the defaults, and what each run gave."""

    name: str
    system: str = OURS
    database: str = ""
    rows: int = 0
    settings: dict[str, str] = field(default_factory=dict)
    runs: list[dict[str, float]] = field(default_factory=list)
    note: str = ""

    def median(self, measure: str) -> float | None:
        """Of the runs that have it."""
        values = self.values(measure)
        return statistics.median(values) if values else None

    def values(self, measure: str) -> list[float]:
        """Each run's, sorted."""
        return sorted(run[measure] for run in self.runs if measure in run)

    def text(self, measure: str) -> str:
        """Median and spread, as a table shows them."""
        values, form = self.values(measure), MEASURES[measure]
        if not values:
            return "–"
        text = form.text(statistics.median(values))
        low, high = form.text(values[0]), form.text(values[-1])
        return text if low == high else f"{text} ({low} to {high})"


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What one scenario found, and where."""

    scenario: str
    command: str
    cases: list[Case]
    date: str = ""
    machine: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def measures(self) -> list[str]:
        """The columns: measures that a case has, in the order of MEASURES."""
        return [name for name in MEASURES if any(case.values(name) for case in self.cases)]

    def save(self, folder: Path, name: str) -> Path:
        """Write it as JSON; where."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.json"
        text = json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")
        return path


def load(path: Path) -> Outcome:
    """What `save` wrote."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return Outcome(**{**content, "cases": [Case(**case) for case in content["cases"]]})


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "cores": os.cpu_count(),
        "processor": _field("/proc/cpuinfo", "model name"),
        "memory_gb": round(int(_field("/proc/meminfo", "MemTotal").split()[0]) / 2**20),
        "system": f"{platform.system()} {platform.release()}",
    }


def versions(servers: Iterable[str] = ()) -> dict[str, str]:
    """Of what took part; *servers* such as "MariaDB 10.11.6"."""
    import outbox_relay

    found = {"outbox-relay": outbox_relay.__version__, "Python": platform.python_version()}
    found |= dict(server.rsplit(" ", 1) for server in servers)
    return found | {name: version(name) for name in PACKAGES}


def kafka_version() -> str:
    """Of the jars."""
    jar = next(LIBRARIES.glob("kafka_*.jar"))
    return f"Kafka {jar.stem.rsplit('-', 1)[1]}"


def today() -> str:
    """The date, UTC."""
    return time.strftime("%Y-%m-%d", time.gmtime())


def _field(path: str, name: str) -> str:
    with Path(path).open() as file:
        return next(
            (line.partition(":")[2].strip() for line in file if line.startswith(name)), "unknown 0"
        )
