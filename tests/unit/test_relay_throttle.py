"""
A relay whose broker asks to be sent nothing for a while.
"""

from __future__ import annotations

from outbox_relay.errors import StoreUnavailable
from outbox_relay.relay.outcomes import Unsent
from outbox_relay.testing import RecordingBroker


class Throttling(RecordingBroker):
    """Leaves partitions of a topic unsent, half a second at a time, until it is told otherwise."""

    def __init__(self, *arguments, throttled: str = "orders", **more) -> None:
        super().__init__(*arguments, **more)
        self.throttled: str | None = throttled
        self.asked = 0
        self.probed = 0

    async def publish(self, topic, partition, records):
        if topic != self.throttled:
            return await super().publish(topic, partition, records)
        self.asked += 1
        await self.clock.sleep(0.5)
        return Unsent()

    async def probe(self):
        self.probed += 1
        return await super().probe()


async def test_a_throttle_of_minutes_makes_nothing_unknown(start, store, clock):
    """
    I2, I4. No parking, no pause, no probe: the same batch, in order, once it may go.
    """
    broker = Throttling(clock, {"orders": 1})
    running = start(broker=broker)
    for _ in range(3):
        store.insert("orders")
    await clock.advance(180)
    before = list(broker.published), broker.asked

    broker.throttled = None
    await clock.advance(2)

    assert before[0] == []
    assert before[1] > 100
    assert broker.seqs("orders") == [1, 2, 3]
    assert broker.probed == 0
    assert not {"publish_unknown", "partition_parked", "broker_away"} & set(running.watcher.names())


async def test_what_waits_for_a_throttle_is_not_sent_after_the_lease_is_in_doubt(
    start, store, clock
):
    """
    I5. Another relay may have the lanes by then: the wait is no part of what the lease was trusted for.
    """

    def unavailable() -> None:
        raise StoreUnavailable("away")

    broker = Throttling(clock, {"orders": 1})
    start(broker=broker)
    store.insert("orders")
    await clock.advance(2)
    store.before["renew"] = unavailable
    await clock.advance(6)

    broker.throttled = None
    await clock.advance(20)

    assert broker.published == []


async def test_a_stop_does_not_wait_for_a_throttle(start, store, clock):
    """
    I9. The rows stay pending, for whoever comes next.
    """
    broker = Throttling(clock, {"orders": 1})
    running = start(broker=broker, stop_seconds=20.0)
    store.insert("orders")
    await clock.advance(5)

    running.producer.stop()
    await clock.advance(1)

    assert running.task.done()
    assert broker.published == []
    assert "stop_budget_spent" not in running.watcher.names()


async def test_a_throttle_does_not_keep_the_room_of_what_may_go(start, store, clock):
    """
    I7. Rows behind a batch that stays unsent let go of their room, as behind one that gets no answer.
    """
    broker = Throttling(clock, {"orders": 1, "users": 1})
    start(broker=broker, in_flight_rows=20, chunk_rows=10, batch_bytes=60)
    for _ in range(200):
        store.insert("orders")
    store.insert("users")

    for _ in range(20):
        await clock.advance(0.5)
        store.insert("users")
    sent = broker.seqs("users")

    assert len(sent) > 10
    assert broker.seqs("orders") == []
