"""
Events are found, and their lives told, on each database.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from outbox_relay.events import uuid7
from outbox_relay.operations import (
    Access,
    EventFilter,
    EventLife,
    Lookup,
    event,
    find_event,
    finding,
    pause,
    read_standing,
    search_events,
    selection,
    stored_payload,
)
from outbox_relay.operations import events as events_module
from outbox_relay.operations.replay_rows import survey
from outbox_relay.schema import Status
from outbox_relay.store import DatabaseOptions
from tests.contract.operating import NOW, dead, insert, produced
from tests.contract.stores import SqlWorld, open_world

WORLDS = ["mariadb", "postgresql", "sqlite"]


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


async def test_a_search_that_goes_on_passes_no_row_by(
    world: SqlWorld, access: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Though the time was over while the rows around the id's time were looked at, and it is none of them.
    """
    monkeypatch.setattr(finding, "MOST_SLICE_ROWS", 1)
    wanted = uuid7()
    insert(world, *[produced() for _ in range(4)])
    [row_id] = insert(world, produced(event_id=wanted, created_at=NOW + timedelta(hours=3)))
    before, looks = None, 0
    looked = await find_event(access, wanted, seconds=0.0)
    while looked.id is None and not looked.complete:
        before, looks = looked.looked_to_id, looks + 1
        looked = await find_event(access, wanted, seconds=0.0, before_id=before)

    assert (looked.id, looks) == (row_id, 1)


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


def test_times_of_ids_that_are_none() -> None:
    """
    Whatever an id holds, it is an answer and no error.
    """
    assert selection.time_of(uuid.UUID(int=(2**48 - 1) << 80 | 7 << 76 | 2 << 62)) is None
    assert selection.time_of(uuid.UUID(int=0)) is None
