"""
Why rows wait, and what may be there twice: as the metrics of a whole relay in memory say it.
"""

from __future__ import annotations

import pytest

from outbox_relay.errors import StoreUnavailable
from outbox_relay.metrics import Metrics, MetricsObserver
from outbox_relay.relay.canary_options import CanaryOptions
from outbox_relay.relay.outcomes import FailureKind, Fault, Rejected, RejectReason, Unknown
from outbox_relay.relay.waiting import Cause, Late, together, without_database


class Watched:
    """The metrics of a relay on the clock of a test."""

    def __init__(self, clock) -> None:
        self.metrics = Metrics()
        self.observer = MetricsObserver(
            self.metrics, wall=lambda: clock.wall_us() / 1e6, clock=clock.now
        )

    def value(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"outbox_relay_{name}", labels) or 0.0

    def waiting(self) -> dict[str, float]:
        return {
            cause.value: rows
            for cause in Cause
            if (rows := self.value("waiting_rows", cause=cause.value))
        }


@pytest.fixture
def watched(clock):
    return Watched(clock)


@pytest.fixture
def relay(start, watched):
    return lambda **options: start(observer=watched.observer, sample_seconds=1.0, **options)


async def test_nothing_waits(relay, store, clock, watched):
    """
    Every cause is exported, so that a rule finds 0 and not nothing.
    """
    store.insert("orders")
    relay()
    await clock.advance(3)

    assert watched.waiting() == {}
    for cause in Cause:
        assert (
            watched.metrics.registry.get_sample_value(
                "outbox_relay_waiting_rows", {"cause": cause.value}
            )
            == 0
        )


async def test_a_missing_topic_and_one_that_is_paused(relay, store, clock, watched):
    """
    Each row has one cause; the operator's word goes before what the broker says.
    """
    store.paused = {"users"}
    began = clock.wall_us() / 1e6
    store.insert("missing")
    store.insert("missing")
    store.insert("users")
    relay()
    await clock.advance(5)

    assert watched.waiting() == {"topic": 2, "paused": 1}
    assert watched.value("waiting_oldest_timestamp_seconds", cause="topic") == began
    assert watched.value("publish_failures_total", topic="missing", kind="unknown_topic") >= 1


async def test_rows_wait_for_a_broker_that_is_away(relay, store, broker, clock, watched):
    """
    And for nothing once it is back.
    """
    broker.down = True
    store.insert("orders")
    relay()
    await clock.advance(40)
    during = watched.waiting()
    broker.down = False
    await clock.advance(40)

    assert during == {"broker": 1}
    assert watched.waiting() == {}


async def test_rows_wait_for_a_database_that_is_away(relay, store, broker, clock, watched):
    """
    Nobody can count any more: what was known to wait now waits for the database, and since when is told
    even if nothing did. Also after the lease has run out.
    """
    broker.hold("orders")
    store.insert("orders")
    relay()
    await clock.advance(3)
    away = StoreUnavailable("gone")
    for method in ("sample", "renew", "acquire", "read", "max_id", "release", "mark_produced"):
        store.fail(method, *[away] * 1000)
    began = clock.wall_us() / 1e6
    await clock.advance(4)
    during = watched.waiting()
    await clock.advance(60)
    since = watched.value("waiting_oldest_timestamp_seconds", cause="database")
    store._failures.clear()
    broker.let_go("orders")
    await clock.advance(60)

    assert during == {"database": 1}
    assert 0 < since <= began + 70
    assert watched.waiting() == {}
    assert watched.value("waiting_oldest_timestamp_seconds", cause="database") == 0


async def test_rows_wait_for_a_dead_letter_of_their_key(relay, store, broker, clock, watched):
    """
    With hold_key; those of other keys have their own causes.
    """

    def answer(_topic, _partition, records):
        bad = any(r.seq == b"1" for r in records)
        return Rejected(reason=RejectReason.INVALID_RECORD, detail="no") if bad else None

    broker.answer = answer
    for key in (b"a", b"a", b"a", b"b"):
        store.insert("orders", key=key)
    relay(on_dead_letter="hold_key")
    await clock.advance(5)

    assert watched.waiting() == {"dead": 2}
    assert watched.value("blocked_keys") == 1


async def test_rows_that_may_be_there_twice_are_counted(relay, store, broker, clock, watched):
    """
    On the ack, once each: an unknown outcome alone says nothing yet.
    """
    failures = [Unknown(fault=Fault.PARTITION, detail="lost", kind=FailureKind.RETRY)]
    broker.answer = lambda *_: failures.pop() if failures else None
    for _ in range(3):
        store.insert("orders")
    relay()
    await clock.advance(5)
    store.insert("orders")
    await clock.advance(2)

    assert watched.value("redelivered_total") == 3
    assert watched.value("unknown_outcomes_total") == 1
    assert watched.value("publish_failures_total", topic="orders", kind="retry") == 1


