"""
Texts in statements on MariaDB and MySQL: the driver escapes them itself, so the connection must not be one on
which that means something else.
"""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from outbox_relay.migrate import database_engine
from outbox_relay.relay.dead_letters import Selection
from outbox_relay.relay.ports import ReadPlan
from outbox_relay.store import DatabaseOptions, open_store
from outbox_relay.wiring import build_dead_letters
from tests.contract.stores import create_tables

TRICKS = [
    "kills_relay: \\' OR 1=1 -- ",
    "x: \\\\' \" ` %s %(a)s \x1a \r\n",
    "\u7e97' OR 1=1 -- ",  # in GBK its last byte swallows a backslash
]


@pytest.fixture(params=["mariadb", "mysql"])
def hostile(request: pytest.FixtureRequest) -> Any:
    """A database whose URL asks for GBK, on a server without backslash escapes."""
    server = request.getfixturevalue(request.param)
    database = request.getfixturevalue(f"{request.param}_database")
    engine = sa.create_engine(database.sync_url)
    create_tables(engine)
    engine.dispose()
    with server.root_connection() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT @@GLOBAL.sql_mode")
        before = cursor.fetchone()[0]
        cursor.execute(f"SET GLOBAL sql_mode = '{before},NO_BACKSLASH_ESCAPES'")
        yield DatabaseOptions(url=f"{database.async_url}?charset=gbk"), database.sync_url
        cursor.execute(f"SET GLOBAL sql_mode = '{before}'")


def inserted(url: str, topics: list[str]) -> list[int]:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        outbox = sa.table("outbox", *map(sa.column, ("event_name", "topic", "payload")))
        for topic in topics:
            connection.execute(outbox.insert().values(event_name="e", topic=topic, payload=b"{}"))
        ids = list(connection.execute(sa.text("SELECT id FROM outbox ORDER BY id")).scalars())
    engine.dispose()
    return ids


async def test_a_text_stays_a_text(hostile: Any) -> None:
    """
    Reasons of dead letters, topics that pause, and what operators ask for come back as they were, and select
    nothing else.
    """
    options, sync_url = hostile
    ids = inserted(sync_url, ["a", "b", "c"])
    store = open_store(options)
    letters = build_dead_letters(options)
    lease = await store.acquire("me", wake_address="", lease_seconds=15)
    assert lease is not None
    skipping = ReadPlan(after_id=0, open_ids=frozenset(), limit=9, skip_topics=frozenset(TRICKS))
    rows = await store.read(skipping)
    for row_id, text in zip(ids, TRICKS, strict=True):
        await store.mark_dead(row_id, text, lease.term)
    found = [letter.last_error for letter in await letters.read(ids)]
    chosen = [await letters.find(Selection(topics=(text,))) for text in TRICKS]
    by_key = await letters.find(Selection(keys=tuple(text.encode() for text in TRICKS)))
    await store.close()
    await letters.close()

    assert [row.id for row in rows] == ids
    assert found == TRICKS
    assert chosen == [[], [], []]
    assert by_key == []


async def test_every_connection_speaks_utf8mb4_with_backslash_escapes(hostile: Any) -> None:
    """
    Whatever URL and server ask for.
    """
    options, _ = hostile
    store: Any = open_store(options)
    asked = (
        "SELECT @@character_set_client, @@character_set_connection, "
        "INSTR(@@SESSION.sql_mode, 'NO_BACKSLASH')"
    )
    of_the_relay = (await store._leases.execute(asked)).rows[0]
    await store.close()
    engine = database_engine(options)
    async with engine.connect() as connection:
        of_commands = (await connection.exec_driver_sql(asked)).one()
    await engine.dispose()

    assert tuple(of_the_relay) == ("utf8mb4", "utf8mb4", 0)
    assert tuple(of_commands) == ("utf8mb4", "utf8mb4", 0)
