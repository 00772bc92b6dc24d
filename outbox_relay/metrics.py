"""
The metrics: the one home of their names, types and labels, and the observer that feeds them.

Labels come from closed sets, and topics are capped: never a key or an id. Counters move after the
fact is durable. ``docs/reference/metrics.md`` lists exactly what stands here.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from outbox_relay._version import __version__
from outbox_relay.logs import RepeatLimit, get_logger
from outbox_relay.metric_kinds import CertificateExpiry, WeightedHistogram
from outbox_relay.relay.outcomes import FailureKind, RejectReason, Unknown
from outbox_relay.relay.ports import Backlog
from outbox_relay.relay.waiting import NONE, Cause, Late

PREFIX: Final = "outbox_relay_"
MOST_TOPICS: Final = 200
OTHER_TOPICS: Final = "other"
LATENCY_BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
CLIENT_BUCKETS: Final = (
    *(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1),
    *(2.5, 5, 7.5, 10),
)
ROW_BUCKETS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)
REBUILD_REASONS: Final = frozenset({"unknown", "rejected", "healed", "ended", "no_metadata"})
MOST_UNEXPECTED: Final = 50
LOG_REPEAT_SECONDS: Final = 10.0

_TROUBLE = re.compile(
    r"_failed$|_unavailable$|_unknown$|_mismatch$|_paused$|_parked$|_quarantined$|_spent$|"
    r"_timed_out$|^dead_letter|^term_over$|^careful_begun$|^unexpected_error$"
)


class Metrics:
    """Every metric, on a registry of its own."""

    def __init__(self, *, database: str = "", driver: str = "") -> None:
        self.registry = CollectorRegistry()
        self._topics: set[str] = set()
        self._unexpected: set[tuple[str, str]] = set()
        self._backlog()
        self._publishing()
        self._running()
        self._canary()
        self.certificates = CertificateExpiry(f"{PREFIX}tls_cert_not_after_timestamp_seconds")
        self.registry.register(self.certificates)
        info = self._gauge("build_info", "1, with the release", "version", "db", "driver")
        info.labels(__version__, database, driver).set(1)

    def topic(self, name: str) -> str:
        """*name* as a label: the first 200 topics keep theirs, all later ones share one."""
        if name not in self._topics:
            if len(self._topics) >= MOST_TOPICS:
                return OTHER_TOPICS
            self._topics.add(name)
        return name

    def unexpected(self, source: str, error: str) -> None:
        """Count an error that is in no table: the first 50 have their word, all later ones share one."""
        if (source, error) not in self._unexpected:
            if len(self._unexpected) >= MOST_UNEXPECTED:
                error = "other"
            self._unexpected.add((source, error))
        self.unexpected_errors.labels(source, error).inc()

    def _backlog(self) -> None:
        self.oldest_pending = self._gauge(
            "oldest_pending_timestamp_seconds",
            "When the oldest pending row was created, in seconds since 1970; 0 if none waits",
        )
        self.backlog_rows = self._gauge("backlog_rows", "Pending rows, counted up to a cap")
        self.backlog_capped = self._gauge(
            "backlog_capped", "1 if backlog_rows stopped at the cap and more rows wait"
        )
        self.sampled_at = self._gauge(
            "backlog_sample_timestamp_seconds",
            "When the backlog was last measured; 0 if this relay holds no lane",
        )
        self.waiting_rows = self._gauge(
            "waiting_rows",
            "Of the oldest 10,000 pending rows, how many wait for this cause",
            "cause",
        )
        self.waiting_since = self._gauge(
            "waiting_oldest_timestamp_seconds",
            "When the oldest row that waits for this cause was created; 0 if none does",
            "cause",
        )
        self.late_rows = self._counter(
            "late_rows",
            "Rows whose transactions were still open when the cursor passed them",
            "found",
        )
        self.dead_letter_rows = self._gauge("dead_letter_rows", "Dead letters in the table")
        self.blocked_keys = self._gauge(
            "blocked_keys", "Keys whose later rows wait for a dead letter, with hold_key"
        )

    def _publishing(self) -> None:
        self.published = self._counter("published", "Rows that the broker acked", "topic")
        self.failures = self._counter(
            "publish_failures",
            "Batches that were not acked, topics that were refused, and rows that became dead letters",
            *("topic", "kind"),
        )
        self.unknown_outcomes = self._counter(
            "unknown_outcomes", "Batches of which nobody could say whether the broker has them"
        )
        self.redelivered = self._counter(
            "redelivered", "Rows acked after an outcome that was unknown: they may be there twice"
        )
        self.dead_letters = self._counter("dead_letters", "Rows given up, durably", "reason")
        self.latency = WeightedHistogram(
            f"{PREFIX}publish_latency_seconds", "From created to acked", LATENCY_BUCKETS
        )
        self.registry.register(self.latency)
        self.ack = self._histogram("broker_ack_seconds", "From publish to ack", CLIENT_BUCKETS)
        self.batch_rows = self._histogram("batch_rows", "Rows of an acked batch", ROW_BUCKETS)
        self.operations = self._histogram(
            "db_operation_seconds", "Time of a database operation", CLIENT_BUCKETS, "op"
        )
        self.purged_rows = self._counter(
            "purged", "Rows deleted because they were old enough", "kind"
        )
        self.in_flight_rows = self._gauge("inflight_records", "Rows read and not yet marked")
        self.in_flight_bytes = self._gauge(
            "inflight_bytes", "Stored payload bytes of rows read and not yet marked"
        )
        self.in_flight_rows_limit = self._gauge(
            "inflight_records_limit", "What inflight_records cannot exceed"
        )
        self.in_flight_bytes_limit = self._gauge(
            "inflight_bytes_limit", "What inflight_bytes cannot exceed by more than one row"
        )
        self.pool_resets = self._counter(
            "db_pool_resets", "Connections to the database given up, or not to be had", "reason"
        )
        self.rebuilds = self._counter(
            "producer_rebuilds", "How often the Kafka client was given up for a new one", "reason"
        )
        self.throttled = self._counter(
            "broker_throttled_seconds",
            "Seconds in which a broker was sent nothing because of a quota",
        )
        self.paused_topics = self._gauge("paused_topics", "Topics that pause")
        self.unexpected_errors = self._counter(
            "unexpected_errors",
            "Errors that are not in the tables: taken as unknown, and repeated",
            *("source", "error"),
        )

    def _running(self) -> None:
        self.lanes_owned = self._gauge("lanes_owned", "Lanes that this relay holds, of 64")
        self.lane_transitions = self._counter(
            "lane_transitions", "How often the number of lanes held has changed"
        )
        self.lease_expires = self._gauge(
            "lease_expires_timestamp_seconds",
            "Until when this relay may act without renewing; 0 if it holds no lane",
        )
        self.careful = self._gauge(
            "careful", "1 while rows are looked at with care, because relays died in a row"
        )
        self.hints = self._counter("hints", "Hints about new events", "kind")
        self.schema_mismatch = self._gauge(
            "schema_mismatch", "1 while the tables do not fit this release"
        )
        self.last_cycle = self._gauge(
            "last_cycle_timestamp_seconds", "When the main loop last made progress"
        )
        self.loop_lag = self._gauge(
            "event_loop_lag_seconds", "How much later than asked the event loop last woke"
        )

    def _canary(self) -> None:
        self.canaries = self._counter("canaries", "Canaries, by what became of them", "outcome")
        self.canary_seconds = self._histogram(
            "canary_seconds", "From a canary's creation to its mark", LATENCY_BUCKETS
        )
        self.canary_every = self._gauge(
            "canary_interval_seconds", "How often this relay writes a canary; 0 if it does not"
        )
        self.canary_at = self._gauge(
            "canary_timestamp_seconds", "When a canary was last written, or acked", "step"
        )

    def _gauge(self, name: str, documentation: str, *labels: str) -> Gauge:
        return Gauge(PREFIX + name, documentation, labels, registry=self.registry)

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(PREFIX + name, documentation, labels, registry=self.registry)

    def _histogram(
        self, name: str, documentation: str, buckets: Sequence[float], *labels: str
    ) -> Histogram:
        return Histogram(
            PREFIX + name, documentation, labels, buckets=buckets, registry=self.registry
        )


class MetricsObserver:
    """
    Watches the relay: metrics, logs, and what health asks for.

    What is logged is the core's to say, through `log`; the other methods only count.
    """

    def __init__(
        self,
        metrics: Metrics,
        *,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.metrics = metrics
        self.schema_problem: str | None = None
        self.lanes_owned = 0
        self.paused_topics: frozenset[str] = frozenset()
        self.causes: dict[str, int] = {}
        self.trouble = ""
        self._trouble_at = float("-inf")
        self._wall = wall
        self._clock = clock
        self._progress_at = clock()
        self._has_canary = False
        self._logger = get_logger()
        self._repeats = RepeatLimit(LOG_REPEAT_SECONDS, clock=clock)

    def seconds_since_progress(self) -> float:
        """How long ago the main loop last made progress, or was started."""
        return self._clock() - self._progress_at

    def seconds_since_trouble(self) -> float:
        """How long ago the log had a line of `trouble`."""
        return self._clock() - self._trouble_at

    def log(self, event: str, **fields: object) -> None:
        """One line; a warning if its name tells of trouble, then not again for 10 s if equal."""
        if event == "producer_rebuilt":
            reason = str(fields.get("reason"))
            self.metrics.rebuilds.labels(reason if reason in REBUILD_REASONS else "other").inc()
        if event == "unexpected_error":
            self.metrics.unexpected(str(fields.get("source")), str(fields.get("error")))
        if not _TROUBLE.search(event):
            self._logger.info(event, **fields)
            return
        self.trouble, self._trouble_at = event, self._clock()
        held_back = self._repeats.held_back((event, *sorted(map(str, fields.items()))))
        if held_back is not None:
            self._logger.warning(event, **fields, **({"repeated": held_back} if held_back else {}))

    def read(self, rows: int, seconds: float) -> None:
        """Count a read."""
        self.metrics.operations.labels("read").observe(seconds)

    def published(self, topic: str, rows: int, byte_count: int, seconds: float) -> None:
        """Count an acked batch."""
        self.metrics.published.labels(self.metrics.topic(topic)).inc(rows)
        self.metrics.ack.observe(seconds)
        self.metrics.batch_rows.observe(rows)

    def latency(self, seconds: float, rows: int) -> None:
        """Count *rows* with one latency."""
        self.metrics.latency.observe(max(seconds, 0.0), rows)

    def publish_failed(self, topic: str, outcome: Unknown) -> None:
        """Count a batch that ended unknown."""
        self.metrics.unknown_outcomes.inc()
        self.metrics.failures.labels(self.metrics.topic(topic), outcome.kind.value).inc()

    def topic_unavailable(self, topic: str, kind: FailureKind) -> None:
        """Count a topic that was refused."""
        self.metrics.failures.labels(self.metrics.topic(topic), kind.value).inc()

    def redelivered(self, rows: int) -> None:
        """Count rows that may be there twice."""
        self.metrics.redelivered.inc(rows)

    def late_rows(self, found: str, rows: int) -> None:
        """Count rows that committed late."""
        self.metrics.late_rows.labels(found).inc(rows)

    def waiting(self, causes: Mapping[Cause, Late]) -> None:
        """Show why rows wait: each cause, also those of which there is nothing."""
        for cause in Cause:
            late = causes.get(cause, NONE)
            self.metrics.waiting_rows.labels(cause.value).set(late.rows)
            self.metrics.waiting_since.labels(cause.value).set(late.oldest_us / 1_000_000)
        # A database that is away has 0 rows and a time: nobody can count them.
        self.causes = {cause.value: late.rows for cause, late in causes.items() if any(late)}

    def throttled(self, seconds: float) -> None:
        """Count a throttle."""
        self.metrics.throttled.inc(seconds)

    def connection_lost(self, reason: str) -> None:
        """Count a connection that was given up."""
        self.metrics.pool_resets.labels(reason).inc()

    def canary(self, outcome: str, seconds: float) -> None:
        """Count a canary, and note when."""
        self.metrics.canaries.labels(outcome).inc()
        if outcome in ("written", "acked"):
            self.metrics.canary_at.labels(outcome).set(self._wall())
        if outcome == "acked":
            self.metrics.canary_seconds.observe(seconds)

    def canary_every(self, seconds: float) -> None:
        """Show that this relay writes canaries, or does not; a new one has some time for its first."""
        self.metrics.canary_every.set(seconds)
        if self._has_canary != bool(seconds):
            self._has_canary = bool(seconds)
            for step in ("written", "acked"):
                self.metrics.canary_at.labels(step).set(self._wall() if seconds else 0)

    def marked(self, rows: int, seconds: float) -> None:
        """Count a mark."""
        self.metrics.operations.labels("mark").observe(seconds)

    def timed(self, operation: str, seconds: float) -> None:
        """Count another operation of the database."""
        self.metrics.operations.labels(operation).observe(seconds)

    def dead_letter(self, topic: str, reason: RejectReason) -> None:
        """Count a row given up."""
        too_large = reason is RejectReason.TOO_LARGE
        kind = FailureKind.TOO_LARGE if too_large else FailureKind.REJECTED
        self.metrics.dead_letters.labels(reason.value).inc()
        self.metrics.failures.labels(self.metrics.topic(topic), kind.value).inc()

    def purged(self, kind: str, rows: int) -> None:
        """Count rows that were purged."""
        self.metrics.purged_rows.labels(kind).inc(rows)

    def hints(self, kind: str, count: int) -> None:
        """Count hints."""
        self.metrics.hints.labels(kind).inc(count)

    def in_flight(self, rows: int, byte_count: int) -> None:
        """Show what is under way."""
        self.metrics.in_flight_rows.set(rows)
        self.metrics.in_flight_bytes.set(byte_count)

    def parked(self, topics: Collection[str], partitions: int) -> None:
        """Show what pauses."""
        self.metrics.paused_topics.set(len(topics))
        self.paused_topics = frozenset(topics)

    def blocked(self, keys: int) -> None:
        """Show how many keys are held."""
        self.metrics.blocked_keys.set(keys)

    def careful(self, on: bool) -> None:
        """Show whether rows are looked at with care."""
        self.metrics.careful.set(on)

    def sampled(self, backlog: Backlog) -> None:
        """Show the backlog."""
        self.metrics.backlog_rows.set(backlog.rows)
        self.metrics.backlog_capped.set(backlog.capped)
        self.metrics.oldest_pending.set((backlog.oldest_us or 0) / 1_000_000)
        self.metrics.dead_letter_rows.set(backlog.dead_rows)
        self.metrics.sampled_at.set(self._wall())

    def lanes(self, owned: int, expires_in_seconds: float) -> None:
        """Show what is held, and count changes."""
        self.metrics.lanes_owned.set(owned)
        self.metrics.lease_expires.set(self._wall() + expires_in_seconds if owned else 0)
        if owned != self.lanes_owned:
            self.lanes_owned = owned
            self.metrics.lane_transitions.inc()
        if not owned:
            # What a former owner last saw would grow old here for ever, and page somebody.
            self.sampled(Backlog(rows=0, capped=False, oldest_us=None, dead_rows=0))
            self.metrics.sampled_at.set(0)
            self.waiting({})
            self.blocked(0)
            self.careful(False)

    def schema(self, problem: str | None) -> None:
        """Show whether the tables fit."""
        self.metrics.schema_mismatch.set(problem is not None)
        if problem is None and self.schema_problem is not None:
            self._logger.info("schema_fits")
        self.schema_problem = problem

    def cycle(self) -> None:
        """Note progress, for /livez."""
        self._progress_at = self._clock()
        self.metrics.last_cycle.set(self._wall())