async def test_late_commits_are_counted(relay, store, clock, watched):
    """
    A transaction that stayed open for longer than the cursor waits.
    """
    late = store.begin()
    late.insert("orders", key=b"a")
    store.insert("orders", key=b"b")
    relay()
    await clock.advance(5)
    late.commit()
    await clock.advance(3)

    assert watched.value("late_rows_total", found="open") == 1


async def test_what_waits_for_a_sick_partition_is_not_late(relay, store, broker, clock, watched):
    """
    It was read in time, and waits: nobody is told that a transaction committed late.
    """
    broker.answer = lambda topic, *_: (
        Unknown(fault=Fault.PARTITION, detail="no leader") if topic == "orders" else None
    )
    for _ in range(5):
        store.insert("orders", key=b"k")
    relay()
    await clock.advance(30)
    well = store.insert("users", key=b"k")
    await clock.advance(30)
    during = watched.waiting()
    broker.answer = None
    await clock.advance(90)

    assert during == {"broker": 5}
    assert watched.value("late_rows_total", found="sweep") == 0
    assert broker.seqs("users") == [well]
    assert store.pending() == []


async def test_what_is_requeued_is_not_late(relay, store, broker, clock, watched):
    """
    The sweep finds it below the cursor, as it is meant to.
    """
    broker.answer = lambda *_: Rejected(reason=RejectReason.INVALID_RECORD, detail="no")
    dead = store.insert("orders", key=b"k")
    relay()
    await clock.advance(5)
    broker.answer = None
    store.requeue(dead)
    await clock.advance(30)

    assert broker.seqs("orders") == [dead]
    assert store.pending() == []
    assert watched.value("late_rows_total", found="sweep") == 0


@pytest.mark.parametrize("refused", ["mark_produced", "renew"])
async def test_a_database_that_refuses_marks_or_the_lease_is_the_cause(
    relay, store, clock, watched, refused
):
    """
    Such as when a right was revoked: the broker is well, and the relay is not slow.
    """
    relay()
    await clock.advance(3)
    store.fail(refused, *[StoreUnavailable("denied")] * 1000)
    store.insert("orders")
    await clock.advance(40)
    store.insert("orders")
    await clock.advance(5)
    during = watched.waiting()
    store._failures.clear()
    await clock.advance(60)

    assert during.keys() == {"database"}
    assert watched.waiting() == {}


@pytest.fixture
def canary(relay, broker):
    broker.topics["canary"] = 1
    return lambda **options: relay(
        canary=CanaryOptions(topic="canary", every_seconds=10.0), **options
    )


async def test_a_canary_shows_that_events_arrive(canary, broker, clock, watched):
    """
    One every ten seconds, acked; from its creation to its mark.
    """
    began = clock.wall_us() / 1e6
    canary()
    await clock.advance(35)

    assert len(broker.seqs("canary")) == 4
    assert watched.value("canaries_total", outcome="written") == 4
    assert watched.value("canaries_total", outcome="acked") == 4
    assert watched.value("canary_seconds_count") == 4
    assert watched.value("canary_interval_seconds") == 10
    assert watched.value("canary_timestamp_seconds", step="acked") > began + 20


async def test_a_canary_that_does_not_arrive_is_late(canary, broker, clock, watched):
    """
    Its instant stands still; the next one is written when the last has had its time.
    """
    broker.down = True
    began = clock.wall_us() / 1e6
    canary()
    await clock.advance(35)

    assert watched.value("canaries_total", outcome="late") >= 2
    assert watched.value("canaries_total", outcome="acked") == 0
    assert watched.value("canary_timestamp_seconds", step="acked") < began + 1
    assert watched.value("canary_timestamp_seconds", step="written") > began + 10


async def test_a_canary_that_cannot_be_written_is_a_failure(canary, store, clock, watched):
    """
    Such as without the right to insert: everything else goes on.
    """
    store.fail("write_canary", *[StoreUnavailable("INSERT command denied")] * 100)
    store.insert("orders")
    canary()
    await clock.advance(25)

    assert watched.value("canaries_total", outcome="failed") == 3
    assert watched.value("published_total", topic="orders") == 1
    assert watched.value("canary_timestamp_seconds", step="written") > 0


