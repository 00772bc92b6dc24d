"""
What every store says of why rows wait, and how it follows a canary: on each of them.
"""

from __future__ import annotations

import asyncio

from outbox_relay.relay.ports import CANARY_DEAD, CANARY_GONE, ReadPlan
from tests.contract.adopted import AdoptedWorld
from tests.contract.stores import ADOPTED, KINDS
from tests.contract.test_store import insert, take

WORLDS = [*KINDS, *ADOPTED]


async def test_waiting_rows_are_counted_by_topic(world):
    """
    The first rows by id, of those that are committed and pending; with the time of the oldest.
    """
    insert(world, 3, topic="orders")
    insert(world, 2, topic="users")
    await take(world)
    open_one = world.begin()
    open_one.insert("orders")

    found = {w.topic: w for w in await world.store.waiting(limit=100, by_key=False)}
    few = await world.store.waiting(limit=4, by_key=False)
    open_one.rollback()

    assert {topic: (w.key, w.rows) for topic, w in found.items()} == {
        "orders": (None, 3),
        "users": (None, 2),
    }
    assert 0 < found["orders"].oldest_us <= found["users"].oldest_us
    assert sum(w.rows for w in few) == 4


async def test_waiting_rows_are_counted_by_key(world):
    """
    As held keys are asked for; a table of python-cqrs has no column for its keys.
    """
    if isinstance(world, AdoptedWorld):
        return
    insert(world, 2, topic="orders", key=b"\x00\xff")
    insert(world, 1, topic="orders", key=b"b")
    insert(world, 1, topic="orders")
    await take(world)

    found = await world.store.waiting(limit=100, by_key=True)

    assert {(w.topic, w.key): w.rows for w in found} == {
        ("orders", b"\x00\xff"): 2,
        ("orders", b"b"): 1,
        ("orders", None): 1,
    }


async def test_a_canary_is_followed_to_its_mark(world):
    """
    It is a row like any other; how long it took is told by the database's own clock.
    """
    if isinstance(world, AdoptedWorld):
        return  # whose relay writes nothing, see config_combinations
    lease = await take(world)

    row_id = await world.store.write_canary("canary")
    before = await world.store.canary_seconds(row_id)
    rows = await world.store.read(ReadPlan(after_id=0, open_ids=frozenset(), limit=10))
    await asyncio.sleep(0)
    await world.store.mark_produced([row_id], lease.term)
    after = await world.store.canary_seconds(row_id)

    assert before is None
    assert [(row.id, row.topic, row.key, row.payload) for row in rows] == [
        (row_id, "canary", None, b"{}")
    ]
    assert after is not None
    assert 0 <= after < 60


async def test_a_canary_that_is_given_up_was_never_marked(world):
    """
    A dead letter is settled, and nobody received it: it has no time, however short.
    """
    if isinstance(world, AdoptedWorld):
        return
    lease = await take(world)
    row_id = await world.store.write_canary("canary")

    await world.store.mark_dead(row_id, "invalid_record: refused", lease.term)

    assert await world.store.canary_seconds(row_id) == CANARY_DEAD


async def test_a_canary_that_is_deleted_on_the_ack_has_no_time(world):
    """
    With a retention of 0 its row is gone: whoever follows it has a clock of their own.
    """
    if isinstance(world, AdoptedWorld):
        return
    lease = await take(world)
    row_id = await world.store.write_canary("canary")

    await world.store.delete_produced([row_id], lease.term)

    assert await world.store.canary_seconds(row_id) == CANARY_GONE
