"""
A relay whose broker or database is away, whose lease ran out or whose tables do not fit.
"""

from __future__ import annotations

from outbox_relay.errors import StoreUnavailable
from outbox_relay.store.channel import MissingTable
from tests.unit.faults import unavailable


async def test_an_outage_of_the_broker_costs_no_event(start, store, broker, clock):
    """
    I8. However long it lasts, nothing is given up and nothing needs a restart.
    """
    running = start()
    await clock.advance(1)
    broker.down = True
    ids = [store.insert("wide", key=b"%d" % n) for n in range(20)]
    await clock.advance(900)
    assert broker.published == []

    broker.down = False
    await clock.advance(3)

    assert sorted(broker.seqs()) == ids
    assert not running.task.done()
    assert "dead_letter" not in running.watcher.names()


async def test_nothing_is_read_while_no_broker_answers(start, store, broker, clock):
    """
    I10. An outage does not turn the backlog over and over.
    """
    broker.down = True
    store.insert("orders")
    start()
    await clock.advance(60)
    store.calls.clear()

    await clock.advance(60)

    assert store.calls.count("read") == 0


async def test_an_outage_of_the_database_costs_no_event(start, store, broker, clock):
    """
    I8, I6. A lease that ran out but that nobody took is still ours: nothing is published twice.
    """
    running = start()
    await clock.advance(1)
    ids = [store.insert("orders", key=b"k")]
    for method in ("read", "renew", "mark_produced", "max_id", "sample", "uncommitted_ids"):
        store.before[method] = unavailable
    await clock.advance(60)

    store.before.clear()
    ids.append(store.insert("orders", key=b"k"))
    await clock.advance(10)

    assert broker.seqs() == ids
    assert store.pending() == []
    assert not running.task.done()


async def test_after_an_outage_the_backlog_is_measured_soon(start, store, clock):
    """
    The sample that the outage cut off took long, and was no load: it calls for no long rest.
    """

    async def hangs() -> None:
        await clock.sleep(10)
        raise StoreUnavailable("the database did not answer in time")

    start(sample_seconds=2.0)
    await clock.advance(1)
    for method in ("read", "renew", "max_id", "sample", "uncommitted_ids"):
        store.before[method] = hangs
    await clock.advance(30)
    store.before.clear()
    back_at = len(store.calls)
    await clock.advance(15)

    assert "sample" in store.calls[back_at:]


async def test_a_relay_that_cannot_renew_stops_publishing_before_its_lease_can_pass_on(
    start, store, broker, clock
):
    """
    I5. The trust window counts from the start of the renewal.
    """
    start()
    await clock.advance(1)
    store.before["renew"] = unavailable
    await clock.advance(6)
    store.insert("orders")

    await clock.advance(20)

    assert broker.published == []


async def test_a_stale_relay_marks_nothing_and_begins_anew(start, store, broker, clock):
    """
    I5. Its term is over: another relay took the lanes.
    """
    running = start()
    await clock.advance(1)
    store.before["renew"] = unavailable
    await clock.advance(16)
    assert await store.acquire("other", wake_address="", lease_seconds=15) is not None
    store.before.clear()

    await clock.advance(3)

    assert "term_over" in running.watcher.names()
    assert not running.producer.active


async def test_a_table_that_does_not_fit_is_waited_for(start, store, broker, clock):
    """
    The relay stays alive, says which command mends it, and goes on by itself.
    """
    store.schema_problem = "run `outbox-relay migrate`"
    row_id = store.insert("orders")
    running = start()
    await clock.advance(20)
    assert broker.published == []
    assert ("schema_mismatch", {"error": "run `outbox-relay migrate`"}) in running.watcher.events

    store.schema_problem = None
    await clock.advance(6)

    assert broker.seqs() == [row_id]


async def test_a_table_that_becomes_too_new_ends_the_term(start, store, broker, clock):
    """
    A migration under a running relay is noticed, and the lanes go to a relay that fits.
    """
    running = start()
    await clock.advance(2)

    store.schema_problem = "upgrade outbox-relay"
    await clock.advance(15)

    assert not running.producer.active
    assert "schema_mismatch" in running.watcher.names()


async def test_another_server_begins_a_new_term(start, store, broker, clock):
    """
    I1. After a failover ids may be given out again: cursors and queued marks are void.
    """
    running = start()
    await clock.advance(3)
    store.server = "memory:2"
    await clock.advance(20)

    row_id = store.insert("orders")
    await clock.advance(2)

    assert "term_over" in running.watcher.names()
    assert broker.seqs() == [row_id]


async def test_a_column_that_is_gone_is_no_storm_of_retries(start, store, broker, clock):
    """
    I8. The relay looks again with growing pauses, says why, and goes on when the column is back.
    """
    row_id = store.insert("orders")
    gone = MissingTable("Unknown column 'headers' in 'field list'")
    store.fail("read", *[gone] * 1000)
    running = start()
    await clock.advance(120)
    reads = store.calls.count("read")
    store._failures.clear()
    await clock.advance(30)

    # Pauses of up to five seconds, with full jitter.
    assert reads <= 60
    assert "store_unavailable" in running.watcher.names()
    assert broker.seqs() == [row_id]
