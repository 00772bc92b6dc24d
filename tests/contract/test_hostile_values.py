"""
What comes from outside never becomes SQL text: names are checked, values are bound, and the only data in a
statement are integers of ours. On each database.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from outbox_relay import store as store_package
from outbox_relay.relay.dead_letters import Selection
from outbox_relay.relay.ports import PurgePlan, ReadPlan
from outbox_relay.schema import Status, tables
from outbox_relay.store import DatabaseOptions
from outbox_relay.store.channel import Channel
from outbox_relay.store.sql import SqlStore
from outbox_relay.wiring import build_dead_letters
from tests.contract.stores import SERVERS, SqlWorld, create_tables, open_world

TEXTS = (
    "'; DROP TABLE outbox; --",
    "' OR '1'='1",
    '" OR ""="',
    "\\",
    "\\' OR 1=1 -- ",
    "%s %(a)s %% $1 $# :a ? {}",
    "/*!50000 OR 1 */",
    "–’ʼ＇",
    "a\nb\r\tc\x1a",
)
# What a statement may quote: what stands so in our own text, names of tables, and lists of integers.
SOURCE = "".join(path.read_text() for path in Path(store_package.__file__).parent.glob("*.py"))
OURS = re.compile(r"\'(\"\w+\"|\{[\d,]*\})\'")
EVERYTHING = ReadPlan(after_id=0, open_ids=frozenset(), limit=100)

WORLDS = SERVERS


@pytest.fixture
def no_backslashes(mariadb) -> Iterator[None]:
    """A server on which a backslash is a letter like any other, so that it escapes nothing."""
    with mariadb.root_connection() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT @@GLOBAL.sql_mode")
        (before,) = cursor.fetchone()
        cursor.execute("SET GLOBAL sql_mode = CONCAT(@@GLOBAL.sql_mode, ',NO_BACKSLASH_ESCAPES')")
        yield
        cursor.execute("SET GLOBAL sql_mode = %s", (before,))


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every statement that a store runs."""
    seen: list[str] = []
    execute = Channel.execute

    async def recording(self, sql, parameters=()):
        seen.append(sql)
        return await execute(self, sql, parameters)

    monkeypatch.setattr(Channel, "execute", recording)
    return seen


async def work(world: SqlWorld) -> None:
    """All that a relay and an operator do, with hostile texts wherever a text goes."""
    writer = world.begin()
    ids = [writer.insert(text, key=text.encode()) for text in TEXTS]
    plain = writer.insert("plain")
    writer.commit()
    for text in TEXTS:
        world.pause(text)
    store = world.store
    lease = await store.acquire(TEXTS[0], wake_address=TEXTS[4], lease_seconds=15)
    assert lease is not None
    assert await store.wake_addresses() == {TEXTS[4]}

    assert await store.paused_topics() == set(TEXTS)
    rows = await store.read(EVERYTHING)
    assert [(row.topic, row.key) for row in rows[:-1]] == [(text, text.encode()) for text in TEXTS]
    skipping = ReadPlan(
        after_id=0, open_ids=frozenset([plain]), limit=100, skip_topics=frozenset(TEXTS)
    )
    assert [row.id for row in await store.read(skipping)] == [plain]
    await store.uncommitted_ids(skipping)
    await store.max_id(at_least=1)
    assert await store.payload(ids[0]) == b"{}"

    for row_id, text in zip(ids, TEXTS, strict=True):
        await store.mark_dead(row_id, text, lease.term)
    assert [world.error(row_id) for row_id in ids] == list(TEXTS)
    assert set((await store.dead_keys(limit=100)).first_ids) == {
        (text, text.encode()) for text in TEXTS
    }
    await store.mark_produced([plain], lease.term)
    await store.sample(cap=10)
    for status in (Status.PRODUCED, Status.DEAD):
        plan = PurgePlan(status=status, older_than_seconds=3600, after_id=0, limit=10)
        aged = await store.aged(plan)
        assert [row.id for row in aged] == ([plain] if status is Status.PRODUCED else ids)
        assert await store.purge([row.id for row in aged], plan, lease.term) == 0
    await store.renew(lease, noted_id=1, lease_seconds=15)
    await store.release(lease)
    await operate(world, ids)


async def operate(world: SqlWorld, ids: list[int]) -> None:
    """What an operator does with dead letters, with hostile texts as filters."""
    letters = build_dead_letters(DatabaseOptions(url=world.database.async_url))
    for row_id, text in zip(ids, TEXTS, strict=True):
        found = await letters.find(Selection(topics=(text,), reasons=()))
        assert [letter.id for letter in found] == [row_id]
        assert await letters.find(Selection(reasons=(f"{text}x",))) == []
        assert await letters.find(Selection(keys=(f"{text}x".encode(errors="replace"),))) == []
    await letters.requeue(ids)
    await letters.close()


async def test_hostile_texts_come_back_as_they_were(world, statements):
    """
    Topics, keys, errors, owners and addresses hold SQL: nothing of it is executed, nor ever part of a
    statement. Whatever a statement quotes is a constant of ours.
    """
    await work(world)

    quoted = {found for sql in statements for found in re.findall(r"'(?:[^']|'')*'", sql)}
    assert quoted
    assert [text for text in quoted if text not in SOURCE and not OURS.fullmatch(text)] == []
    assert [sql for sql in statements if any(text in sql for text in TEXTS[:6])] == []
    assert world.statuses([row.id for row in await world.store.read(EVERYTHING)]) == {
        Status.PENDING
    }


async def test_hostile_texts_where_backslashes_escape_nothing(no_backslashes, mariadb_database):
    """
    The driver puts values into the text by itself: it must heed the server's mode.
    """
    async with open_world("mariadb", mariadb_database) as world:
        await work(world)


@pytest.mark.parametrize(
    "name", ["out box", "o`x", 'o"x', "o'x", "o;x", "", "1x", "o.x", "x" * 49, "ö", "x\n"]
)
def test_hostile_names_are_refused(name):
    """
    The table's name becomes SQL text: only a plain identifier does.
    """
    with pytest.raises(ValueError, match="cannot name a table"):
        tables(name)
    with pytest.raises(ValueError, match="cannot name a table"):
        tables(schema=name)


async def test_a_name_that_is_a_word_of_sql_is_quoted(mariadb_database, statements):
    """
    A plain identifier may still mean something: SELECT, for one.
    """
    engine = sa.create_engine(mariadb_database.sync_url)
    create_tables(engine, "select")
    store = SqlStore(DatabaseOptions(url=mariadb_database.async_url, table="select"))
    lease = await store.acquire("me", wake_address="", lease_seconds=15)
    assert lease is not None
    assert await store.read(EVERYTHING) == []
    await store.mark_dead(1, "x", lease.term)
    await store.close()
    engine.dispose()

    assert [sql for sql in statements if re.search(r"(FROM|UPDATE) select\b", sql)] == []


async def test_only_integers_become_text(sqlite_database):
    """
    Ids that are not integers raise before anything is executed.
    """
    async with open_world("sqlite", sqlite_database) as world:
        lease = await world.store.acquire("me", wake_address="", lease_seconds=15)
        for ids in (["1) OR (1=1"], [TEXTS[0]]):
            with pytest.raises(ValueError, match="invalid literal for int"):
                await world.store.mark_produced(ids, lease.term)
            with pytest.raises(ValueError, match="invalid literal for int"):
                await world.store.delete_produced(ids, lease.term)
