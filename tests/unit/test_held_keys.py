"""
`on_dead_letter = "hold_key"`: later rows of a dead letter's key wait for it, and nobody else does.
"""

from __future__ import annotations

from random import Random

import pytest

from outbox_relay.errors import StoreUnavailable
from outbox_relay.relay import held
from outbox_relay.relay.outcomes import Fault, Unknown
from outbox_relay.schema import Status
from outbox_relay.testing import InMemoryStore
from outbox_relay.testing.store import Transaction

LARGE = b"x" * 5000


def oversized(store: InMemoryStore, topic: str = "orders", key: bytes | None = b"k") -> int:
    return store.insert(topic, key=key, payload=LARGE)


@pytest.fixture(autouse=True)
def limit(broker):
    broker.max_record_bytes = 2000


def headers(broker, row_id: int) -> dict[str, bytes]:
    """The headers of the record of a row."""
    [record] = [
        p.record for p in broker.published if dict(p.record.headers)["outbox-seq"] == b"%d" % row_id
    ]
    return dict(record.headers)


async def test_later_rows_of_the_key_wait_and_nobody_else(start, store, broker, clock):
    """
    I4, I7. The held key's rows stay pending: those of the same batch, and those that come later.
    """
    before = store.insert("orders", key=b"k")
    dead = oversized(store)
    same_batch = store.insert("orders", key=b"k")
    other = store.insert("orders", key=b"other")
    elsewhere = store.insert("users", key=b"k")
    unkeyed = store.insert("orders")
    start(on_dead_letter="hold_key")
    await clock.advance(5)
    later = store.insert("orders", key=b"k")
    await clock.advance(30)

    assert store.status(dead) is Status.DEAD
    assert store.pending() == [same_batch, later]
    assert sorted(broker.seqs()) == [before, other, elsewhere, unkeyed]


async def test_a_requeued_row_comes_in_its_place(start, store, broker, clock):
    """
    I4. First the requeued row, then what waited for it, in order; it says that it was requeued.
    """
    dead = oversized(store)
    waiting = [store.insert("orders", key=b"k") for _ in range(5)]
    start(on_dead_letter="hold_key")
    await clock.advance(10)
    assert broker.seqs() == []

    broker.max_record_bytes = None
    store.requeue(dead)
    await clock.advance(5)

    assert broker.seqs() == [dead, *waiting]
    assert store.pending() == []
    assert "requeued-at" in headers(broker, dead)
    assert "requeued-at" not in headers(broker, waiting[0])


async def test_with_skip_a_requeued_row_comes_late_and_says_so(start, store, broker, clock):
    """
    I4, its second exception.
    """
    dead = oversized(store)
    later = store.insert("orders", key=b"k")
    start()
    await clock.advance(10)

    broker.max_record_bytes = None
    store.requeue(dead)
    await clock.advance(5)

    assert broker.seqs() == [later, dead]
    assert headers(broker, dead)["requeued-at"].endswith(b"Z")


async def test_a_requeued_row_that_dies_again_holds_its_key_again(start, store, broker, clock):
    """
    Nothing of the key slips through in between.
    """
    dead = oversized(store)
    waiting = store.insert("orders", key=b"k")
    start(on_dead_letter="hold_key")
    await clock.advance(10)
    store.requeue(dead)
    await clock.advance(10)

    assert store.status(dead) is Status.DEAD
    assert store.pending() == [waiting]
    assert broker.seqs() == []


async def test_a_discarded_dead_letter_holds_nobody(start, store, broker, clock):
    """
    What waited for it goes on in order.
    """
    dead = oversized(store)
    waiting = [store.insert("orders", key=b"k") for _ in range(3)]
    start(on_dead_letter="hold_key")
    await clock.advance(10)

    store.discard(dead)
    await clock.advance(5)

    assert broker.seqs() == waiting


async def test_unkeyed_and_unreadable_dead_letters(start, store, broker, clock):
    """
    Without a key nobody is held. A row that cannot become a record holds its key like any other.
    """
    oversized(store, key=None)
    transaction = store.begin()
    transaction.insert("orders", key=b"k", codec=99)
    transaction.commit()
    waiting = store.insert("orders", key=b"k")
    free = store.insert("orders")
    start(on_dead_letter="hold_key")
    await clock.advance(10)

    assert store.pending() == [waiting]
    assert broker.seqs() == [free]


async def test_a_new_term_knows_what_is_held_before_it_reads(start, store, broker, clock):
    """
    I4 across restarts, also while the database does not say yet which keys are held.
    """
    dead = oversized(store)
    first = start(on_dead_letter="hold_key")
    await clock.advance(5)
    await first.stop()
    waiting = store.insert("orders", key=b"k")
    store.fail("dead_keys", *[StoreUnavailable("away")] * 3)
    start(on_dead_letter="hold_key")
    await clock.advance(10)

    assert store.pending() == [waiting]
    assert broker.seqs() == []

    broker.max_record_bytes = None
    store.requeue(dead)
    await clock.advance(5)

    assert broker.seqs() == [dead, waiting]


async def test_an_answer_from_before_a_dead_letter_does_not_free_its_key(
    start, store, broker, clock
):
    """
    The store was asked before the row died and answers after: the key is held all the same.
    """
    start(on_dead_letter="hold_key")
    await clock.advance(5)
    dead_keys = store.dead_keys

    async def slow(*, limit):
        answer = await dead_keys(limit=limit)
        await clock.sleep(5)
        return answer

    store.dead_keys = slow
    await clock.advance(1.2)
    oversized(store)
    await clock.advance(1)
    waiting = store.insert("orders", key=b"k")
    await clock.advance(20)

    assert broker.seqs() == []
    assert store.pending() == [waiting]


