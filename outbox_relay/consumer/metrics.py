"""
The metrics of a consumer: the one home of their names. ``docs/reference/metrics.md`` lists them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from outbox_relay.consumer.inbox import Inbox

PREFIX: Final = "outbox_relay_consumer_"
MOST_TOPICS: Final = 200
OTHER_TOPICS: Final = "other"
BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class ConsumerMetrics:
    """
    Every metric of the consumers of a process, on *registry* or one of their own.

    *inboxes* are those whose dropped events are counted too.
    """

    def __init__(
        self, *, registry: CollectorRegistry | None = None, inboxes: Iterable[Inbox] = ()
    ) -> None:
        self.registry = registry or CollectorRegistry()
        self._topics: set[str] = set()
        self.records = Counter(
            f"{PREFIX}records",
            "Records that came to an end",
            ("topic", "outcome"),
            registry=self.registry,
        )
        self.failures = Counter(
            f"{PREFIX}handler_failures",
            "Calls of a handler that raised",
            ("topic", "kind"),
            registry=self.registry,
        )
        self.seconds = Histogram(
            f"{PREFIX}handling_seconds",
            "One call of a handler that succeeded",
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.held = Gauge(
            f"{PREFIX}held_records",
            "Records that are tried again until they succeed: their partition waits",
            registry=self.registry,
        )
        self.registry.register(_Dropped([*inboxes]))

    def topic(self, name: str) -> str:
        """*name* as a label: the first 200 topics keep theirs, all later ones share one."""
        if name not in self._topics:
            if len(self._topics) >= MOST_TOPICS:
                return OTHER_TOPICS
            self._topics.add(name)
        return name


class _Dropped(Collector):
    """What inboxes have dropped: they count by themselves."""

    def __init__(self, inboxes: list[Inbox]) -> None:
        self._inboxes = inboxes

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily(
            "outbox_relay_inbox_dropped",
            "Deliveries that an inbox has dropped",
            labels=["consumer", "reason"],
        )
        for inbox in self._inboxes:
            family.add_metric([inbox.consumer, "duplicate"], inbox.duplicates)
            family.add_metric([inbox.consumer, "stale"], inbox.stale)
        yield family
