"""
Care while something else happens: what an operator pauses, a stop, a database that fails.
"""

from __future__ import annotations

import asyncio

import pytest

from outbox_relay.errors import LeaseLost, ServerChanged, StoreUnavailable
from outbox_relay.relay.careful import CAREFUL_AFTER
from outbox_relay.schema import Codec, Status
from outbox_relay.testing import Watcher


@pytest.fixture
async def start_careful(start, store, clock):
    """Starts a relay that is careful from its first row on."""
    await store.acquire("dead", wake_address="", lease_seconds=15)
    for lane in range(64):
        store.leases._rows[lane].crash_count = CAREFUL_AFTER - 1
    store.leases.run_out()
    return start


def delays(store, clock, method: str, *, call: int, seconds: float) -> None:
    """Let one *call* of *method*, counted from 1, take *seconds*."""

    def hook():
        return clock.sleep(seconds) if store.calls.count(method) == call else None

    store.before[method] = hook


async def test_who_waits_for_its_turn_when_care_ends_goes_on_without(
    start_careful, store, broker, clock
):
    """
    What killed was among the rows before: nothing is written down for the rest.
    """
    running = start_careful(in_flight_rows=2, chunk_rows=1)
    delays(store, clock, "acquit", call=2, seconds=1)
    ids = [store.insert(topic, key=b"k") for topic in ("orders", "users", "wide")]
    await clock.advance(5)

    assert broker.seqs() == ids
    assert store.calls.count("suspect") == 2
    assert running.watcher.names().count("careful_done") == 1


async def test_rows_that_are_paused_before_their_turn_are_nobodys_suspects(
    start_careful, store, broker, clock
):
    """
    They are neither looked at nor published, and the relay goes on.
    """
    store.insert("users", key=b"k")
    waits = store.insert("orders", key=b"k")
    delays(store, clock, "suspect", call=1, seconds=4)
    start_careful()
    await clock.advance(1)
    store.paused.add("orders")
    await clock.advance(10)
    later = store.insert("users", key=b"k")
    await clock.advance(2)

    assert store.calls.count("suspect") == 1
    assert broker.seqs()[-1] == later
    assert store.pending() == [waits]


async def test_care_does_not_end_while_rows_are_suspects(start_careful, store, broker, clock):
    """
    They are paused meanwhile, so that nothing is left: they are acquitted first, and not published.
    """
    row_id = store.insert("orders", key=b"k")
    delays(store, clock, "suspect", call=1, seconds=4)
    running = start_careful()
    await clock.advance(1)
    store.paused.add("orders")
    await clock.advance(2)
    assert running.producer._term.reading.in_flight == {}
    assert "recovered" not in store.calls

    await clock.advance(10)

    assert store.calls.index("acquit") < store.calls.index("recovered")
    assert store.pending() == [row_id]
    assert broker.seqs() == []


async def test_a_row_that_no_relay_can_read_is_no_reason_to_keep_suspecting(
    start_careful, store, broker, clock
):
    """
    I7. It is a dead letter for its own reason, and acquitted of the other.
    """
    transaction = store.begin()
    bad = transaction.insert("orders", key=b"k", codec=Codec.ZSTD)
    good = transaction.insert("orders", key=b"k")
    transaction.commit()
    start_careful()
    await clock.advance(3)

    assert store.error(bad).startswith("unreadable")
    assert broker.seqs() == [good]
    assert store.calls.count("acquit") == store.calls.count("suspect") == 2


async def test_a_stop_before_the_turn_of_a_row_suspects_nobody(start_careful, store, broker, clock):
    """
    I9. What the next relay would be told of has not been looked at.
    """
    store.insert("orders", key=b"k")
    store.insert("users", key=b"k")
    delays(store, clock, "acquit", call=1, seconds=0.5)
    running = start_careful()
    await clock.advance(0.2)
    running.producer.stop()
    await clock.advance(2)

    assert running.task.done()
    assert store.calls.count("suspect") == 1
    assert store.leases.owners() == {}


async def test_a_stop_ends_the_pause_before_a_trial(start_careful, store, broker, clock):
    """
    I9. The suspect stays one for the next relay.
    """
    row_id = store.insert("orders", key=b"k")
    lane = store.rows[row_id].row.lane
    lease = await store.acquire("dies", wake_address="", lease_seconds=15)
    await store.suspect(row_id, row_id, {lane}, lease.term)
    store.leases.run_out()
    store.calls.clear()
    running = start_careful()
    await clock.advance(0.1)
    running.producer.stop()
    await clock.advance(0.1)

    assert running.task.done()
    assert "suspect" not in store.calls
    assert "acquit" not in store.calls
    assert store.leases._rows[lane].suspects == (row_id, row_id)


@pytest.mark.parametrize("method", ["suspect", "acquit"])
async def test_nothing_is_published_before_the_database_has_written_it_down(
    start_careful, store, broker, clock, method: str
):
    """
    I8. It is tried again and again, said each time, and no row is blamed for the outage.
    """

    def away() -> None:
        raise StoreUnavailable("away")

    row_id = store.insert("orders", key=b"k")
    store.before[method] = away
    running = start_careful()
    await clock.advance(30)
    assert broker.seqs() == []
    assert store.calls.count(method) > 5
    assert running.watcher.names().count("suspects_failed") == store.calls.count(method)

    del store.before[method]
    await clock.advance(6)

    assert broker.seqs() == [row_id]
    assert store.status(row_id) is Status.PRODUCED


class Beats(Watcher):
    """Notes when the main loop made progress."""

    def __init__(self, clock) -> None:
        super().__init__()
        self.clock = clock
        self.at: list[float] = []

    def cycle(self) -> None:
        """See Observer."""
        self.at.append(self.clock.now())


async def test_an_outage_at_the_end_of_care_is_no_loop_that_hangs(start_careful, store, clock):
    """
    I8. /livez and OutboxLoopStalled are for bugs: while the database is away the loop makes progress.
    """

    def away() -> None:
        raise StoreUnavailable("away")

    store.before["recovered"] = away
    watcher = Beats(clock)
    start_careful(observer=watcher)
    await clock.advance(60)
    pauses = [later - at for at, later in zip(watcher.at, watcher.at[1:], strict=False)]

    assert store.calls.count("recovered") > 5
    assert clock.now() - watcher.at[-1] < 10
    assert max(pauses) < 10


@pytest.mark.parametrize("error", [LeaseLost("taken"), ServerChanged("another server answers")])
async def test_a_term_that_is_over_publishes_nothing_of_what_it_suspects(
    start_careful, store, broker, clock, error: Exception
):
    """
    I5. The next term begins at once and publishes it.
    """
    row_id = store.insert("orders", key=b"k")
    store.fail("suspect", error)
    running = start_careful()
    while "term_over" not in running.watcher.names():
        await asyncio.sleep(0)
    assert broker.seqs() == []

    await clock.advance(20)

    assert broker.seqs() == [row_id]
    assert running.watcher.names().count("term_over") == 1