async def test_several_dead_letters_of_a_key(start, store, broker, clock):
    """
    Left over from `skip`: rows up to the next dead letter go on, those behind it wait.
    """
    first, between, second = oversized(store), store.insert("orders", key=b"k"), oversized(store)
    store.rows[first].status = store.rows[second].status = Status.DEAD
    last = store.insert("orders", key=b"k")
    start(on_dead_letter="hold_key")
    await clock.advance(10)
    assert broker.seqs() == []

    broker.max_record_bytes = None
    store.requeue(first)
    await clock.advance(5)
    assert broker.seqs() == [first, between]

    store.requeue(second)
    await clock.advance(5)

    assert broker.seqs() == [first, between, second, last]


async def test_more_dead_letters_than_are_looked_at(start, store, broker, clock, monkeypatch):
    """
    I10, I4. Bounded: behind the last one looked at, whatever has a key waits.
    """
    monkeypatch.setattr(held, "MOST_DEAD_LETTERS", 2)
    dead = [oversized(store, key=b"%d" % n) for n in range(3)]
    for row_id in dead:
        store.rows[row_id].status = Status.DEAD
    waiting = store.insert("orders", key=b"innocent")
    free = store.insert("orders")
    running = start(on_dead_letter="hold_key")
    await clock.advance(10)

    assert broker.seqs() == [free]
    assert "dead_letters_capped" in running.watcher.names()

    store.discard(dead[0])
    await clock.advance(5)

    assert broker.seqs() == [free, waiting]


async def test_what_was_queued_before_too_many_dead_letters_waits_with_its_key(
    start, store, broker, clock, monkeypatch
):
    """
    I4. A batch is under way when there are more dead letters than are looked at. It is refused, its
    second half is left pending, and so are later rows of its keys that were queued behind it.
    """
    monkeypatch.setattr(held, "MOST_DEAD_LETTERS", 2)
    for key in (b"a", b"b"):
        store.rows[oversized(store, key=key)].status = Status.DEAD
    broker.hold("orders")
    good = store.insert("orders", key=b"good")
    refused = oversized(store)
    queued = store.insert("orders", key=b"k", payload=b"x" * 1000)
    running = start(on_dead_letter="hold_key", batch_bytes=6000)
    await clock.advance(1)
    third = oversized(store, "users")
    await clock.advance(3)
    assert store.status(third) is Status.DEAD
    assert "dead_letters_capped" in running.watcher.names()

    broker.let_go("orders")
    await clock.advance(5)
    assert broker.seqs() == [good]
    assert store.pending() == [refused, queued]

    store.discard(third)
    await clock.advance(5)
    assert broker.seqs() == [good]
    assert store.status(refused) is Status.DEAD
    assert store.pending() == [queued]


async def test_rows_that_wait_for_a_dead_letter_take_no_room(start, store, broker, clock):
    """
    I10, I7. More of them than may be in flight do not keep others from going on.
    """
    oversized(store)
    for _ in range(50):
        store.insert("orders", key=b"k")
    start(on_dead_letter="hold_key", in_flight_rows=10, chunk_rows=5)
    await clock.advance(10)
    other = store.insert("orders", key=b"other")
    await clock.advance(10)

    assert broker.seqs() == [other]
    assert len(store.pending()) == 50


@pytest.mark.parametrize("seed", range(2))
async def test_the_order_of_each_key_holds_whatever_happens(start, store, broker, clock, seed):
    """
    I4. Transactions of all lengths, dead letters, requeues, discards, batches without an answer and
    restarts: the first occurrences of each key are in insert order, and none is lost.
    """
    rng = Random(seed)
    discarded: set[int] = set()

    def answer(topic, partition, records):
        return Unknown(fault=Fault.PARTITION, detail="none") if rng.random() < 0.05 else None

    broker.answer = answer
    options = dict(on_dead_letter="hold_key", chunk_rows=8, in_flight_rows=20)
    running = start(**options)
    open_transactions: dict[bytes, Transaction] = {}
    for _ in range(250):
        key = b"%d" % rng.randrange(12)
        if key in open_transactions:
            open_transactions.pop(key).commit()
        transaction = store.begin()
        for _ in range(rng.randrange(1, 4)):
            payload = LARGE if rng.random() < 0.05 else b"{}"
            transaction.insert("wide", key=key, payload=payload)
        if rng.random() < 0.2:
            open_transactions[key] = transaction
        else:
            transaction.commit()
        dead = [row_id for row_id in store.rows if store.status(row_id) is Status.DEAD]
        if dead and rng.random() < 0.2:
            row_id = rng.choice(dead)
            if rng.random() < 0.2:
                discarded.add(row_id)
                store.discard(row_id)
            else:
                store.requeue(row_id)
        broker.max_record_bytes = None if rng.random() < 0.3 else 2000
        if rng.random() < 0.01:
            await running.stop()
            running = start(**options)
        await clock.advance(rng.choice([0.0, 0.01, 0.3, 2.0]))
    for transaction in open_transactions.values():
        transaction.commit()
    broker.answer = broker.max_record_bytes = None
    for row_id in list(store.rows):
        store.requeue(row_id)
    await clock.advance(300)

    first = list(dict.fromkeys(broker.seqs()))
    of_key = {
        key: [i for i in first if (row := store.rows.get(i)) and row.row.key == key]
        for key in {stored.row.key for stored in store.rows.values()}
    }
    assert discarded
    assert sorted(first) == sorted(store.rows)
    assert all(ids == sorted(ids) for ids in of_key.values())
