"""
What a replay costs live events: from commit to consumer, without and with a replay beside them, in turn.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.latency import ANSWER_SECONDS, WARM_UP, Around, measure_once
from benchmarks.lookups import fill
from benchmarks.relays import settings_for
from benchmarks.servers import Kind, Servers, servers
from benchmarks.topic import create_topic
from tests.services.database import Database

TOPIC = "earlier"


@contextmanager
def replay_beside(
    servers_: Servers, rate: int, seconds: float, counts: list[int], database: Database
) -> Iterator[None]:
    """A replay of produced rows at *rate*, at work from before the block until after it."""
    rows = int(rate * seconds)
    fill(servers_.database, database.name, rows, status=1)
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "replay.json"
        settings = settings_for(servers_, database)
        flags = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        which = ("--to-id", str(rows), "--to-topic", TOPIC)
        words = ("replay", *which, "--yes", "--rate", str(rate), "--resume", str(kept))
        process = subprocess.Popen(
            [sys.executable, "-m", "outbox_relay", *words, *flags],
            stdout=subprocess.DEVNULL,
        )
        try:
            begun, started = _wait_for(kept, process), time.monotonic()
            yield
            assert process.poll() is None, "the replay ended before the live events"
            done = json.loads(kept.read_text())["published"] - begun
            counts.append(round(done / (time.monotonic() - started)))
        finally:
            process.terminate()
            process.wait()


def _wait_for(kept: Path, process: subprocess.Popen[bytes]) -> int:
    """Until something is published: how much."""
    give_up = time.monotonic() + ANSWER_SECONDS
    while True:
        published = json.loads(kept.read_text())["published"] if kept.exists() else 0
        if published:
            return int(published)
        assert process.poll() is None, "the replay ended before it began"
        assert time.monotonic() < give_up, "the replay published nothing"
        time.sleep(0.1)


def measure(kind: Kind, *, rate: int, seconds: int, beside: tuple[int, ...], runs: int) -> str:
    """A table: each rate of the replay, and none, *runs* times in turn."""
    count = WARM_UP + rate * seconds
    found: dict[int, list[dict[str, float]]] = {n: [] for n in (0, *beside)}
    counts: dict[int, list[int]] = {n: [] for n in beside}
    with servers(kind) as running:
        create_topic(running.kafka, TOPIC, partitions=4)
        measure_once(running, [{}], None, rate=rate, count=WARM_UP + rate)
        for _ in range(runs):
            for replayed, times in found.items():
                around: Around | None = None
                if replayed:
                    room = 4 * seconds + 60
                    around = partial(replay_beside, running, replayed, room, counts[replayed])
                more = {} if around is None else {"around": around}
                times.append(measure_once(running, [{}], None, rate=rate, count=count, **more))
    head = (
        f"{'replay, events a second':<26}{'p50 ms':>9}{'p99 ms':>9}{'max ms':>9}   p99 of each run"
    )
    return "\n".join([head, *[_line(n, found[n], counts.get(n, [])) for n in found]])


def _line(replayed: int, runs: list[dict[str, float]], counts: list[int]) -> str:
    p50, p99, most = [
        statistics.median(run[name] for run in runs) for name in ("p50_ms", "p99_ms", "max_ms")
    ]
    wrong = {
        key: run[key] for run in runs for key in ("lost", "duplicated", "inverted") if run.get(key)
    }
    name = "none" if not replayed else f"{replayed:,} (was {statistics.median(counts):,.0f})"
    each = ", ".join(f"{run['p99_ms']:.1f}" for run in runs)
    return f"{name:<26}{p50:>9.1f}{p99:>9.1f}{most:>9.1f}   {each}{f'  WRONG: {wrong}' if wrong else ''}"
