"""
When a relay is asked to stop, and when it has: whatever it is doing.
"""

from __future__ import annotations

import asyncio
from random import Random

from outbox_relay.relay.options import RelayOptions
from outbox_relay.relay.producer import EventProducer
from outbox_relay.testing import settle


async def test_a_second_stop_does_not_prolong_the_first(start, store, broker, clock):
    """
    I9. An impatient operator sends SIGTERM twice; the budget counts from the first.
    """
    running = start(stop_seconds=10.0)
    await clock.advance(1)
    running.producer.stop()
    stop_by = running.producer._stop_by
    await clock.advance(0)
    running.producer.stop()

    assert running.producer.stopping
    assert running.producer._stop_by == stop_by
    assert running.watcher.names().count("stopping") == 1


async def test_a_stop_while_the_lease_is_taken_publishes_nothing(start, store, broker, clock):
    """
    I9. The term that has just begun hands its lanes back.
    """
    row_id = store.insert("orders")
    running = start()
    store.before["acquire"] = running.producer.stop
    await clock.advance(1)

    assert running.task.done()
    assert store.leases.owners() == {}
    assert store.leases._rows[0].crash_count == 0
    assert broker.seqs() == []
    assert store.pending() == [row_id]


async def test_a_spent_budget_ends_the_relay_with_a_batch_under_way(start, store, broker, clock):
    """
    I9, I3. Nobody waits for its answer: the lanes are free, and the row stays pending.
    """
    broker.hold("orders")
    row_id = store.insert("orders")
    running = start(stop_seconds=0.5)
    await clock.advance(1)
    running.producer.stop()
    await asyncio.wait([running.task])

    assert running.task.exception() is None
    assert "stop_budget_spent" in running.watcher.names()
    assert store.leases.owners() == {}
    assert store.pending() == [row_id]


async def test_a_drain_that_stands_by_ends_when_the_table_is_empty(start, store, broker, clock):
    """
    `run --until-empty` beside an active relay: whoever emptied it.
    """
    start(owner="active")
    await clock.advance(1)
    broker.hold("orders")
    row_id = store.insert("orders")
    await clock.advance(1)
    drain = EventProducer(
        store, broker, owner="drain", clock=clock, random=Random(1), options=RelayOptions()
    )
    task = asyncio.create_task(drain.run(until_empty=True))
    await clock.advance(3)
    assert not task.done()

    broker.let_go("orders")
    await clock.advance(2)
    await settle()

    assert task.done()
    assert broker.seqs() == [row_id]
    assert store.leases.owners().keys() == {"active"}
