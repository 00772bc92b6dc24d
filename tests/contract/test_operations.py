"""
What an operator asks of a running outbox, on each database.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from outbox_relay.errors import SchemaMismatch, StoreUnavailable
from outbox_relay.events import uuid7
from outbox_relay.operations import (
    ALL_TOPICS,
    THE_PURGE,
    Access,
    EventFilter,
    EventLife,
    Lookup,
    backlog,
    event,
    find_event,
    finding,
    pause,
    paused,
    rates,
    read_standing,
    replay_rows,
    resume,
    search_events,
    selection,
    standing,
    stored_payload,
)
from outbox_relay.operations import events as events_module
from outbox_relay.operations.purging import HandPurge, PurgeTold
from outbox_relay.operations.replay_rows import ReplayRows, survey
from outbox_relay.relay.ports import ReadPlan
from outbox_relay.schema import Status
from outbox_relay.store import DatabaseOptions
from outbox_relay.wiring import build_purger
from tests.contract.stores import SqlWorld, open_world

NOW = datetime.now(UTC).replace(tzinfo=None, microsecond=0)


@pytest.fixture(params=["mariadb", "postgresql", "sqlite"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[SqlWorld]:
    database = request.getfixturevalue(f"{request.param}_database")
    async with open_world(request.param, database) as opened:
        yield opened  # type: ignore[misc]


@pytest.fixture
async def access(world: SqlWorld) -> AsyncIterator[Access]:
    opened = Access(DatabaseOptions(url=world.database.async_url))
    yield opened
    await opened.close()


def insert(world: SqlWorld, *rows: dict[str, Any]) -> list[int]:
    """A row for each, produced an hour after it was created unless it says otherwise."""
    ids = []
    with world.engine.begin() as connection:
        for given in rows:
            row = {"event_name": "order.placed", "topic": "orders", "payload": b"{}", **given}
            statement = world.tables.outbox.insert().values(**row)
            ids.append(connection.execute(statement).inserted_primary_key[0])
    return ids


def produced(**given: Any) -> dict[str, Any]:
    return {"status": 1, "produced_at": NOW, **given}


def dead(**given: Any) -> dict[str, Any]:
    return {"status": 2, "last_error": "too_large: x", "dead_at": NOW, "attempts": 1, **given}


async def test_the_newest_come_first_page_by_page(world: SqlWorld, access: Access) -> None:
    """
    Each page says where the next one begins, and the last one that nothing is left.
    """
    ids = insert(world, *[produced()] * 5)
    first = await search_events(access, EventFilter(), limit=2)
    second = await search_events(access, EventFilter(), limit=2, before_id=first.next_before_id)
    third = await search_events(access, EventFilter(), limit=2, before_id=second.next_before_id)

    assert [row.id for row in first.events] == [ids[4], ids[3]]
    assert [row.id for row in second.events] == [ids[2], ids[1]]
    assert [row.id for row in third.events] == [ids[0]]
    assert third.next_before_id is None


@pytest.mark.parametrize(
    ("which", "wanted"),
    [
        (EventFilter(), [0, 1, 2, 3, 4]),
        (EventFilter(topics=("orders",)), [0, 1, 3]),
        (EventFilter(topics=("users", "bills")), [2, 4]),
        (EventFilter(keys=(b"\x00\xff",)), [1]),
        (EventFilter(names=("user.left",)), [2]),
        (EventFilter(statuses=(Status.PENDING,)), [3, 4]),
        (EventFilter(statuses=(Status.DEAD,)), [2]),
        (EventFilter(statuses=(Status.PRODUCED, Status.DEAD)), [0, 1, 2]),
        (EventFilter(topics=("orders",), statuses=(Status.PENDING,)), [3]),
        (EventFilter(topics=("nowhere",)), []),
    ],
)
async def test_they_are_found_by_what_they_are(
    world: SqlWorld, access: Access, which: EventFilter, wanted: list[int]
) -> None:
    """
    What is given must all fit.
    """
    ids = insert(
        world,
        produced(key=b"k"),
        produced(key=b"\x00\xff"),
        dead(topic="users", event_name="user.left"),
        {"key": b"k"},
        {"topic": "bills"},
    )
    page = await search_events(access, which)

    assert [ids.index(row.id) for row in reversed(page.events)] == wanted


async def test_mysql_understands_it_all(mysql_database: Any) -> None:
    """
    Its words differ from MariaDB's in the limits of a statement.
    """
    async with open_world("mysql", mysql_database) as world:
        assert isinstance(world, SqlWorld)
        access = Access(DatabaseOptions(url=world.database.async_url))
        [row_id] = insert(world, {"key": b"k"})
        await pause(access, ["orders"])
        page = await search_events(access, EventFilter(statuses=(Status.PENDING,)))
        life = await event(access, page.events[0].event_id)
        counted = await survey(access, EventFilter(since=NOW - timedelta(hours=1)))

        assert [row.id for row in page.events] == [row_id]
        assert isinstance(life, EventLife)
        assert [waiting.reason for waiting in life.waits_for] == ["paused", "no_relay"]
        assert (await read_standing(access)).backlog_rows == 1
        assert counted.rows == 0
        await access.close()


async def test_they_are_found_by_time_and_id(world: SqlWorld, access: Access) -> None:
    """
    The time's first moment counts and its last does not; of ids both do. Gaps between ids do not matter.
    """
    hours = [NOW - timedelta(hours=n) for n in range(9, 0, -1)]
    ids = insert(world, *[produced(created_at=hour) for hour in hours])
    with world.engine.begin() as connection:
        connection.execute(sa.delete(world.tables.outbox).where(sa.text(f"id = {ids[4]}")))

    async def found(**given: Any) -> list[int]:
        page = await search_events(access, EventFilter(**given))
        return [ids.index(row.id) for row in reversed(page.events)]

    assert await found(since=hours[2], until=hours[6]) == [2, 3, 5]
    assert await found(since=hours[8]) == [8]
    assert await found(until=hours[0]) == []
    assert await found(since=NOW) == []
    assert await found(first_id=ids[2], last_id=ids[5]) == [2, 3, 5]
    assert await found(first_id=ids[8] + 1) == []


async def test_rows_that_are_far_apart_are_found_over_many_slices(
    world: SqlWorld, access: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A search passes a bounded number of rows in a statement, and says where to go on when its time is over.
    """
    monkeypatch.setattr(events_module, "FIRST_SLICE_ROWS", 2)
    monkeypatch.setattr(events_module, "MOST_SLICE_ROWS", 3)
    ids = insert(world, produced(topic="rare"), *[produced()] * 20, produced(topic="rare"))
    all_of_them = await search_events(access, EventFilter(topics=("orders", "rare")))
    everything = await search_events(access, EventFilter(topics=("rare",)))
    hurried = await search_events(access, EventFilter(topics=("rare",)), seconds=0.0)
    rest = await search_events(
        access, EventFilter(topics=("rare",)), before_id=hurried.next_before_id
    )

    assert [row.id for row in all_of_them.events] == ids[::-1]
    assert [row.id for row in everything.events] == [ids[21], ids[0]]
    assert ([row.id for row in hurried.events], hurried.timed_out) == ([ids[21]], True)
    assert [row.id for row in rest.events] == [ids[0]]