async def test_a_canary_that_is_refused_is_no_success(canary, broker, clock, watched):
    """
    Such as one without a key on a compacted topic: it becomes a dead letter, and its alert must come.
    """
    refused = Rejected(reason=RejectReason.INVALID_RECORD, detail="a compacted topic needs keys")
    broker.answer = lambda topic, *_: refused
    began = clock.wall_us() / 1e6
    canary()
    await clock.advance(25)

    assert watched.value("canaries_total", outcome="acked") == 0
    assert watched.value("canaries_total", outcome="failed") == 3
    assert watched.value("canary_timestamp_seconds", step="acked") < began + 1


async def test_a_canary_that_somebody_deleted_is_no_success(canary, broker, store, clock, watched):
    """
    Such as a dead letter that was discarded before it was looked at again. Rows are kept for a week here.
    """
    broker.down = True
    canary()
    await clock.advance(1)
    store.rows.clear()
    await clock.advance(3)

    assert watched.value("canaries_total", outcome="acked") == 0
    assert watched.value("canaries_total", outcome="failed") == 1


async def test_who_stands_by_writes_no_canary(canary, clock, watched, start):
    """
    And shows an interval of 0, for which no alert waits.
    """
    start(owner="first")
    await clock.advance(1)
    canary(owner="second")
    await clock.advance(30)

    assert watched.value("canary_interval_seconds") == 0
    assert watched.value("canaries_total", outcome="written") == 0


async def test_the_canary_ends_with_the_term(canary, clock, watched):
    """
    A relay that was stopped follows none.
    """
    running = canary()
    await clock.advance(5)
    await running.stop()

    assert watched.value("canary_interval_seconds") == 0
    assert watched.value("canary_timestamp_seconds", step="acked") == 0


def test_rows_without_a_time_count_and_date_nothing():
    """
    Any program may insert.
    """
    found = together([(Cause.TURN, Late(1, 0)), (Cause.TURN, Late(2, 70))])

    assert found == {Cause.TURN: Late(3, 70)}
    assert without_database({}, since_us=9) == {Cause.DATABASE: Late(0, 9)}


async def test_a_database_that_is_away_from_the_start_is_the_cause(relay, store, clock, watched):
    """
    Who never had a lane says it too, and since when; a standby's word is as good.
    """
    store.fail("acquire", *[StoreUnavailable("refused")] * 1000)
    began = clock.wall_us() / 1e6
    relay()
    await clock.advance(20)
    since = watched.value("waiting_oldest_timestamp_seconds", cause="database")
    store._failures.clear()
    await clock.advance(20)

    assert began <= since < began + 1
    assert watched.value("waiting_oldest_timestamp_seconds", cause="database") == 0


async def test_of_several_active_relays_one_writes_canaries(canary, broker, clock, watched):
    """
    The one that has lane 0: whoever acks and marks them.
    """
    canary(owner="first", max_active_relays=2)
    canary(owner="second", max_active_relays=2)
    await clock.advance(35)

    assert 3 <= watched.value("canaries_total", outcome="written") <= 5
    assert len(broker.seqs("canary")) == watched.value("canaries_total", outcome="written")


async def test_a_canary_that_is_deleted_on_the_ack_has_its_time(canary, clock, watched):
    """
    With a retention of 0 the relay's own clock says how long it took.
    """
    canary(retention_seconds=0)
    await clock.advance(25)

    assert watched.value("canaries_total", outcome="acked") == 3
    assert 0 <= watched.value("canary_seconds_sum") < 10


class TermOver(StoreUnavailable):
    """As a server that only reads says it."""

    ends_term = True


async def test_a_canary_that_finds_the_term_over_ends_it(canary, store, clock, watched):
    """
    As any other statement would; the next term writes the next one.
    """
    store.fail("write_canary", TermOver("it only reads"))
    canary()
    await clock.advance(25)

    assert watched.value("lane_transitions_total") == 3
    assert watched.value("canaries_total", outcome="failed") == 0
    assert watched.value("canaries_total", outcome="acked") >= 2


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"every_seconds": 0.5}, "canary.every_seconds = 0.5 must be from 1 to 3600"),
        ({"every_seconds": 7200.0}, "canary.every_seconds = 7200.0 must be from 1 to 3600"),
        ({"topic": "a b"}, "canary.topic = 'a b' must be a topic's name"),
    ],
)
def test_what_is_wrong_with_a_canary_is_told(changed, problem):
    """
    By its key; too often it would be load, too seldom it would show nothing.
    """
    [found] = CanaryOptions(**changed).problems()

    assert found.startswith(problem)
    assert CanaryOptions(topic="canary").problems() == []
