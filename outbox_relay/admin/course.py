"""What this relay did in the last ten minutes: its counters, looked at every few seconds."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from outbox_relay.metrics import LATENCY_BUCKETS, MetricsObserver

EVERY_SECONDS: Final = 5.0
KEPT: Final = 121
"""Ten minutes."""

RECENT_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Look:
    """The counters at one moment."""

    at: float
    published: dict[str, float]
    """By topic."""
    latencies: tuple[int, ...]
    """Rows by bucket of `LATENCY_BUCKETS`, the last one above them all."""

    @property
    def total(self) -> float:
        """Of all topics."""
        return sum(self.published.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Recently:
    """The last minute, as far as this relay has lived."""

    published_per_second: float = 0.0
    by_topic: tuple[tuple[str, float], ...] = ()
    """Events a second, the busiest topics first."""
    p50_seconds: float | None = None
    p99_seconds: float | None = None
    """From created to acked, estimated within buckets; None if nothing was published."""


class Course:
    """The last looks."""

    def __init__(
        self, observer: MetricsObserver, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._observer = observer
        self._clock = clock
        self._looks: deque[Look] = deque(maxlen=KEPT)
        self.look()

    async def keep(self) -> None:
        """Look for ever."""
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            self.look()

    def look(self) -> None:
        """Note the counters as they are."""
        metrics = self._observer.metrics
        published = {
            sample.labels["topic"]: sample.value
            for family in metrics.published.collect()
            for sample in family.samples
            if sample.name.endswith("_total")
        }
        self._looks.append(Look(self._clock(), published, metrics.latency.counts()))

    def rates(self) -> list[float]:
        """Events a second between each two looks, oldest first."""
        looks = list(self._looks)
        return [
            max(0.0, (after.total - before.total) / (after.at - before.at))
            for before, after in pairwise(looks)
            if after.at > before.at
        ]

    @property
    def seconds(self) -> float:
        """How long a time the looks are about."""
        return self._looks[-1].at - self._looks[0].at

    def recently(self) -> Recently:
        """The last minute."""
        last = self._looks[-1]
        # The youngest look that is a minute old; the first one there is, if none is.
        first = self._looks[0]
        for look in self._looks:
            if last.at - look.at < RECENT_SECONDS:
                break
            first = look
        seconds = last.at - first.at
        if seconds <= 0:
            return Recently()
        rates = {
            topic: (count - first.published.get(topic, 0.0)) / seconds
            for topic, count in last.published.items()
        }
        busiest = sorted(rates.items(), key=lambda item: (-item[1], item[0]))
        counts = [b - a for a, b in zip(first.latencies, last.latencies, strict=True)]
        return Recently(
            published_per_second=sum(rates.values()),
            by_topic=tuple((topic, rate) for topic, rate in busiest if rate > 0),
            p50_seconds=quantile(0.5, counts),
            p99_seconds=quantile(0.99, counts),
        )


def quantile(share: float, counts: Sequence[int]) -> float | None:
    """
    The value below which *share* of what was counted lies, as Prometheus' ``histogram_quantile`` has it.

    *counts* are by bucket of `LATENCY_BUCKETS`; above the last bound it is that bound.

    >>> quantile(0.5, [10] + [0] * 13), quantile(0.5, [0] * 13 + [1]), quantile(0.5, [0] * 14)
    (0.005, 300, None)
    """
    total = sum(counts)
    if total <= 0:
        return None
    rank, below = share * total, 0
    for place, count in enumerate(counts):
        if below + count >= rank and count:
            if place >= len(LATENCY_BUCKETS):
                break
            lower = LATENCY_BUCKETS[place - 1] if place else 0.0
            return lower + (LATENCY_BUCKETS[place] - lower) * (rank - below) / count
        below += count
    return LATENCY_BUCKETS[-1]
