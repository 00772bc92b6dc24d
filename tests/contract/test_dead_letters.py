"""
Dead letters on each database: whose keys they hold, and what operators do with them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from outbox_relay.errors import SchemaMismatch, StoreUnavailable
from outbox_relay.relay.dead_letters import Selection, latest_of
from outbox_relay.relay.ports import ReadPlan
from outbox_relay.schema import Status
from outbox_relay.store import DatabaseOptions
from outbox_relay.store import dead_letters as module
from outbox_relay.wiring import build_dead_letters
from tests.contract.stores import KINDS, MemoryWorld, World, open_world

EVERYTHING = ReadPlan(after_id=0, open_ids=frozenset(), limit=100)

WORLDS = KINDS


@pytest.fixture(params=["mariadb", "mysql", "postgresql", "sqlite"])
async def sql_world(request):
    database = request.getfixturevalue(f"{request.param}_database")
    async with open_world(request.param, database) as opened:
        yield opened


@contextlib.asynccontextmanager
async def letters_of(world: World) -> AsyncIterator[module.DeadLetters]:
    found = build_dead_letters(DatabaseOptions(url=world.database.async_url))
    try:
        yield found
    finally:
        await found.close()


@pytest.fixture
async def letters(sql_world):
    async with letters_of(sql_world) as found:
        yield found


async def give_up(world: World, *rows: tuple[str, bytes | None, str]) -> list[int]:
    """A dead letter for each (topic, key, error)."""
    writer = world.begin()
    ids = [writer.insert(topic, key=key) for topic, key, _ in rows]
    writer.commit()
    lease = await world.store.acquire("me", wake_address="", lease_seconds=15)
    assert lease is not None
    for row_id, (_, _, error) in zip(ids, rows, strict=True):
        await world.store.mark_dead(row_id, error, lease.term)
    await world.store.release(lease)
    return ids


async def test_the_first_dead_letter_of_each_key(world):
    """
    Topic and key together; rows without a key are nobody's.
    """
    ids = await give_up(
        world,
        ("t", b"\x00\xff", "x"),
        ("t", None, "x"),
        ("u", b"\x00\xff", "x"),
        ("t", b"\x00\xff", "x"),
    )
    found = await world.store.dead_keys(limit=4)

    assert dict(found.first_ids) == {("t", b"\x00\xff"): ids[0], ("u", b"\x00\xff"): ids[2]}
    assert found.unread_above is None


async def test_more_dead_letters_than_the_limit(world):
    """
    The oldest are looked at, and it is said where that ends.
    """
    ids = await give_up(world, *[("t", b"%d" % n, "x") for n in range(3)])
    found = await world.store.dead_keys(limit=2)

    assert dict(found.first_ids) == {("t", b"0"): ids[0], ("t", b"1"): ids[1]}
    assert found.unread_above == ids[1]


async def test_a_requeue_that_is_not_committed_frees_no_key(mariadb_database):
    """
    I4. Else later rows would go on while the row itself cannot be read yet.
    """
    async with open_world("mariadb", mariadb_database) as world:
        [row_id] = await give_up(world, ("t", b"k", "x"))
        with world.engine.connect() as connection:
            outbox = world.tables.outbox
            connection.execute(outbox.update().values(status=0, last_error=None))
            found = await world.store.dead_keys(limit=10)

        assert dict(found.first_ids) == {("t", b"k"): row_id}


async def requeue(world: World, row_id: int) -> None:
    """As an operator does it."""
    if isinstance(world, MemoryWorld):
        world.store.requeue(row_id)
        return
    async with letters_of(world) as letters:
        assert await letters.requeue([row_id]) == 1


async def test_a_statement_of_before_a_requeue_gives_up_nothing(world):
    """
    I4. One that got no answer may take effect after its repetition and after a requeue: later rows of the
    key would go although it is dead. Only who read the requeued row may give it up.
    """
    [row_id] = await give_up(world, ("t", b"k", "too_large: x"))
    await requeue(world, row_id)
    lease = await world.store.acquire("me", wake_address="", lease_seconds=15)
    [row] = await world.store.read(EVERYTHING)

    await world.store.mark_dead(row_id, "too_large: x", lease.term)
    assert world.status(row_id) is Status.PENDING

    await world.store.mark_dead(
        row_id, "too_large: x", lease.term, requeued_us=row.requeued_us - 1000
    )
    assert world.status(row_id) is Status.PENDING

    await world.store.mark_dead(row_id, "too_large: y", lease.term, requeued_us=row.requeued_us)
    assert world.status(row_id) is Status.DEAD
    assert world.error(row_id) == "too_large: y"


@pytest.mark.parametrize(
    ("selection", "wanted"),
    [
        (Selection(), [0, 1, 2, 3]),
        (Selection(topics=("t",)), [0, 1, 2]),
        (Selection(reasons=("too_large",)), [0, 3]),
        (Selection(reasons=("too_large", "unreadable"), topics=("t",)), [0, 1]),
        (Selection(reasons=("too",)), []),
        (Selection(ids=(10**6,)), []),
        (Selection(keys=(b"\x00\xff",)), [1]),
        (Selection(keys=(b"k", b"\x00\xff"), topics=("t",)), [0, 1]),
    ],
)
async def test_they_are_found_by_topic_key_and_reason(sql_world, letters, selection, wanted):
    """
    What is given must all fit. A reason is a whole word.
    """
    ids = await give_up(
        sql_world,
        ("t", b"k", "too_large: 9 bytes"),
        ("t", b"\x00\xff", "unreadable: codec 9"),
        ("t", None, "invalid_record: no"),
        ("u", b"k", "too_large: 9 bytes"),
    )
    pending = sql_world.begin()
    pending.insert("t")
    pending.commit()
    found = await letters.find(selection)

    assert [letter.id for letter in found] == [ids[n] for n in wanted]


async def test_they_are_found_by_id_and_time(sql_world, letters):
    """
    Both ends of the ids count; of the times the first does.
    """
    ids = await give_up(sql_world, *[("t", None, "too_large: x")] * 4)
    now = (await letters.read(ids[:1]))[0].dead_at
    for age, row_id in enumerate(ids):
        sql_world.age(row_id, seconds=100 * age)

    async def found(**selection) -> list[int]:
        letters_found = await letters.find(Selection(**selection))
        return [ids.index(letter.id) for letter in letters_found]

    assert await found(first_id=ids[1], last_id=ids[2]) == [1, 2]
    assert await found(first_id=ids[3]) == [3]
    assert await found(last_id=0) == []
    assert await found(since=now - timedelta(seconds=150)) == [0, 1]
    assert await found(until=now - timedelta(seconds=150)) == [2, 3]
    [third] = await letters.read([ids[2]])
    assert await found(since=third.dead_at, until=third.dead_at) == []
    assert await found(since=third.dead_at, until=third.dead_at + timedelta(microseconds=1)) == [2]


async def test_one_is_shown_as_it_was_written(sql_world, letters):
    """
    With its reason and the instant; its payload only when it is asked for.
    """
    [row_id] = await give_up(sql_world, ("t", b"\x00\xffk", "too_large: 9 bytes"))
    [letter] = await letters.read([row_id, row_id + 1])
    payload = await letters.payload(row_id)

    assert (letter.id, letter.topic, letter.key) == (row_id, "t", b"\x00\xffk")
    assert (letter.reason, letter.last_error) == ("too_large", "too_large: 9 bytes")
    assert (letter.attempts, letter.payload_bytes, letter.event_name) == (1, 2, "event")
    assert letter.dead_at is not None
    assert letter.dead_at >= letter.created_at
    assert payload == b"{}"


async def test_a_requeued_row_is_pending_and_says_so(sql_world, letters, monkeypatch):
    """
    The relay reads it again, with the instant for the header requeued-at. In small statements.
    """
    monkeypatch.setattr(module, "ROWS_A_STATEMENT", 1)
    ids = await give_up(sql_world, ("t", b"k", "too_large: x"), ("t", b"k", "too_large: x"))
    requeued = await letters.requeue(ids)
    again = await letters.requeue(ids)
    rows = await sql_world.store.read(EVERYTHING)

    assert (requeued, again) == (2, 0)
    assert [row.id for row in rows] == ids
    assert all(row.requeued_us >= row.created_us for row in rows)
    assert sql_world.error(ids[0]) is None
    assert (await sql_world.store.dead_keys(limit=10)).first_ids == {}


async def test_only_dead_letters_are_requeued_or_discarded(sql_world, letters):
    """
    I2, I5. What is pending or produced stays as it is.
    """
    writer = sql_world.begin()
    ids = [writer.insert("t"), writer.insert("t")]
    writer.commit()
    lease = await sql_world.store.acquire("me", wake_address="", lease_seconds=15)
    await sql_world.store.mark_produced(ids[:1], lease.term)

    assert await letters.requeue(ids) == 0
    assert await letters.discard(ids) == []
    assert [sql_world.status(row_id) for row_id in ids] == [Status.PRODUCED, Status.PENDING]


async def test_a_discarded_row_is_gone(sql_world, letters):
    """
    Its neighbours are not.
    """
    ids = await give_up(sql_world, ("t", b"k", "too_large: x"), ("t", b"k", "too_large: x"))
    discarded = await letters.discard(ids[:1])
    again = await letters.discard(ids[:1])
    found = await letters.find(Selection())

    assert discarded == ids[:1]
    assert again == []
    assert [letter.id for letter in found] == ids[1:]


async def test_what_died_later_was_not_seen(sql_world, letters):
    """
    Whoever was asked about some saw those that were dead by then, whatever the ids of the others are.
    """
    writer = sql_world.begin()
    early, shown = writer.insert("t"), writer.insert("t")
    writer.commit()
    lease = await sql_world.store.acquire("me", wake_address="", lease_seconds=15)
    await sql_world.store.mark_dead(shown, "too_large: x", lease.term)
    known_at = latest_of(await letters.find(Selection()))
    await asyncio.sleep(0.002)  # one database knows milliseconds only
    await sql_world.store.mark_dead(early, "too_large: x", lease.term)
    seen = await letters.find(Selection(known_at=known_at))

    assert [letter.id for letter in seen] == [shown]
    assert [letter.id for letter in await letters.find(Selection())] == [early, shown]


async def test_they_come_in_pages(sql_world, letters):
    """
    I10. However many there are, a few are looked at together.
    """
    ids = await give_up(sql_world, *[("t", None, "too_large: x")] * 3)
    first = await letters.find(Selection(), limit=2)
    second = await letters.find(Selection(), after_id=first[-1].id, limit=2)

    assert [letter.id for letter in first] == ids[:2]
    assert [letter.id for letter in second] == ids[2:]


async def test_without_tables_or_database(sqlite_database, tmp_path):
    """
    It is told what mends it, and no file is created.
    """
    missing = build_dead_letters(DatabaseOptions(url=sqlite_database.async_url))
    away = build_dead_letters(DatabaseOptions(url="mysql+asyncmy://ob:geheim@127.0.0.1:1/shop"))

    with pytest.raises(SchemaMismatch, match="outbox-relay migrate"):
        await missing.find(Selection())
    with pytest.raises(StoreUnavailable) as raised:
        await away.find(Selection())
    assert "geheim" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []
