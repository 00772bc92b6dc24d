"""
What every store with lanes promises to relays that share them.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from outbox_relay.errors import LeaseLost
from outbox_relay.relay.lease import ALL_LANES, Lease
from outbox_relay.relay.ports import ReadPlan
from outbox_relay.schema import Status
from tests.contract.stores import SqlWorld, World, open_world

WORLDS = ["memory", "mariadb", "mysql", "postgresql"]


@pytest.fixture
async def one_lane(sqlite_database):
    async with open_world("sqlite", sqlite_database) as opened:
        yield opened


async def join(store, *, owner: str = "me", slots: int = 4) -> Lease | None:
    return await store.acquire(owner, wake_address="", lease_seconds=15, slots=slots)


def with_lanes(lease: Lease, lanes: frozenset[int]) -> Lease:
    return replace(lease, term=replace(lease.term, lanes=lanes))


async def two(world: World):
    """Two active relays with half of the lanes each."""
    first, other = await join(world.store), world.another()
    second = await join(other, owner="other")
    assert first is not None
    assert second is not None
    assert second.lanes == frozenset()
    half = frozenset(range(32))
    await world.store.give(first, half)
    taken = await other.take(second, half, lease_seconds=15)
    assert taken == half
    return with_lanes(first, ALL_LANES - half), other, with_lanes(second, half)


def insert_in_lanes(world: World, count: int = 200) -> dict[int, int]:
    """Rows of many keys; their lanes by id."""
    writer = world.begin()
    ids = [writer.insert("t", key=b"key %d" % n) for n in range(count)]
    writer.commit()
    if not isinstance(world, SqlWorld):
        return {row_id: world.store.rows[row_id].row.lane for row_id in ids}
    outbox = world.tables.outbox
    with world.engine.connect() as connection:
        rows = connection.execute(outbox.select()).all()
    return {row.id: row.lane for row in rows}


async def test_places_are_limited_and_the_first_has_every_lane(world):
    """
    One relay alone has all; with two places a third stands by.
    """
    first = await join(world.store, slots=2)
    second = await join(world.another(), slots=2)
    third = await join(world.another(), slots=2)

    assert first is not None
    assert first.lanes == ALL_LANES
    assert second is not None
    assert second.lanes == frozenset()
    assert third is None


async def test_a_look_tells_how_many_are_active_and_what_is_free(world):
    """
    Handed back or run out: that is not the same after an outage.
    """
    first, other, second = await two(world)
    some = frozenset({40, 41})
    await world.store.give(first, some)

    sharing = await other.look(second)

    assert (sharing.members, sharing.rank) == (2, 1)
    assert sharing.handed_back == some
    assert sharing.run_out == frozenset()
    assert sharing.own == second.lanes

    world.end_lease()
    await other.renew(second, noted_id=0, lease_seconds=15)
    sharing = await other.look(second)

    assert (sharing.members, sharing.rank) == (1, 0)
    assert sharing.handed_back == some
    assert sharing.run_out == first.lanes - some


async def test_only_free_lanes_can_be_taken(world):
    """
    I5. Whoever is second gets nothing.
    """
    first, other, second = await two(world)

    assert await other.take(second, first.lanes, lease_seconds=15) == frozenset()

    await world.store.give(first, frozenset({50}))

    assert await other.take(second, frozenset({50, 51}), lease_seconds=15) == {50}


async def test_a_read_of_some_lanes_returns_their_rows_with_their_lane(world):
    """
    Dirty reads likewise.
    """
    lanes = insert_in_lanes(world)
    first, other, second = await two(world)
    plan = ReadPlan(after_id=0, open_ids=frozenset(), limit=1000)

    low = await other.read(replace(plan, lanes=second.lanes))
    high = await world.store.read(replace(plan, lanes=first.lanes))
    dirty = await other.uncommitted_ids(replace(plan, lanes=second.lanes))

    assert {row.id: row.lane for row in low + high} == lanes
    assert {row.lane for row in low} == set(lanes.values()) & second.lanes
    if world.dirty_reads:
        assert sorted(dirty) == [row.id for row in low]


async def test_each_relay_marks_in_its_own_lanes(world):
    """
    I3. Beside one another: produced, deleted or dead.
    """
    lanes = insert_in_lanes(world)
    first, other, second = await two(world)
    low = [row_id for row_id, lane in lanes.items() if lane < 32]
    high = [row_id for row_id, lane in lanes.items() if lane >= 32]

    await other.mark_produced(low[1:], second.term)
    await other.mark_dead(low[0], "unreadable: x", second.term)
    await world.store.delete_produced(high, first.term)

    assert world.ids() == low
    assert world.statuses(low[1:]) == {Status.PRODUCED}
    assert world.status(low[0]) is Status.DEAD


@pytest.mark.parametrize("how", ["mark_produced", "delete_produced", "mark_dead"])
async def test_a_term_that_lost_one_lane_marks_nothing(world, how):
    """
    I5. The fence is all lanes of the term, and says which of them is gone.
    """
    lanes = insert_in_lanes(world)
    first, other, second = await two(world)
    await world.store.give(first, frozenset({60}))
    assert await other.take(second, frozenset({60}), lease_seconds=15) == {60}
    ids = [row_id for row_id, lane in lanes.items() if lane in first.lanes]

    arguments = (ids[0], "unreadable: x") if how == "mark_dead" else (ids,)
    with pytest.raises(LeaseLost) as lost:
        await getattr(world.store, how)(*arguments, first.term)

    assert lost.value.lanes == {60}
    assert world.statuses(ids) == {Status.PENDING}

    rest = with_lanes(first, first.lanes - {60})
    ids = [row_id for row_id in ids if lanes[row_id] != 60]
    await world.store.mark_produced(ids, rest.term)

    assert world.statuses(ids) == {Status.PRODUCED}


async def test_the_owner_of_all_lanes_that_lost_one_marks_nothing(world):
    """
    I5. Also though it never named a lane.
    """
    lanes = insert_in_lanes(world)
    first = await join(world.store)
    other = world.another()
    second = await join(other)
    assert first is not None
    assert second is not None
    await world.store.give(first, frozenset({3}))
    await other.take(second, frozenset({3}), lease_seconds=15)

    with pytest.raises(LeaseLost) as lost:
        await world.store.mark_produced(list(lanes), first.term)
    with pytest.raises(LeaseLost):
        await world.store.renew(first, noted_id=0, lease_seconds=15)
    with pytest.raises(LeaseLost):
        await world.store.look(first)

    assert lost.value.lanes == {3}
    assert world.statuses(lanes) == {Status.PENDING}


async def test_a_place_that_another_took_ends_the_lease(world):
    """
    Though the lanes are still there: more relays than places would be active.
    """
    first = await join(world.store, slots=1)
    assert first is not None
    if isinstance(world, SqlWorld):
        lease = world.tables.lease
        with world.engine.begin() as connection:
            connection.execute(lease.update().where(lease.c.lane == 64).values(nonce="another"))
    else:
        world.store.leases._rows[64].nonce = "another"

    with pytest.raises(LeaseLost):
        await world.store.renew(first, noted_id=0, lease_seconds=15)


async def test_a_release_frees_lanes_and_place_at_once(world):
    """
    I9. What others hold stays theirs.
    """
    first, other, second = await two(world)
    await world.store.release(first)

    sharing = await other.look(second)
    third = await join(world.another(), slots=2)

    assert (sharing.members, sharing.handed_back) == (1, first.lanes)
    assert third is not None
    assert third.lanes == first.lanes


async def test_tables_of_version_1_have_one_active_relay(world):
    """
    A rolling deploy: no slot is there yet, whatever the settings say.
    """
    if not isinstance(world, SqlWorld):
        return
    lease = world.tables.lease
    with world.engine.begin() as connection:
        connection.execute(lease.delete().where(lease.c.lane >= 64))
    first = await join(world.store)
    assert first is not None
    ids = list(insert_in_lanes(world, 3))
    await world.store.mark_produced(ids, first.term)
    await world.store.renew(first, noted_id=0, lease_seconds=15)

    assert (first.lanes, first.shared) == (ALL_LANES, False)
    assert world.status(ids[0]) is Status.PRODUCED
    assert await join(world.another()) is None


async def test_a_relay_of_version_1_and_a_newer_one_exclude_each_other(world):
    """
    It takes every row that is free, slots too, and only when no row is held.
    """
    if not isinstance(world, SqlWorld):
        return
    lease = world.tables.lease
    first = await join(world.store)
    assert first is not None
    with world.engine.begin() as connection:
        held = connection.execute(lease.select().where(lease.c.nonce != "")).all()
        taken = {"nonce": "version 1", "owner": "old", "expires_at": held[0].expires_at}
        connection.execute(lease.update().values(taken))

    assert len(held) == 65
    assert await join(world.another()) is None


async def test_one_lane_has_one_active_relay(one_lane):
    """
    SQLite: whoever holds the lane reports all of them.
    """
    first = await join(one_lane.store)
    assert first is not None
    writer = one_lane.begin()
    row_id = writer.insert("t", key=b"k")
    writer.commit()
    await one_lane.store.renew(first, noted_id=0, lease_seconds=15)
    await one_lane.store.mark_produced([row_id], first.term)

    assert (first.lanes, first.shared) == (ALL_LANES, False)
    assert one_lane.status(row_id) is Status.PRODUCED
    assert await join(one_lane.another()) is None

    await one_lane.store.release(first)

    assert await join(one_lane.another()) is not None
