"""
outbox-relay beside Debezium and watermill's forwarder: the cases of one run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks import drain as draining
from benchmarks.results import MEASURES, OURS, Case
from benchmarks.rivals import debezium, watermill
from benchmarks.rivals.measure import drain, latency_and_idle
from benchmarks.rivals.ours import Ours
from benchmarks.rivals.rival import Rival
from benchmarks.servers import Servers

RATE = 200
LATENCY_SECONDS = 5
IDLE_SECONDS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much of everything."""

    rows: int
    few_rows: int
    """For watermill's forwarder, which takes longest, and for ours beside it."""
    runs: int


def rivals(servers: Servers, size: Size) -> list[Case]:
    """
    A case for each relay and setting.

    Ours drains once before each of Debezium's turns and after the last, so that a machine whose
    speed changes shows in its spread.
    """
    # The broker's first records are slow: its code is not compiled yet.
    draining.measure_once(servers, draining.WARM_UP_ROWS)
    ours, few = _case(OURS, "mark", size.rows), _case(OURS, "mark", size.few_rows)
    _drain_ours(ours, servers, 1)
    plain = _measure(debezium.Debezium(servers, how="default", tuning={}), size.rows, size.runs)
    _drain_ours(ours, servers, 1)
    tuned = _measure(
        debezium.Debezium(servers, how="tuned", tuning=debezium.TUNED), size.rows, size.runs
    )
    _drain_ours(ours, servers, max(1, size.runs - len(ours.runs)))
    _drain_ours(few, servers, size.runs)
    forwarders = [
        _measure(watermill.Watermill(servers, how=how, tuning=tuning), size.few_rows, size.runs)
        for how, tuning in (("default", {}), ("tuned", watermill.TUNED))
    ]
    for rival, beside in ((plain, ours), (tuned, ours), *((case, few) for case in forwarders)):
        rival.note = "; ".join(filter(None, (_compare(rival, beside), rival.note)))
    ours.runs += _measure(Ours(servers), 0, size.runs).runs
    hinted = _measure(Ours(servers, hints=True), 0, size.runs)
    return [ours, hinted, plain, tuned, few, *forwarders]


def _drain_ours(case: Case, servers: Servers, runs: int) -> None:
    for _ in range(runs):
        case.runs.append(draining.measure_once(servers, case.rows))
        _tell(case)


def _measure(rival: Rival, rows: int, runs: int) -> Case:
    """Backlogs of *rows*, if any; then latency and idle cost."""
    case = _case(rival.system, rival.how, rows, rival.settings)
    with rival.running():
        if rows:
            for run in range(runs):
                case.runs.append(drain(rival, _work(rival, f"drain-{run}"), rows))
                _tell(case)
        case.runs += latency_and_idle(
            rival,
            _work(rival, "latency"),
            rate=RATE,
            seconds=LATENCY_SECONDS,
            runs=runs,
            idle_seconds=IDLE_SECONDS,
        )
    case.note = rival.note
    return case


def _compare(rival: Case, ours: Case) -> str:
    """Our medians beside the rival's."""
    rate = rival.median("rows_per_second") or 1.0
    times = {
        name: (ours.median(name) or 0.0) / (rival.median(name) or 1.0)
        for name in ("rows_per_second", "relay_us", "peak_mb")
    }
    whole = (ours.median("whole_rows_per_second") or 0.0) / rate
    return (
        f"{ours.system} beside it has {times['rows_per_second']:.1f} × the rate ({whole:.1f} × from its "
        f"start to the last mark), {times['relay_us']:.2f} × the CPU a row and "
        f"{times['peak_mb']:.2f} × the memory"
    )


def _case(system: str, name: str, rows: int, settings: Mapping[str, str] | None = None) -> Case:
    return Case(
        system=system, name=name, database="MariaDB", rows=rows, settings={**(settings or {})}
    )


def _work(rival: Rival, what: str) -> str:
    """Part of a topic's name."""
    return re.sub(r"[^A-Za-z0-9]+", "-", f"{rival.system} {rival.how} {what}")


def _tell(case: Case) -> None:
    run = case.runs[-1]
    cells = [f"{MEASURES[name].text(value)} {MEASURES[name].title}" for name, value in run.items()]
    print(f"{case.system} {case.name}: {'; '.join(cells)}", flush=True)
