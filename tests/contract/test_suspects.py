"""
What is kept beside the leases of rows that may kill a relay, on each store.
"""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from outbox_relay.errors import LeaseLost
from outbox_relay.relay.lease import Lease, Past, Suspects
from tests.contract.stores import KINDS, SqlWorld, World

WORLDS = KINDS


@pytest.fixture
async def world(world):
    """As a relay finds it, which looks at the tables first: they may be too old to keep suspects."""
    await world.store.check_schema()
    return world


async def take(world: World, *, slots: int = 1) -> Lease:
    lease = await world.store.acquire("me", wake_address="", lease_seconds=15, slots=slots)
    assert lease is not None
    return lease


def suspects_of(lease: Lease) -> tuple[Suspects, ...]:
    assert lease.past is not None
    return lease.past.suspects


async def test_who_comes_after_a_death_learns_what_was_looked_at(world):
    """
    And how often in a row it was the same.
    """
    for deaths in range(3):
        lease = await take(world)
        assert lease.past == Past(
            crash_count=deaths, suspects=(Suspects(0, 7, 9, deaths),) if deaths else ()
        )
        assert await world.store.past(lease.term) == lease.past
        await world.store.suspect(7, 9, {0}, lease.term)
        world.end_lease()


async def test_a_row_that_did_no_harm_is_not_told_of(world):
    """
    A death after that is not its.
    """
    first = await take(world)
    await world.store.suspect(7, 7, {0}, first.term)
    await world.store.acquit({0}, first.term)
    world.end_lease()

    assert suspects_of(await take(world)) == ()


async def test_only_the_term_that_looked_at_it_counts(world):
    """
    A death before the next trial is somebody else's doing; what was counted stays.
    """
    first = await take(world)
    await world.store.suspect(7, 7, {0}, first.term)
    world.end_lease()
    await take(world)
    world.end_lease()

    assert suspects_of(await take(world)) == (Suspects(0, 7, 7, 1),)


async def test_another_row_begins_anew(world):
    """
    Three deaths of three rows are nobody's fault.
    """
    for row_id in (7, 8):
        lease = await take(world)
        await world.store.suspect(row_id, row_id, {0}, lease.term)
        world.end_lease()

    assert suspects_of(await take(world)) == (Suspects(0, 8, 8, 1),)


async def test_suspicion_goes_on_while_others_of_the_lane_are_acquitted(world):
    """
    Those before it are looked at again in each term.
    """
    first = await take(world)
    await world.store.suspect(7, 7, {0}, first.term)
    world.end_lease()
    second = await take(world)
    [suspects] = suspects_of(second)
    await world.store.suspect(6, 6, {0}, second.term)
    await world.store.acquit({0}, second.term, still=suspects)
    world.end_lease()

    assert suspects_of(await take(world)) == (Suspects(0, 7, 7, 1),)


async def test_a_clean_end_clears_everybody(world):
    """
    Whoever hands the lanes back did not die.
    """
    first = await take(world)
    await world.store.suspect(7, 7, {0}, first.term)
    world.end_lease()
    second = await take(world)
    await world.store.suspect(7, 7, {0}, second.term)
    await world.store.release(second)

    assert (await take(world)).past == Past(crash_count=0)


async def test_recovered_lanes_begin_anew(world):
    """
    The next death is the first.
    """
    for _ in range(2):
        lease = await take(world)
        await world.store.suspect(7, 7, {0}, lease.term)
        world.end_lease()
    lease = await take(world)
    await world.store.recovered(lease.term)
    assert await world.store.past(lease.term) == Past(crash_count=0)
    world.end_lease()

    assert (await take(world)).past == Past(crash_count=1)


async def test_a_lost_lease_writes_nothing(world):
    """
    I5. A relay that wakes late must not clear, nor blame, what another looks at.
    """
    stale = await take(world)
    world.end_lease()
    current = await take(world)
    await world.store.suspect(7, 7, {0}, current.term)

    with pytest.raises(LeaseLost):
        await world.store.suspect(8, 8, {0}, stale.term)
    await world.store.acquit({0}, stale.term)
    await world.store.recovered(stale.term)
    world.end_lease()

    assert (await take(world)).past == Past(crash_count=2, suspects=(Suspects(0, 7, 7, 1),))


@pytest.mark.parametrize("world", KINDS[:-1], indirect=True)
async def test_each_lane_keeps_its_own(world):
    """
    Relays that share the lanes look at different rows. On SQLite there is one lane.
    """
    lease = await take(world, slots=2)
    await world.store.suspect(7, 7, {0, 5}, lease.term)
    await world.store.suspect(9, 9, {3}, lease.term)
    await world.store.acquit({5}, lease.term)
    world.end_lease()
    after = suspects_of(await take(world, slots=2))

    assert sorted(after, key=lambda some: some.lane) == [Suspects(0, 7, 7, 1), Suspects(3, 9, 9, 1)]


async def test_ids_of_another_server_mean_nothing(world):
    """
    I1. A promoted replica gives ids out again.
    """
    lease = await take(world)
    await world.store.suspect(7, 7, {0}, lease.term)
    world.end_lease()
    if isinstance(world, SqlWorld):
        with world.engine.begin() as connection:
            connection.execute(sa.text("UPDATE outbox_lease SET server = 'another:1'"))
    else:
        world.change_server()

    assert suspects_of(await take(world)) == ()
