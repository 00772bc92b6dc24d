"""
Retention, over the in-memory store, in time that stands still.
"""

from __future__ import annotations

from outbox_relay.errors import LeaseLost, StoreUnavailable
from outbox_relay.relay import purge
from outbox_relay.relay.options import RelayOptions
from outbox_relay.relay.purge import MOST_ROWS, SWEEP_ROWS, Pace, rest_seconds
from outbox_relay.schema import Status


def produced(store, count: int, *, age: float) -> list[int]:
    """Rows that were acked *age* seconds ago."""
    ids = [store.insert("orders") for _ in range(count)]
    for row_id in ids:
        store.rows[row_id].status = Status.PRODUCED
        store.rows[row_id].settled_at = store.clock.now() - age
    return ids


async def dead(start, store, broker, clock, **options):
    """A relay that has given up one row."""
    broker.max_record_bytes = 1000
    row_id = store.insert("orders", key=b"k", payload=b"x" * 2000)
    running = start(**options)
    await clock.advance(2)
    assert store.status(row_id) is Status.DEAD
    return running, row_id


async def test_nothing_is_kept_with_a_retention_of_0(start, store, broker, clock):
    """
    I2, I3. Each row is deleted once the broker has acked it, and never before.
    """
    broker.hold("orders")
    ids = [store.insert("orders", key=b"k") for _ in range(3)]
    start(retention_seconds=0.0)
    await clock.advance(2)

    assert sorted(store.rows) == ids

    broker.let_go("orders")
    await clock.advance(1)

    assert broker.seqs() == ids
    assert store.rows == {}
    assert "mark_produced" not in store.calls


async def test_a_crash_between_ack_and_delete_repeats_the_events(start, store, broker, clock):
    """
    I3, I6. Deleting is as safe as marking.
    """
    ids = [store.insert("orders", key=b"k") for _ in range(3)]
    running = start(retention_seconds=0.0)
    store.fail("delete_produced", *[StoreUnavailable("away")] * 1000)
    await clock.advance(1)
    await running.crash()
    store._failures.clear()
    assert sorted(store.rows) == ids

    start(retention_seconds=0.0)
    await clock.advance(17)

    assert broker.seqs() == ids + ids
    assert store.rows == {}


async def test_the_cursor_does_not_fall_back_when_the_table_is_emptied_by_acks(
    start, store, broker, clock
):
    """
    Else each read would pass everything that was deleted and that an old snapshot still keeps.
    """
    running = start(retention_seconds=0.0)
    for _ in range(3):
        last = store.insert("orders")
        await clock.advance(5)

    assert store.rows == {}
    assert running.producer._term.reading.safe == last

    late = store.insert("orders")
    await clock.advance(1)

    assert broker.seqs()[-1] == late


async def test_rows_from_before_are_purged_with_a_retention_of_0(start, store, clock):
    """
    The setting may have been another one.
    """
    produced(store, 5, age=1.0)
    start(retention_seconds=0.0)

    await clock.advance(2)

    assert store.rows == {}


async def test_a_produced_row_is_purged_when_it_is_old_enough(start, store, broker, clock):
    """
    I2. Its age counts from the ack; what is pending or dead has none.
    """
    broker.max_record_bytes = 1000
    poison = store.insert("orders", payload=b"x" * 2000)
    store.paused.add("users")
    waiting = store.insert("users")
    row_id = store.insert("orders")
    running = start(retention_seconds=30.0)
    await clock.advance(25)

    assert store.status(row_id) is Status.PRODUCED

    await clock.advance(70)

    assert sorted(store.rows) == [poison, waiting]
    assert ("purged", {"kind": "produced", "rows": 1}) in running.watcher.events


async def test_a_week_is_the_default_and_dead_letters_stay(start, store, broker, clock):
    """
    Nobody loses what they did not ask to lose.
    """
    young = produced(store, 3, age=6 * 86_400.0)
    produced(store, 3, age=8 * 86_400.0)
    _, row_id = await dead(start, store, broker, clock)
    store.rows[row_id].settled_at -= 1000 * 86_400.0

    await clock.advance(15)

    assert sorted(store.rows) == [*young, row_id]


async def test_each_dead_letter_that_is_purged_is_told(start, store, broker, clock):
    """
    I2. Nothing ever leaves in silence; one that was requeued meanwhile stays.
    """
    running, row_id = await dead(start, store, broker, clock, dead_letter_retention_seconds=60.0)
    await clock.advance(40)

    assert store.status(row_id) is Status.DEAD

    await clock.advance(40)
    [line] = [fields for name, fields in running.watcher.events if name == "dead_letter_purged"]

    assert store.rows == {}
    assert (line["row_id"], line["topic"], line["reason"]) == (row_id, "orders", "too_large")


async def test_a_dead_letter_requeued_in_the_middle_is_not_purged_and_not_told(
    start, store, broker, clock
):
    """
    I2. Between the look at it and the statement somebody may have sent it once more.
    """
    running, row_id = await dead(start, store, broker, clock, dead_letter_retention_seconds=20.0)
    broker.max_record_bytes = None
    store.before["purge"] = lambda: store.requeue(row_id)

    await clock.advance(40)

    assert broker.seqs() == [row_id]
    assert "dead_letter_purged" not in running.watcher.names()


