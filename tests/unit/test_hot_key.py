"""
I7. A key with most of the events holds up only itself.
"""

from __future__ import annotations

ROUND_TRIP_SECONDS = 0.1


async def test_a_hot_key_holds_up_no_other(start, store, broker, clock):
    """
    Five thousand events of one key wait for their partition, which takes a few at a time; events of other
    keys, written after them, do not. (Once more than `in_flight_rows` wait for one partition, there is no
    room to read others.)
    """
    publish = broker.publish

    async def slow(topic, partition, records):
        await clock.sleep(ROUND_TRIP_SECONDS)
        return await publish(topic, partition, records)

    broker.publish = slow
    start(batch_bytes=20_000)
    await clock.advance(1)
    hot = [store.insert("wide", key=b"hot") for _ in range(5_000)]
    others = [store.insert("users", key=b"%d" % n) for n in range(50)]
    await clock.advance(1)

    arrived = set(broker.seqs())
    assert set(others) <= arrived
    assert len(arrived & set(hot)) < len(hot) / 2

    await clock.advance(60)

    assert broker.seqs("wide") == hot
