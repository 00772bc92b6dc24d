"""
Payloads that are fetched one by one, when something comes in between.
"""

from __future__ import annotations

from outbox_relay.schema import Status
from tests.unit.test_relay_edges import LargeByLarge


async def test_a_row_that_is_gone_before_its_payload_is_fetched_holds_up_nobody(
    start, broker, clock
):
    """
    I7. Somebody deleted it: there is nothing to publish, and what comes after it goes on.
    """
    store = LargeByLarge(clock)
    gone = store.insert("orders", key=b"k", payload=b"x" * 20_000)
    stays = store.insert("orders", key=b"k", payload=b"y" * 20_000)
    last = store.insert("orders", key=b"k")
    store.before["payload"] = lambda: store.rows.pop(gone, None)
    running = start(store=store)
    await clock.advance(3)

    assert broker.seqs() == [stays, last]
    assert store.pending() == []
    assert running.producer._term.reading.in_flight == {}


async def test_a_late_row_that_waits_for_room_when_a_stop_comes_is_left_where_it_is(
    start, broker, clock
):
    """
    I9, I2. Its payload is not fetched any more; the next relay finds it.
    """
    store = LargeByLarge(clock)
    late = store.insert("orders", key=b"k", payload=b"x" * 30_000)
    hidden = store.rows.pop(late)
    store.insert("orders", key=b"k")
    running = start(store=store, in_flight_bytes=50_000, stop_seconds=20)
    await clock.advance(5)
    assert running.producer._term.reading.cursor > late
    broker.hold("users")
    under_way = store.insert("users", payload=b"x" * 30_000)
    await clock.advance(1)
    store.rows[late] = hidden
    store.calls.clear()
    while "late_rows" not in running.watcher.names():
        await clock.advance(0.1)
    running.producer.stop()
    await clock.advance(1)
    broker.let_go("users")
    await clock.advance(1)

    assert running.task.done()
    assert running.task.exception() is None
    assert "payload" not in store.calls
    assert store.status(under_way) is Status.PRODUCED
    assert store.pending() == [late]

    start(store=store)
    await clock.advance(2)

    assert broker.seqs("orders")[-1] == late
