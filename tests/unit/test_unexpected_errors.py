"""
Whatever a library raises, no event is given up for it, and nobody overlooks it.
"""

from __future__ import annotations

import asyncio

import pytest

from outbox_relay.brokers.kafka import KafkaBroker
from outbox_relay.brokers.options import KafkaOptions
from outbox_relay.errors import BrokerUnavailable, ServerReadOnly, StoreUnavailable
from outbox_relay.metrics import MOST_UNEXPECTED, Metrics
from outbox_relay.relay import decide as decisions
from outbox_relay.relay.decide import decide
from outbox_relay.relay.outcomes import Fault, Rejected, RejectReason, Unknown
from outbox_relay.store import DatabaseOptions, open_store
from outbox_relay.testing import Watcher, record


class BrokenClient:
    """A client of Kafka that raises what it is told to."""

    def __init__(self, error: Exception) -> None:
        self._error = error
        self.burnt: set[object] = set()
        self.has_ended = False

    async def publish(self, *_: object) -> None:
        raise self._error

    def last_error(self, _: object) -> None:
        return None


def broken_broker(error: Exception, watcher: Watcher, monkeypatch) -> KafkaBroker:
    broker = KafkaBroker(KafkaOptions(bootstrap_servers="nowhere:1"), observer=watcher)

    async def client(_: object) -> BrokenClient:
        return BrokenClient(error)

    monkeypatch.setattr(broker, "_client_for", client)
    return broker


@pytest.mark.parametrize(
    "error", [ValueError("x"), LookupError(), RuntimeError("odd"), TypeError()]
)
async def test_whatever_the_client_raises_is_unknown_and_counted(error, monkeypatch):
    """
    I2. `publish` never raises, and only answers of a broker reject.
    """
    watcher = Watcher()
    broker = broken_broker(error, watcher, monkeypatch)

    outcome = await broker.publish("t", 0, [record(b"k", b"v")])

    assert isinstance(outcome, Unknown)
    assert outcome.fault is Fault.PARTITION
    assert ("unexpected_error", {"source": "kafka", "error": type(error).__name__}) in (
        watcher.events
    )


async def test_a_cancellation_is_passed_on(monkeypatch):
    """
    I9. It is no error of the broker.
    """
    broker = broken_broker(asyncio.CancelledError(), Watcher(), monkeypatch)

    with pytest.raises(asyncio.CancelledError):
        await broker.publish("t", 0, [record(b"k", b"v")])


async def test_records_that_cannot_become_a_batch_are_rejected():
    """
    I7. Nothing was sent, and they never can: the batch is split until the bad one stands alone.
    """
    broker = KafkaBroker(KafkaOptions(bootstrap_servers="nowhere:1"))
    good = record(b"k", b"v")
    bad = good._replace(timestamp_ms=2**80)

    outcome = await broker.publish("t", 0, [good, bad])

    assert isinstance(outcome, Rejected)
    assert outcome.reason is RejectReason.UNREADABLE


async def test_no_broker_for_a_quarantine_is_a_broker_that_is_away(monkeypatch):
    """
    I8. It costs no event an attempt.
    """
    broker = KafkaBroker(KafkaOptions(bootstrap_servers="nowhere:1"))

    async def refuse() -> None:
        raise OSError(111, "refused")

    monkeypatch.setattr(broker, "_start", refuse)

    with pytest.raises(BrokerUnavailable):
        await broker._quarantine()


def test_a_topic_that_seems_to_be_missing_while_no_broker_answers_is_an_outage():
    """
    I8. aiokafka says UnknownTopicOrPartition when it could ask nobody.
    """
    missing = Unknown(fault=Fault.TOPIC, detail="")
    known = {"records": 1, "unknown_in_a_row": 1, "rejected_in_a_row": 0}

    assert decide(missing, **known, broker_answers=False) == decisions.AwaitBroker()
    assert decide(missing, **known, broker_answers=True) == decisions.PauseTopic(detail="")


async def test_a_server_that_only_reads_ends_the_term_and_the_next_begins_at_once(
    start, store, broker, clock
):
    """
    I1. What the relay remembers is void; nobody waits for the rest of a lease that is its own.
    """
    running = start()
    await clock.advance(1)

    def only_reads() -> None:
        raise ServerReadOnly("the server only reads: name the primary")

    store.before["mark_produced"] = only_reads
    row_id = store.insert("orders")
    await clock.advance(2)
    store.before.clear()
    await clock.advance(6)

    terms = [fields["term"] for name, fields in running.watcher.events if name == "lease_acquired"]
    assert len(terms) > 1
    assert store.pending() == []
    assert set(broker.seqs()) == {row_id}


async def test_whatever_a_driver_raises_is_a_database_that_is_away(monkeypatch, sqlite_database):
    """
    I8. Counted by the name of its class, never by its text.
    """
    watcher = Watcher()
    store = open_store(DatabaseOptions(url=sqlite_database.async_url), observer=watcher)

    async def odd(*_: object) -> None:
        raise LookupError("secret")

    monkeypatch.setattr(store._samples, "_run", odd)

    with pytest.raises(StoreUnavailable):
        await store.sample(cap=1)
    await store.close()

    assert ("unexpected_error", {"source": "database", "error": "LookupError"}) in watcher.events


def test_the_words_of_unexpected_errors_are_bounded():
    """
    I10. A label has no more than so many values, whatever servers say.
    """
    metrics = Metrics()
    for number in range(3 * MOST_UNEXPECTED):
        metrics.unexpected("kafka", str(number))
    (family,) = [f for f in metrics.registry.collect() if f.name.endswith("unexpected_errors")]
    counted = {s.labels["error"]: s.value for s in family.samples if s.name.endswith("_total")}

    assert len(counted) == MOST_UNEXPECTED + 1
    assert counted["other"] == 2 * MOST_UNEXPECTED


@pytest.mark.parametrize("call", ["publish", "partitions"])
async def test_a_task_that_an_adapter_gives_up_is_not_forgotten(
    start, store, broker, clock, monkeypatch, call
):
    """
    I2. A library that cancels what waits for it would leave rows in flight that nobody publishes: the
    relay fails aloud instead, and whoever is started next reads them.
    """

    async def gives_up(*_: object) -> None:
        raise asyncio.CancelledError

    row = store.insert("orders")
    with monkeypatch.context() as patch:
        patch.setattr(broker, call, gives_up)
        running = start()
        await clock.advance(5)
        with pytest.raises(RuntimeError, match="gave up a task"):
            await running.task

    start()
    await clock.advance(30)
    assert broker.seqs() == [row]
