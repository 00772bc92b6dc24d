"""
Events that the broker refuses, that cannot be read, or of which nobody can say.
"""

from __future__ import annotations

import pytest

from outbox_relay.relay.outcomes import Fault, Rejected, RejectReason, Unknown
from outbox_relay.schema import Codec, Status
from tests.unit.faults import unavailable


async def test_an_oversized_event_is_a_dead_letter_and_its_neighbours_arrive(
    start, store, broker, clock
):
    """
    I7. One record too large, among good ones of its key and of others, in one batch.
    """
    broker.max_record_bytes = 1000
    before = [store.insert("orders", key=b"k"), store.insert("orders", key=b"other")]
    large = store.insert("orders", key=b"k", payload=b"x" * 2000)
    after = [store.insert("orders", key=b"k"), store.insert("orders", key=b"other")]
    start()

    await clock.advance(2)

    assert broker.seqs() == before + after
    assert store.status(large) is Status.DEAD
    assert store.error(large).startswith("too_large: ")


async def test_a_key_goes_on_only_when_its_dead_letter_is_durable(start, store, broker, clock):
    """
    I4, I2. A crash in between must not lose the place of the dead letter.
    """
    broker.max_record_bytes = 1000
    large = store.insert("orders", key=b"k", payload=b"x" * 2000)
    store.insert("orders", key=b"k")
    store.before["mark_dead"] = unavailable
    start()
    await clock.advance(5)
    assert broker.published == []

    store.before.clear()
    await clock.advance(10)

    assert store.status(large) is Status.DEAD
    assert len(broker.seqs()) == 1


@pytest.mark.parametrize(
    ("codec", "payload", "key"),
    [
        (Codec.ZLIB, b"no zlib", b"k"),
        (Codec.ZSTD, b"x", b"k"),
        (9, b"x", b"k"),
        (Codec.TOMBSTONE, b"", None),
    ],
)
async def test_an_unreadable_row_is_a_dead_letter_alone(
    start, store, broker, clock, codec, payload, key
):
    """
    I7. Whatever is wrong with a row, the next one goes on.
    """
    transaction = store.begin()
    bad = transaction.insert("orders", key=key, payload=payload, codec=codec)
    good = transaction.insert("orders", key=b"k")
    transaction.commit()
    start()

    await clock.advance(2)

    assert store.status(bad) is Status.DEAD
    assert store.error(bad).startswith("unreadable: ")
    assert broker.seqs() == [good]


async def test_many_rejections_in_a_row_pause_the_topic(start, store, broker, clock):
    """
    I7. A lowered max.message.bytes cannot fill the dead letters.
    """
    broker.max_record_bytes = 1
    ids = [store.insert("orders", key=b"%d" % n) for n in range(100)]
    running = start()

    await clock.advance(60)

    dead = [row_id for row_id in ids if store.status(row_id) is Status.DEAD]
    assert 5 <= len(dead) <= 15
    assert "topic_paused" in running.watcher.names()


async def test_an_unknown_outcome_is_published_again_in_order(start, store, broker, clock):
    """
    I4. What follows waits until the same records are acked.
    """
    failures = [Unknown(fault=Fault.PARTITION, detail="lost")] * 3
    broker.answer = lambda *_: failures.pop() if failures else None
    ids = [store.insert("orders", key=b"k") for _ in range(5)]
    start()

    await clock.advance(30)

    assert broker.seqs() == ids
    assert failures == []


async def test_an_invalid_record_is_found_among_good_ones(start, store, broker, clock):
    """
    I7. A refusal of a batch is never repeated for ever: it is split until the record stands alone.
    """

    def refuse(topic, partition, records):
        if any(record.value == b"bad" for record in records):
            return Rejected(reason=RejectReason.INVALID_RECORD, detail="no key")
        return None

    broker.answer = refuse
    good = [store.insert("orders", key=b"%d" % n) for n in range(7)]
    bad = store.insert("orders", payload=b"bad")
    good += [store.insert("orders", key=b"%d" % n) for n in range(7)]
    start()

    await clock.advance(2)

    assert broker.seqs() == good
    assert store.error(bad) == "invalid_record: no key"
