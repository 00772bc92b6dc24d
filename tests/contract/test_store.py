"""
What every store promises to the relay, on each of them: in memory, MariaDB, MySQL, PostgreSQL, SQLite,
and on tables of python-cqrs.
"""

from __future__ import annotations

import pytest

from outbox_relay.errors import LeaseLost, SchemaMismatch, ServerChanged, StoreUnavailable
from outbox_relay.relay.ports import ReadPlan
from outbox_relay.schema import SCHEMA_VERSION, Status
from tests.contract.adopted import AdoptedWorld
from tests.contract.stores import ADOPTED, KINDS, SqlWorld, World

WORLDS = [*KINDS, *ADOPTED]


def everything(**changes) -> ReadPlan:
    options = dict(after_id=0, open_ids=frozenset(), limit=100)
    return ReadPlan(**(options | changes))


def insert(world: World, count: int = 1, *, topic: str = "t", **columns) -> list[int]:
    writer = world.begin()
    ids = [writer.insert(topic, **columns) for _ in range(count)]
    writer.commit()
    return ids


async def take(world: World):
    lease = await world.store.acquire("me", wake_address="", lease_seconds=15)
    assert lease is not None
    return lease


async def test_a_row_comes_back_as_it_was_written(world):
    """
    Bytes are bytes, text is text, and the instant is the database's.
    """
    if isinstance(world, AdoptedWorld):
        return  # its rows have neither key nor content type
    [row_id] = insert(world, topic="orders", key=b"\x00\xffk", payload=b'{"a":"\xc3\xa4"}')
    await take(world)

    [row] = await world.store.read(everything())

    assert (row.id, row.topic, row.key) == (row_id, "orders", b"\x00\xffk")
    assert (row.payload, row.payload_bytes, row.codec) == (b'{"a":"\xc3\xa4"}', 10, 0)
    assert (row.event_name, row.content_type, row.headers) == ("event", "application/json", None)
    assert len(row.event_id) == 16
    assert row.created_us > 0
    assert row.requeued_us is None


async def test_rows_come_oldest_first_above_the_cursor_up_to_the_limit(world):
    """
    One page of pending rows.
    """
    ids = insert(world, 5)
    await take(world)

    rows = await world.store.read(everything(after_id=ids[0], limit=2))

    assert [row.id for row in rows] == ids[1:3]


async def test_open_ids_come_with_the_page_in_one_order(world):
    """
    Inversion (a): below the cursor and above it, one snapshot.
    """
    ids = insert(world, 5)
    await take(world)

    rows = await world.store.read(
        everything(after_id=ids[3], upto_id=ids[4], open_ids=frozenset({ids[1], ids[0] + 10**6}))
    )

    assert [row.id for row in rows] == [ids[1], ids[4]]


async def test_ids_in_flight_and_skipped_topics_are_left_out(world):
    """
    They neither come back nor count.
    """
    ids = insert(world, 5)
    insert(world, topic="paused")
    await take(world)

    rows = await world.store.read(
        everything(skip_ids=((ids[0], ids[1]), (ids[3], ids[3])), skip_topics=frozenset({"paused"}))
    )

    assert [row.id for row in rows] == [ids[2], ids[4]]


async def test_a_topic_is_left_out_by_its_exact_name(world):
    """
    I7. MySQL takes spaces at an end for nothing: one row of the topic "orders " must not hold up "orders".
    """
    [row_id] = insert(world, topic="orders")
    insert(world, topic="orders ")
    await take(world)

    rows = await world.store.read(everything(skip_topics=frozenset({"orders ", "ORDERS"})))

    assert [(row.id, row.topic) for row in rows] == [(row_id, "orders")]


