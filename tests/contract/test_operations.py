"""
What an operator asks of a running outbox, on each database.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from outbox_relay.errors import SchemaMismatch, StoreUnavailable
from outbox_relay.operations import (
    ALL_TOPICS,
    THE_PURGE,
    Access,
    EventFilter,
    backlog,
    event,
    pause,
    paused,
    rates,
    read_standing,
    replay_rows,
    resume,
    search_events,
    standing,
)
from outbox_relay.operations.purging import HandPurge, PurgeTold
from outbox_relay.operations.replay_rows import ReplayRows, survey
from outbox_relay.relay.ports import ReadPlan
from outbox_relay.schema import Status
from outbox_relay.store import DatabaseOptions
from outbox_relay.wiring import build_purger
from tests.contract.operating import NOW, dead, insert, produced, settle
from tests.contract.stores import SqlWorld, open_world

WORLDS = ["mariadb", "postgresql", "sqlite"]


async def test_the_backlog_by_topic(
    world: SqlWorld, access: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The most first; only the oldest are counted, and it says so.
    """
    old = datetime.now(UTC).replace(tzinfo=None) - timedelta(hours=2)
    ids = insert(world, {"created_at": old}, {}, {}, {"topic": "users"}, dead(topic="users"))
    found = await backlog(access)
    few = await backlog(access, most_rows=2)
    given_up = await backlog(access, Status.DEAD)

    assert [(topic.topic, topic.rows, topic.oldest_id) for topic in found.topics] == [
        ("orders", 3, ids[0]),
        ("users", 1, ids[3]),
    ]
    assert (found.capped, few.capped, few.topics[0].rows) == (False, True, 2)
    assert 7200 <= found.topics[0].oldest_seconds < 7300
    assert [(topic.topic, topic.rows) for topic in given_up.topics] == [("users", 1)]
    monkeypatch.setattr(standing, "MOST_ROWS", 2)
    assert (await read_standing(access)).backlog_rows == 2


async def test_the_standing_says_what_was_produced_and_what_pauses(
    world: SqlWorld, access: Access
) -> None:
    """
    From rows alone; the purge is no topic.
    """
    insert(world, produced(produced_at=NOW - timedelta(hours=3)), {}, produced(), {})
    await pause(access, [THE_PURGE, "orders"])
    found = await read_standing(access, retention_seconds=60.0)

    assert found.paused_topics == ("orders",)
    assert (found.purge_paused, found.retention_seconds) == (True, 60.0)
    assert found.last_produced_seconds is not None
    assert found.oldest_produced_seconds is not None
    assert 10_790 < found.oldest_produced_seconds - found.last_produced_seconds < 10_810