async def test_an_operator_pauses_the_purge_and_nothing_else(start, store, broker, clock):
    """
    By a row of the control table. Before the table was asked nothing is deleted either.
    """
    store.paused.add("@purge")
    old = produced(store, 5, age=100.0)
    row_id = store.insert("orders")
    running = start(retention_seconds=50.0)
    await clock.advance(20)

    assert sorted(store.rows) == [*old, row_id]
    assert broker.seqs() == [row_id]
    assert running.producer._term.reading.skip_topics == frozenset()
    assert "purge_paused" in running.watcher.names()

    store.paused.clear()
    await clock.advance(2)

    assert sorted(store.rows) == [row_id]


async def test_a_catch_up_is_paused_in_the_middle(start, store, clock):
    """
    Not only when it has ended.
    """
    produced(store, 3000, age=100.0)
    store.before["purge"] = lambda: store.paused.add("@purge") if len(store.rows) < 2500 else None
    running = start(retention_seconds=50.0)
    original = store.purge

    async def slow(*arguments):
        await clock.sleep(0.08)
        return await original(*arguments)

    store.purge = slow
    await clock.advance(60)

    assert "purge_paused" in running.watcher.names()
    assert 0 < len(store.rows) < 2500


async def test_a_relay_that_stands_by_purges_nothing(start, store, clock):
    """
    I5. The active one does.
    """
    produced(store, 5, age=100.0)
    await store.acquire("another", wake_address="", lease_seconds=1000)
    start(retention_seconds=50.0)

    await clock.advance(20)

    assert len(store.rows) == 5
    assert "purge" not in store.calls


async def test_the_purge_goes_on_after_errors(start, store, broker, clock):
    """
    I8. And the relay does not mind.
    """
    produced(store, 5, age=100.0)
    store.fail("aged", StoreUnavailable("away"))
    store.fail("purge", *[StoreUnavailable("too slow")] * 3)
    running = start(retention_seconds=50.0)
    row_id = store.insert("orders")
    await clock.advance(1)

    assert broker.seqs() == [row_id]

    await clock.advance(40)

    assert sorted(store.rows) == [row_id]
    assert running.watcher.names().count("purge_failed") == 4
    assert "term_over" not in running.watcher.names()


async def test_a_purge_that_learns_of_another_term_ends_its_own(start, store, clock):
    """
    I5.
    """
    produced(store, 5, age=100.0)
    store.fail("purge", LeaseLost("another relay took the lanes"))
    running = start(retention_seconds=50.0)

    await clock.advance(2)

    assert "term_over" in running.watcher.names()


async def test_a_stop_ends_the_purge_first(start, store, broker, clock):
    """
    I9. The budget of a stop is for what is in flight.
    """
    broker.hold("orders")
    store.insert("orders")
    running = start(retention_seconds=50.0, stop_seconds=30.0)
    await clock.advance(2)
    running.producer.stop()
    produced(store, 5, age=100.0)
    asked = store.calls.count("aged")

    await clock.advance(15)

    assert store.calls.count("aged") == asked


async def test_rows_produced_late_do_not_hide_older_ones_for_ever(start, store, clock):
    """
    A topic that paused leaves rows with small ids that are young: the sweep looks behind them.
    """
    young = produced(store, SWEEP_ROWS + 100, age=0.0)
    produced(store, 300, age=5000.0)
    start(retention_seconds=4000.0)
    await clock.advance(5)

    assert len(store.rows) == len(young) + 300

    await clock.advance(20)

    assert sorted(store.rows) == young


async def test_the_sweep_goes_on_at_once_where_it_finds_something(start, store, clock, monkeypatch):
    """
    Behind rows that are young: page after page, not one in each round.
    """
    monkeypatch.setattr(purge, "SWEEP_ROWS", 100)
    young = produced(store, 100, age=0.0)
    produced(store, 550, age=5000.0)
    start(retention_seconds=4000.0)
    await clock.advance(5)

    assert len(store.rows) == 650

    await clock.advance(22)

    assert sorted(store.rows) == young


async def test_much_that_is_due_goes_in_large_steps_without_a_pause(start, store, clock):
    """
    It catches up at once, though never more than `MOST_ROWS` in one statement.
    """
    produced(store, 10_000, age=100.0)
    sizes = []
    original = store.purge

    async def counted(ids, plan, term):
        sizes.append(len(ids))
        return await original(ids, plan, term)

    store.purge = counted
    start(retention_seconds=50.0)
    await clock.advance(5)

    assert store.rows == {}
    assert max(sizes) == MOST_ROWS
    assert len(sizes) <= 14


def test_statements_shrink_when_they_are_slow_or_fail():
    """
    A statement that holds its locks for long, or never ends in time, is followed by a smaller one.
    """
    pace = Pace()
    for _ in range(10):
        pace.deleted(pace.rows, 0.01)
    assert pace.rows == MOST_ROWS

    pace.deleted(pace.rows, 0.5)
    assert pace.rows == MOST_ROWS // 2

    for _ in range(20):
        pace.failed()
    assert pace.rows == 1


def test_the_purge_takes_a_share_of_the_time_and_less_of_it_while_the_relay_is_busy():
    """
    It neither starves the relay nor stands still.
    """
    assert rest_seconds(0.1, busy=False) == 0.1
    assert rest_seconds(0.1, busy=True) == 0.4
    assert rest_seconds(0.0, busy=False) > 0


def test_a_retention_must_be_a_time_or_0():
    """
    0 says delete at once for produced rows, and never for dead letters.
    """
    options = RelayOptions(retention_seconds=-1.0, dead_letter_retention_seconds=1e12)

    assert RelayOptions(retention_seconds=0.0).problems() == []
    assert options.problems() == [
        "relay.retention_seconds = -1.0 must be from 0 to 3162240000",
        "relay.dead_letter_retention_seconds = 1000000000000.0 must be from 0 to 3162240000",
    ]