async def test_uncommitted_rows_are_seen_only_by_the_dirty_read(world):
    """
    I1. A read never returns what is not committed.
    """
    if not world.dirty_reads:
        noted = await world.store.max_id()
        assert await world.store.uncommitted_ids(everything(upto_id=noted)) == []
        return
    await take(world)
    writer = world.begin()
    row_id = writer.insert("t")

    assert await world.store.read(everything()) == []
    assert await world.store.uncommitted_ids(everything(upto_id=row_id)) == [row_id]
    assert await world.store.max_id() == row_id

    writer.rollback()

    assert await world.store.uncommitted_ids(everything(upto_id=row_id)) == []


async def test_the_dirty_read_keeps_to_the_range_and_the_open_ids(world):
    """
    What is outside was looked at before, or is not yet due.
    """
    if not world.dirty_reads:
        return
    ids = insert(world, 5)
    await take(world)

    plan = everything(after_id=ids[2], upto_id=ids[3], open_ids=frozenset({ids[0]}))
    seen = await world.store.uncommitted_ids(plan)

    assert sorted(seen) == [ids[0], ids[3]]


async def test_a_large_payload_is_left_behind_and_fetched_by_id(world):
    """
    I10. One SELECT cannot return thousands of them.
    """
    if not isinstance(world, SqlWorld):
        return
    payload = bytes(range(256)) * 80
    [row_id] = insert(world, payload=payload)
    await take(world)

    [row] = await world.store.read(everything())

    assert (row.payload, row.payload_bytes) == (None, len(payload))
    assert await world.store.payload(row_id) == payload
    assert await world.store.payload(row_id + 1) is None


async def test_marked_rows_are_read_no_more(world):
    """
    I3.
    """
    ids = insert(world, 3)
    lease = await take(world)

    await world.store.mark_produced(ids[:2], lease.term)

    assert [row.id for row in await world.store.read(everything())] == [ids[2]]
    assert world.status(ids[0]) is Status.PRODUCED


async def test_a_mark_may_be_repeated(world):
    """
    After an error nobody knows whether it committed.
    """
    [row_id] = insert(world)
    lease = await take(world)

    await world.store.mark_produced([row_id], lease.term)
    await world.store.mark_produced([row_id], lease.term)

    assert world.status(row_id) is Status.PRODUCED


async def test_a_dead_letter_says_why_and_is_read_no_more(world):
    """
    I2.
    """
    [row_id] = insert(world)
    lease = await take(world)

    await world.store.mark_dead(row_id, "too_large: 5 bytes", lease.term)

    assert await world.store.read(everything()) == []
    assert world.status(row_id) is Status.DEAD
    assert world.error(row_id) == "too_large: 5 bytes"


async def test_a_produced_row_never_becomes_a_dead_letter(world):
    """
    I5. Status never goes from 1 to 2.
    """
    [row_id] = insert(world)
    lease = await take(world)
    await world.store.mark_produced([row_id], lease.term)

    await world.store.mark_dead(row_id, "unreadable: x", lease.term)

    assert world.status(row_id) is Status.PRODUCED


async def test_one_owner_holds_the_lanes(world):
    """
    I6. Nobody else gets them before the lease ends.
    """
    first = await take(world)
    second = await world.another().acquire("other", wake_address="", lease_seconds=15)

    assert second is None
    assert len(first.lanes) == 64


async def test_a_stale_term_marks_nothing(world):
    """
    I5. Neither produced nor dead.
    """
    [row_id] = insert(world)
    stale = await take(world)
    world.end_lease()
    assert await world.another().acquire("other", wake_address="", lease_seconds=15) is not None

    with pytest.raises(LeaseLost):
        await world.store.mark_produced([row_id], stale.term)
    with pytest.raises(LeaseLost):
        await world.store.mark_dead(row_id, "unreadable: x", stale.term)
    with pytest.raises(LeaseLost):
        await world.store.renew(stale, noted_id=0, lease_seconds=15)

    assert world.status(row_id) is Status.PENDING