async def test_rates_follow_from_two_looks(
    world: SqlWorld, access: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    What was written and what does not wait any more; of more than is counted, those that were.
    """
    ids = insert(world, {}, {}, {})

    async def moved(before: rates.Mark) -> tuple[int, int, bool]:
        found = await rates.rate(access, before, await read_standing(access))
        assert found is not None
        counts = [found.written_per_second, found.produced_per_second]
        written, done = [round(count * found.seconds) for count in counts]
        return written, done, found.at_least

    before = await rates.mark(access, await read_standing(access))
    settle(world, ids[0], Status.PRODUCED)
    settle(world, ids[1], Status.DEAD)
    more = insert(world, {}, {}, produced())
    assert await moved(before) == (3, 2, False)

    monkeypatch.setattr(standing, "MOST_ROWS", 2)
    monkeypatch.setattr(rates, "MOST_ROWS", 2)
    capped = await rates.mark(access, await read_standing(access))
    assert capped.upto_id == more[0]
    settle(world, ids[2], Status.PRODUCED)
    assert await moved(capped) == (0, 1, False)
    settle(world, more[0], Status.PRODUCED)
    assert await moved(capped) == (0, 2, True)


async def test_pause_and_resume(world: SqlWorld, access: Access) -> None:
    """
    Both may be repeated, and say what they changed. To go on with all leaves what was paused by name.
    """
    first = await pause(access, ["orders", ALL_TOPICS], reason="x" * 300, by="ann@web-1")
    again = await pause(access, ["orders"], reason="another")
    kept = await paused(access)
    gone = await resume(access, [ALL_TOPICS])
    nothing = await resume(access, [ALL_TOPICS, "unknown"])

    assert sorted(pause.topic for pause in first) == ["*", "orders"]
    assert all(len(pause.reason) == 255 for pause in first)
    assert all(pause.reason.endswith("x (ann@web-1)") for pause in first)
    assert again == []
    assert kept == sorted(first, key=lambda pause: pause.topic)
    assert [pause.topic for pause in gone] == ["*"]
    assert nothing == []
    assert await world.store.paused_topics() == {"orders"}


async def test_a_replay_reads_what_was_produced_oldest_first(
    world: SqlWorld, access: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    In pages over slices, with nothing that is pending or dead; a large payload is left behind.
    """
    monkeypatch.setattr(replay_rows, "MOST_SLICE_ROWS", 4)
    large = b"x" * 20_000
    ids = insert(
        world,
        *[produced(key=b"\x00\xff", payload=b"%d" % n) for n in range(9)],
        {},
        dead(),
        produced(topic="users", payload=large),
    )
    counted = await survey(access, EventFilter())
    rows = ReplayRows(access, EventFilter())
    pages = [p async for p in rows.pages(after_id=ids[0], last_id=counted.last_id, rows=3)]
    found = [row for page, _ in pages for row in page]

    assert (counted.counts, counted.last_id) == ({"orders": 9, "users": 1}, ids[11])
    assert [row.id for row in found] == [*ids[1:9], ids[11]]
    assert [upto for _, upto in pages] == sorted(upto for _, upto in pages)
    assert pages[-1] == ([], ids[11])
    assert all(len(page) <= 3 for page, _ in pages)
    assert (found[0].key, found[0].payload, found[0].payload_bytes) == (b"\x00\xff", b"1", 1)
    assert (found[-1].payload, found[-1].payload_bytes) == (None, 20_000)
    assert await rows.payload(ids[11]) == large
    assert await rows.payload(ids[11] + 1) is None


async def test_a_key_that_was_written_as_text_is_that_key(world: SqlWorld, access: Access) -> None:
    """
    SQLite keeps it as text: the relay publishes it, so it is found and replayed by it too.
    """
    [row_id] = insert(world, produced(key=b"other"))
    with world.engine.begin() as connection:
        column = connection.dialect.identifier_preparer.quote("key")
        connection.exec_driver_sql(f"UPDATE outbox SET {column} = 'order-7'")
    which = EventFilter(keys=(b"order-7",))

    assert [found.id for found in (await search_events(access, which)).events] == [row_id]
    assert (await survey(access, which)).rows == 1


async def test_a_replay_brings_no_canary_unless_it_is_meant(
    world: SqlWorld, access: Access
) -> None:
    """
    An event of the relay's own has no place on the topic that --to-topic names.
    """
    canary = produced(event_name="outbox_relay.canary", topic="canary", created_at=NOW)
    ids = insert(world, produced(created_at=NOW), canary)
    each = [
        (EventFilter(), 1),
        (EventFilter(since=NOW - timedelta(minutes=1)), 1),
        (EventFilter(topics=("canary",)), 1),
        (EventFilter(names=("outbox_relay.canary",)), 1),
        (EventFilter(first_id=ids[1], last_id=ids[1]), 1),
        (EventFilter(topics=("canary", "orders")), 2),
    ]

    assert [(await survey(access, which)).rows for which, _ in each] == [n for _, n in each]


async def test_a_replay_by_time_leaves_nothing_out(world: SqlWorld, access: Access) -> None:
    """
    A statement that inserts for minutes gives its rows the time at which it began, between the ids of others.
    """
    minutes = (120, 50, 50, 65, 40, 30, 20)
    ids = insert(world, *[produced(created_at=NOW - timedelta(minutes=m)) for m in minutes])
    which = EventFilter(since=NOW - timedelta(minutes=60))
    counted = await survey(access, which)
    pages = ReplayRows(access, which).pages(after_id=0, last_id=counted.last_id, rows=10)
    found = [row.id async for page, _ in pages for row in page]

    assert counted.rows == 5
    assert found == [*ids[1:3], *ids[4:]]


async def test_a_replayed_row_is_as_the_relay_read_it(world: SqlWorld, access: Access) -> None:
    """
    So that its record is the same: each field, the time to the microsecond.
    """
    lease = await world.store.acquire("me", wake_address="", lease_seconds=15)
    assert lease is not None
    writer = world.begin()
    row_id = writer.insert("orders", key=b"k")
    writer.commit()
    plan = ReadPlan(after_id=0, open_ids=frozenset(), limit=10)
    [as_read] = await world.store.read(plan)
    await world.store.mark_produced([row_id], lease.term)
    rows = ReplayRows(access, EventFilter())
    [(again, _), _] = [p async for p in rows.pages(after_id=0, last_id=row_id, rows=10)]

    assert again == [as_read]


async def test_a_purge_by_hand_deletes_what_is_due(world: SqlWorld, access: Access) -> None:
    """
    I2. By the database's clock; what may still be published never, and what is not due neither.
    """
    old = NOW - timedelta(days=2)
    ids = insert(
        world,
        *[produced(produced_at=old)] * 3,
        produced(),
        {"created_at": old},
        dead(dead_at=old),
    )
    purger = build_purger(DatabaseOptions(url=world.database.async_url))
    gone: list[int] = []

    async def not_paused() -> None:
        return None

    async def go_on(_: float) -> bool:
        return True

    told = PurgeTold(deleted=lambda row: gone.append(row.id))
    for status, wanted in ((Status.PRODUCED, 3), (Status.DEAD, 1)):
        work = HandPurge(purger, status, 86_400.0, not_paused, go_on, told)
        assert await work.count() == wanted
        assert (await work.run(), work.rows) == (True, wanted)
    await purger.close()

    assert world.ids() == ids[3:5]
    assert gone == [ids[5]]
    with pytest.raises(ValueError, match="may still be published"):
        HandPurge(purger, Status.PENDING, 0.0, not_paused, go_on)


async def test_a_server_that_hangs_in_a_statement_is_told(
    mariadb: Any, mariadb_database: Any
) -> None:
    """
    Within the limits, whatever the server does; nobody waits for a rollback.
    """
    async with open_world("mariadb", mariadb_database) as world:
        assert isinstance(world, SqlWorld)
        options = DatabaseOptions(url=world.database.async_url, timeout_seconds=0.5)
        access = Access(options)
        asyncio.get_running_loop().call_later(0.2, mariadb.freeze)
        started = time.monotonic()
        with pytest.raises(StoreUnavailable, match="does not answer in time"):
            async with access.session(checked=False) as session:
                await session.run(_sleep)
        mariadb.thaw()

        assert time.monotonic() - started < 10
        await access.close()


def _sleep(connection: sa.Connection) -> None:
    for _ in range(100):
        connection.exec_driver_sql("SELECT SLEEP(0.1)")


async def test_without_tables_everything_says_what_mends_it(sqlite_database: Any) -> None:
    """
    And makes no file.
    """
    access = Access(DatabaseOptions(url=sqlite_database.async_url))
    for ask in (search_events(access, EventFilter()), event(access, 1), paused(access)):
        with pytest.raises(SchemaMismatch, match="outbox-relay migrate"):
            await ask
    assert (await read_standing(access)).schema_version is None
    assert not access.exists()
