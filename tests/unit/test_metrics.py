"""
Metrics: counted after the fact, from closed sets of labels, with a bounded number of topics.
"""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from outbox_relay.liveness import watch_loop
from outbox_relay.metrics import Metrics, MetricsObserver, WeightedHistogram
from outbox_relay.relay.outcomes import Fault, RejectReason, Unknown
from outbox_relay.relay.ports import Backlog, Observer


class Seen:
    """An observer with a clock of its own, and what it exports."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.metrics = Metrics(database="mysql", driver="asyncmy")
        self.observer = MetricsObserver(self.metrics, wall=lambda: self.now, clock=lambda: self.now)

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"outbox_relay_{name}", labels)


@pytest.fixture
def seen() -> Seen:
    return Seen()


def test_it_is_an_observer(seen: Seen) -> None:
    """
    The relay core takes it as its Observer.
    """
    observer: Observer = seen.observer

    assert observer is seen.observer


def test_published_rows_are_counted_by_topic(seen: Seen) -> None:
    """
    Rows, not batches; the time to the ack once a batch.
    """
    seen.observer.published("orders", 500, 10_000, 0.004)
    seen.observer.published("orders", 20, 100, 0.2)

    assert seen.value("published_total", topic="orders") == 520
    assert seen.value("broker_ack_seconds_count") == 2
    assert seen.value("broker_ack_seconds_bucket", le="0.005") == 1
    assert seen.value("batch_rows_bucket", le="20.0") == 1


def test_throttles_add_up(seen: Seen) -> None:
    """
    Seconds in which a broker was sent nothing.
    """
    seen.observer.throttled(1.5)
    seen.observer.throttled(0.25)

    assert seen.value("broker_throttled_seconds_total") == 1.75


def test_latency_counts_every_row_of_a_batch(seen: Seen) -> None:
    """
    A batch of 2,000 rows is 2,000 observations; a clock that is behind counts as no latency.
    """
    seen.observer.latency(0.02, 2000)
    seen.observer.latency(400.0, 1)
    seen.observer.latency(-3.0, 1)

    assert seen.value("publish_latency_seconds_count") == 2002
    assert seen.value("publish_latency_seconds_bucket", le="0.01") == 1
    assert seen.value("publish_latency_seconds_bucket", le="0.025") == 2001
    assert seen.value("publish_latency_seconds_bucket", le="300.0") == 2001
    assert seen.value("publish_latency_seconds_bucket", le="+Inf") == 2002
    assert seen.value("publish_latency_seconds_sum") == pytest.approx(440.0)


def test_a_value_on_a_bound_belongs_to_its_bucket() -> None:
    """
    Prometheus' `le` means less or equal.
    """
    histogram = WeightedHistogram("h", "text", (1, 2))
    histogram.observe(1.0, 3)
    (family,) = histogram.collect()

    assert [sample.value for sample in family.samples if sample.name == "h_bucket"] == [3, 3, 3]


def test_topics_are_capped(seen: Seen) -> None:
    """
    I10. The first 200 topics keep their names; all later ones share `other`.
    """
    for number in range(250):
        seen.observer.published(f"t{number}", 1, 1, 0.1)
    seen.observer.published("t0", 1, 1, 0.1)

    assert seen.value("published_total", topic="t0") == 2
    assert seen.value("published_total", topic="t199") == 1
    assert seen.value("published_total", topic="t200") is None
    assert seen.value("published_total", topic="other") == 50


def test_failures_have_a_kind_from_a_closed_set(seen: Seen) -> None:
    """
    Unknown batches and dead letters, apart.
    """
    seen.observer.publish_failed("orders", Unknown(fault=Fault.BROKER, detail="away"))
    for reason in RejectReason:
        seen.observer.dead_letter("orders", reason)

    assert seen.value("unknown_outcomes_total") == 1
    assert seen.value("publish_failures_total", topic="orders", kind="unknown") == 1
    assert seen.value("publish_failures_total", topic="orders", kind="too_large") == 1
    assert (
        seen.value("publish_failures_total", topic="orders", kind="rejected")
        == len(RejectReason) - 1
    )
    assert seen.value("dead_letters_total", reason="unreadable") == 1


def test_hints_are_counted_by_what_became_of_them(seen: Seen) -> None:
    """
    Received, passed on, refused.
    """
    seen.observer.hints("received", 3)
    seen.observer.hints("passed_on", 1)
    seen.observer.hints("refused", 2)

    assert [
        seen.value("hints_total", kind=kind) for kind in ("received", "passed_on", "refused")
    ] == [
        3,
        1,
        2,
    ]


def test_the_oldest_pending_row_is_an_instant(seen: Seen) -> None:
    """
    An age would stand still with a stuck sampler; an instant grows old by itself.
    """
    seen.observer.sampled(Backlog(rows=7, capped=True, oldest_us=1_500_000, dead_rows=2))
    before = seen.value("oldest_pending_timestamp_seconds")
    capped = seen.value("backlog_capped")
    seen.now = 1010.0
    seen.observer.sampled(Backlog(rows=0, capped=False, oldest_us=None, dead_rows=2))

    assert (before, capped) == (1.5, 1)
    assert seen.value("oldest_pending_timestamp_seconds") == 0
    assert seen.value("backlog_rows") == 0
    assert seen.value("dead_letter_rows") == 2
    assert seen.value("backlog_sample_timestamp_seconds") == 1010.0


def test_lanes_and_their_transitions(seen: Seen) -> None:
    """
    A renewal is no transition; a loss is, and ends the lease's instant.
    """
    seen.observer.lanes(64, 15.0)
    seen.observer.lanes(64, 14.0)
    expires = seen.value("lease_expires_timestamp_seconds")
    seen.observer.lanes(0, 0.0)

    assert expires == 1014.0
    assert seen.value("lease_expires_timestamp_seconds") == 0
    assert seen.value("lanes_owned") == 0
    assert seen.value("lane_transitions_total") == 2


def test_who_holds_no_lane_shows_no_backlog(seen: Seen) -> None:
    """
    A former owner's last sample would grow old for ever, and page somebody.
    """
    seen.observer.lanes(64, 15.0)
    seen.observer.sampled(Backlog(rows=7, capped=False, oldest_us=1_500_000, dead_rows=2))
    seen.observer.lanes(0, 0.0)

    assert seen.value("oldest_pending_timestamp_seconds") == 0
    assert seen.value("backlog_rows") == 0
    assert seen.value("backlog_sample_timestamp_seconds") == 0


def test_a_schema_that_does_not_fit_shows(seen: Seen) -> None:
    """
    1 while it lasts; the end is logged once.
    """
    seen.observer.schema("run `outbox-relay migrate`")
    mismatch = seen.value("schema_mismatch")
    with capture_logs() as logs:
        seen.observer.schema(None)
        seen.observer.schema(None)

    assert mismatch == 1
    assert seen.value("schema_mismatch") == 0
    assert [line["event"] for line in logs] == ["schema_fits"]


def test_what_is_under_way_shows(seen: Seen) -> None:
    """
    Rows and bytes in flight, paused topics, time of reads and marks, last progress.
    """
    seen.observer.in_flight(12, 3456)
    seen.observer.parked({"orders"}, 3)
    seen.observer.read(5, 0.001)
    seen.observer.marked(5, 0.002)
    seen.now = 1007.0
    idle = seen.observer.seconds_since_progress()
    seen.observer.cycle()

    assert seen.value("inflight_records") == 12
    assert seen.value("inflight_bytes") == 3456
    assert seen.value("paused_topics") == 1
    assert seen.value("db_operation_seconds_count", op="read") == 1
    assert seen.value("db_operation_seconds_count", op="mark") == 1
    assert (idle, seen.observer.seconds_since_progress()) == (7.0, 0.0)
    assert seen.value("last_cycle_timestamp_seconds") == 1007.0


def test_trouble_is_a_warning_and_repeats_are_held_back(seen: Seen) -> None:
    """
    A broker that is away writes a line every 10 s, not one every cycle; other lines all pass.
    """
    with capture_logs() as logs:
        for _ in range(3):
            seen.observer.log("broker_unavailable", error="refused")
            seen.observer.log("lease_acquired", term=1)
        seen.now += 11
        seen.observer.log("broker_unavailable", error="refused")
    warnings = [line for line in logs if line["log_level"] == "warning"]

    assert len(logs) == 5
    assert [line.get("repeated") for line in warnings] == [None, 2]


def test_rebuilt_clients_are_counted_by_reason(seen: Seen) -> None:
    """
    What the broker's adapter tells in the log is counted; a reason that is not known is `other`.
    """
    seen.observer.log("producer_rebuilt", reason="no_metadata")
    seen.observer.log("producer_rebuilt", reason="something else")

    assert seen.value("producer_rebuilds_total", reason="no_metadata") == 1
    assert seen.value("producer_rebuilds_total", reason="other") == 1


def test_build_info_names_release_and_database(seen: Seen) -> None:
    """
    Always 1; the labels carry the news.
    """
    from outbox_relay import _version

    labels = {"version": _version.__version__, "db": "mysql", "driver": "asyncmy"}

    assert seen.value("build_info", **labels) == 1


async def test_the_loop_lag_is_measured(seen: Seen) -> None:
    """
    Each round sets the gauge.
    """
    seen.metrics.loop_lag.set(-1)
    watch = asyncio.create_task(watch_loop(seen.metrics, every_seconds=0.0))
    while seen.value("event_loop_lag_seconds") == -1:
        await asyncio.sleep(0)
    watch.cancel()

    assert (seen.value("event_loop_lag_seconds") or 0.0) >= 0