async def test_an_event_is_found_by_its_own_id(world: SqlWorld, access: Access) -> None:
    """
    The library's ids and the database's, whatever is around them; an id that says no time too.
    """
    before, after = [produced(event_id=uuid.uuid4())] * 3, [produced(event_id=uuid.uuid4())] * 3
    ours, random = uuid7(), uuid.uuid4()
    ids = insert(world, *before, {"event_id": ours}, {}, {"event_id": random}, *after)
    [made_there] = (
        await search_events(access, EventFilter(first_id=ids[4], last_id=ids[4]))
    ).events

    for event_id, row_id in ((ours, ids[3]), (made_there.event_id, ids[4]), (random, ids[5])):
        assert await find_event(access, event_id) == Lookup(row_id, None, complete=True)
    assert await find_event(access, uuid.uuid4()) == Lookup(None, ids[0], complete=True)


async def test_an_id_with_a_time_is_looked_for_around_it_first(
    world: SqlWorld, access: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    I10. Without an index on it, few rows are looked at; and where a clock was wrong, all the others after.
    """
    passed: list[int] = []
    slice_of = finding.slice_of

    def counted(connection: Any, outbox: Any, span: Any, rows: int, *, status: Any) -> Any:
        part = slice_of(connection, outbox, span, rows, status=status)
        passed.append(part.last - part.first + 1)
        return part

    monkeypatch.setattr(finding, "slice_of", counted)
    times = [NOW - timedelta(minutes=90 - n) for n in range(90)]
    ids = insert(world, *[produced(created_at=at, event_id=_id_of(at)) for at in times])
    strayed = insert(world, produced(created_at=NOW, event_id=_id_of(NOW - timedelta(days=9))))
    wanted = (await search_events(access, EventFilter(first_id=ids[40], last_id=ids[40]))).events[0]

    assert await find_event(access, wanted.event_id) == Lookup(ids[40], None, complete=True)
    assert sum(passed) == 1
    away = _id_of(NOW - timedelta(minutes=80))
    with world.engine.begin() as connection:
        outbox = world.tables.outbox
        connection.execute(outbox.update().where(outbox.c.id == strayed[0]).values(event_id=away))
    assert (await find_event(access, away)).id == strayed[0]


def _id_of(at: datetime) -> uuid.UUID:
    """A version 7 id that was made then."""
    milliseconds = int(at.replace(tzinfo=UTC).timestamp() * 1000)
    noise = uuid.uuid4().int & ((1 << 62) - 1)
    return uuid.UUID(int=milliseconds << 80 | 0x7 << 76 | 0x2 << 62 | noise)


async def test_a_search_for_an_id_says_how_far_it_came(
    world: SqlWorld, access: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Not found in time is not the same as not there.
    """
    monkeypatch.setattr(finding, "MOST_SLICE_ROWS", 2)
    ids = insert(world, *[produced(event_id=uuid.uuid4()) for _ in range(9)])
    looked = await find_event(access, uuid.uuid4(), seconds=0.0)

    assert looked == Lookup(None, ids[7], complete=False)


async def test_the_life_of_an_event(world: SqlWorld, access: Access) -> None:
    """
    When it was created and settled, whose lane it is in; never its payload.
    """
    created = NOW - timedelta(seconds=90)
    [done, gone] = insert(
        world,
        produced(created_at=created, key=b"k", payload=b"geheim"),
        dead(created_at=created),
    )
    with world.engine.begin() as connection:
        connection.execute(
            sa.text("UPDATE outbox_lease SET owner = 'me', expires_at = '2999-01-01 00:00:00'")
        )
    life = await event(access, done)
    dead_one = await event(access, gone)

    assert isinstance(life, EventLife)
    assert isinstance(dead_one, EventLife)
    assert (life.status, life.seconds_to_produced, life.payload_bytes) == (Status.PRODUCED, 90.0, 6)
    assert (life.lane_owner, life.waits_for, "geheim" in repr(life)) == ("me", (), False)
    assert (dead_one.status, dead_one.dead_at, dead_one.last_error) == (2, NOW, "too_large: x")
    assert await stored_payload(access, done) == b"geheim"
    assert await event(access, gone + 1) == Lookup(None, None, complete=True)


async def test_why_an_event_waits(world: SqlWorld, access: Access) -> None:
    """
    A pause, a relay that is not there, a dead letter of its key, and how many of its key come first.
    """
    ids = insert(
        world, dead(key=b"k"), {"key": b"k"}, {"key": b"k", "topic": "users"}, {"key": b"k"}
    )
    await pause(access, ["orders"], reason="upgrade", by="ann@web-1")
    life = await event(access, ids[3])

    assert isinstance(life, EventLife)
    assert life.earlier_of_its_key == 1
    assert [waiting.reason for waiting in life.waits_for] == ["paused", "no_relay", "held_key"]
    assert "upgrade (ann@web-1)" in life.waits_for[0].detail
    assert f"row {ids[0]}" in life.waits_for[2].detail


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


def settle(world: SqlWorld, row_id: int, status: Status) -> None:
    error = "x" if status is Status.DEAD else None
    with world.engine.begin() as connection:
        outbox = world.tables.outbox
        change = outbox.update().values(status=int(status), last_error=error, dead_at=NOW)
        connection.execute(change.where(outbox.c.id == row_id))


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


def test_times_of_ids_that_are_none() -> None:
    """
    Whatever an id holds, it is an answer and no error.
    """
    assert selection.time_of(uuid.UUID(int=(2**48 - 1) << 80 | 7 << 76 | 2 << 62)) is None
    assert selection.time_of(uuid.UUID(int=0)) is None
