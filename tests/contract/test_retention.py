"""
What every store promises about retention: rows that are deleted on their ack, and rows that are purged.
"""

from __future__ import annotations

import pytest

from outbox_relay.errors import LeaseLost, StoreUnavailable
from outbox_relay.relay.ports import PurgePlan, ReadPlan
from outbox_relay.schema import Status
from tests.contract.stores import KINDS, World

DAY = 86_400.0

WORLDS = KINDS


def insert(world: World, count: int = 1) -> list[int]:
    writer = world.begin()
    ids = [writer.insert("t") for _ in range(count)]
    writer.commit()
    return ids


async def take(world: World):
    lease = await world.store.acquire("me", wake_address="", lease_seconds=15)
    assert lease is not None
    return lease


def old(status: Status = Status.PRODUCED, **changes) -> PurgePlan:
    options = dict(status=status, older_than_seconds=DAY, after_id=0, limit=100)
    return PurgePlan(**(options | changes))


async def pending(world: World) -> list[int]:
    rows = await world.store.read(ReadPlan(after_id=0, open_ids=frozenset(), limit=100))
    return [row.id for row in rows]


async def test_a_row_deleted_on_its_ack_is_gone_and_read_no_more(world):
    """
    I3. Repeating it does no harm: after an error nobody knows whether it committed.
    """
    ids = insert(world, 3)
    lease = await take(world)

    await world.store.delete_produced(ids[:2], lease.term)
    await world.store.delete_produced(ids[:2], lease.term)

    assert world.ids() == [ids[2]]
    assert await pending(world) == [ids[2]]


async def test_only_pending_rows_are_deleted_on_their_ack(world):
    """
    I2, I5. A dead letter stays, whatever a statement that came late names.
    """
    ids = insert(world, 3)
    lease = await take(world)
    await world.store.mark_dead(ids[0], "unreadable: x", lease.term)
    await world.store.mark_produced([ids[1]], lease.term)

    await world.store.delete_produced(ids, lease.term)

    assert world.ids() == ids[:2]
    assert world.status(ids[0]) is Status.DEAD


async def test_a_stale_term_deletes_nothing(world):
    """
    I5. Neither on an ack nor because of age.
    """
    ids = insert(world, 2)
    stale = await take(world)
    await world.store.mark_produced([ids[1]], stale.term)
    world.age(ids[1], seconds=2 * DAY)
    world.end_lease()
    assert await world.another().acquire("other", wake_address="", lease_seconds=15) is not None

    with pytest.raises(LeaseLost):
        await world.store.delete_produced(ids, stale.term)
    with pytest.raises(LeaseLost):
        await world.store.purge(ids, old(), stale.term)

    assert world.ids() == ids


async def test_a_lease_that_ran_out_deletes_nothing_until_it_is_renewed(world):
    """
    I5. As with marks.
    """
    [row_id] = insert(world)
    lease = await take(world)
    world.end_lease()

    with pytest.raises(StoreUnavailable):
        await world.store.delete_produced([row_id], lease.term)
    assert world.ids() == [row_id]

    await world.store.renew(lease, noted_id=0, lease_seconds=15)
    await world.store.delete_produced([row_id], lease.term)

    assert world.ids() == []


async def test_aged_rows_are_those_of_the_status_with_whether_they_are_due(world):
    """
    By id, above the cursor, up to the limit, by the database's clock.
    """
    ids = insert(world, 6)
    lease = await take(world)
    await world.store.mark_produced(ids[:4], lease.term)
    await world.store.mark_dead(ids[4], "unreadable: x", lease.term)
    world.age(ids[1], seconds=2 * DAY)
    world.age(ids[3], seconds=2 * DAY)

    found = await world.store.aged(old())
    page = await world.store.aged(old(after_id=ids[0], limit=2))
    [dead] = await world.store.aged(old(Status.DEAD, older_than_seconds=0.0))

    assert [(row.id, row.due) for row in found] == [
        (ids[0], False),
        (ids[1], True),
        (ids[2], False),
        (ids[3], True),
    ]
    assert [row.id for row in page] == ids[1:3]
    assert (dead.id, dead.due, dead.topic, dead.last_error) == (ids[4], True, "t", "unreadable: x")
    assert len(dead.event_id) == 16


async def test_a_purge_deletes_what_is_due_and_nothing_else(world):
    """
    I2. Whatever ids it is given: pending rows, dead letters and younger rows stay.
    """
    ids = insert(world, 5)
    lease = await take(world)
    await world.store.mark_produced(ids[:3], lease.term)
    await world.store.mark_dead(ids[3], "unreadable: x", lease.term)
    for row_id in (ids[0], ids[2], ids[3], ids[4]):
        world.age(row_id, seconds=2 * DAY)

    count = await world.store.purge(ids, old(), lease.term)
    again = await world.store.purge(ids, old(), lease.term)

    assert (count, again) == (2, 0)
    assert world.ids() == [ids[1], ids[3], ids[4]]
    assert await pending(world) == [ids[4]]


async def test_dead_letters_age_from_when_they_were_given_up(world):
    """
    A row that is produced is none.
    """
    ids = insert(world, 3)
    lease = await take(world)
    await world.store.mark_dead(ids[0], "unreadable: x", lease.term)
    await world.store.mark_dead(ids[1], "unreadable: x", lease.term)
    await world.store.mark_produced([ids[2]], lease.term)
    world.age(ids[1], seconds=2 * DAY)
    world.age(ids[2], seconds=2 * DAY)

    count = await world.store.purge(ids, old(Status.DEAD), lease.term)

    assert count == 1
    assert world.ids() == [ids[0], ids[2]]


async def test_the_word_that_pauses_the_purge_is_a_row_of_the_control_table(world):
    """
    No topic can have its name.
    """
    world.pause("@purge")

    assert await world.store.paused_topics() == {"@purge"}