async def test_a_lease_that_ran_out_marks_nothing_until_it_is_renewed(world):
    """
    I5. What nobody took is still ours, and nothing need be published twice.
    """
    [row_id] = insert(world)
    lease = await take(world)
    world.end_lease()

    with pytest.raises(StoreUnavailable):
        await world.store.mark_produced([row_id], lease.term)
    assert world.status(row_id) is Status.PENDING

    await world.store.renew(lease, noted_id=7, lease_seconds=15)
    await world.store.mark_produced([row_id], lease.term)

    assert world.status(row_id) is Status.PRODUCED


async def test_a_released_lease_passes_on_at_once_with_what_was_noted(world):
    """
    I9. A clean end: the next owner counts no crash.
    """
    first = await take(world)
    await world.store.renew(first, noted_id=42, lease_seconds=15)
    await world.store.release(first)

    second = await world.another().acquire("other", wake_address="", lease_seconds=15)

    assert second is not None
    assert second.term.number == first.term.number + 1
    assert second.term.nonce != first.term.nonce
    assert (second.noted_id, second.crash_count) == (42, 0)


async def test_leases_that_end_without_a_release_are_counted(world):
    """
    Whoever comes next knows that somebody died.
    """
    for expected in (0, 1, 2):
        lease = await take(world)
        assert lease.crash_count == expected
        world.end_lease()


async def test_a_release_of_a_lost_lease_does_nothing(world):
    """
    It must not take the lanes from their owner.
    """
    stale = await take(world)
    world.end_lease()
    current = await take(world)

    await world.store.release(stale)
    await world.store.renew(current, noted_id=0, lease_seconds=15)


async def test_another_server_is_noticed_when_a_connection_is_opened(world):
    """
    I1. Ids mean something only within one incarnation of the server.
    """
    await take(world)
    world.change_server()

    with pytest.raises(ServerChanged):
        await world.store.read(everything())


async def test_paused_topics_are_those_of_the_control_table(world):
    """
    An operator's word.
    """
    world.pause("orders")

    assert await world.store.paused_topics() == {"orders"}


async def test_a_sample_counts_up_to_its_cap(world):
    """
    I10. No count over ten million rows.
    """
    ids = insert(world, 5)
    lease = await take(world)
    await world.store.mark_dead(ids[0], "unreadable: x", lease.term)

    sample = await world.store.sample(cap=3)

    assert (sample.rows, sample.capped, sample.dead_rows) == (3, True, 1)
    assert sample.oldest_us is not None

    await world.store.mark_produced(ids, lease.term)
    sample = await world.store.sample(cap=3)

    assert (sample.rows, sample.capped, sample.oldest_us) == (0, False, None)


async def test_a_missing_table_is_a_mismatch_that_says_what_mends_it(world):
    """
    The relay waits for the migration.
    """
    await world.store.check_schema()
    if not isinstance(world, SqlWorld):
        return
    world.tables.metadata.drop_all(world.engine)

    with pytest.raises(SchemaMismatch, match="outbox-relay migrate"):
        await world.store.check_schema()


async def test_a_table_that_needs_a_newer_relay_is_a_mismatch(world):
    """
    `min_reader` keeps an old relay from harm; a newer table alone does not.
    """
    if not isinstance(world, SqlWorld):
        return
    version = world.tables.version
    with world.engine.begin() as connection:
        connection.execute(version.insert().values(version=SCHEMA_VERSION + 1, min_reader=1))
    await world.store.check_schema()

    with world.engine.begin() as connection:
        connection.execute(
            version.insert().values(version=SCHEMA_VERSION + 2, min_reader=SCHEMA_VERSION + 1)
        )

    with pytest.raises(SchemaMismatch, match="upgrade outbox-relay"):
        await world.store.check_schema()


async def test_a_lease_table_without_lanes_is_a_mismatch_that_says_what_mends_it(world):
    """
    Else every relay would stand by for ever, and nobody would know why.
    """
    if not isinstance(world, SqlWorld):
        return
    with world.engine.begin() as connection:
        connection.execute(world.tables.lease.delete())

    with pytest.raises(SchemaMismatch, match="outbox-relay migrate"):
        await world.store.acquire("me", wake_address="", lease_seconds=15)
