"""
What `outbox-relay migrate` leaves on PostgreSQL, and what it takes to be behind a pooler.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from outbox_relay.errors import StoreUnavailable
from outbox_relay.migrate import migrate
from outbox_relay.relay.ports import ReadPlan
from outbox_relay.schema import LANES, tables
from outbox_relay.store import DatabaseOptions, open_store, postgresql
from tests.services.database import Database

STATEMENT_CACHE = (
    "statement_cache_size",
    "prepared_statement_cache_size",
    "prepared_statement_name_func",
)


@pytest.fixture
def engine(postgresql_database: Database) -> Iterator[sa.Engine]:
    """Over tables that `migrate` has made."""
    migrate(DatabaseOptions(url=postgresql_database.async_url))
    made = sa.create_engine(postgresql_database.sync_url, poolclass=sa.NullPool)
    yield made
    made.dispose()


def test_the_table_is_cleared_away_after_a_small_share_of_its_growth(engine: sa.Engine) -> None:
    """
    I10. PostgreSQL's own settings come after a fifth of the table: the index of pending rows would be
    full of produced ones until then. Payloads are not compressed once more.
    """
    sql = "SELECT unnest(reloptions) FROM pg_class WHERE oid = 'outbox'::regclass ORDER BY 1"
    storage = (
        "SELECT attstorage::text FROM pg_attribute "
        "WHERE attrelid = 'outbox'::regclass AND attname = 'payload'"
    )
    with engine.connect() as connection:
        found = connection.exec_driver_sql(sql).scalars().all()
        how = connection.exec_driver_sql(storage).scalar_one()

    assert found == [
        "autovacuum_analyze_scale_factor=0.02",
        "autovacuum_vacuum_cost_delay=0",
        "autovacuum_vacuum_insert_scale_factor=0.02",
        "autovacuum_vacuum_scale_factor=0.01",
        "autovacuum_vacuum_threshold=10000",
    ]
    assert how == "e"


def test_the_lane_follows_from_the_key(engine: sa.Engine) -> None:
    """
    The first byte of SHA-256 of the key, or of the event's id without one: of 64 lanes. Generated, so
    that no writer can get it wrong.
    """
    outbox = tables().outbox
    rows: list[dict[str, Any]] = [
        {"key": key, "event_id": uuid.UUID(int=number), "payload": b""}
        for number, key in enumerate(
            [b"", b"\x00\xff", None, None, *(b"%d" % n for n in range(200))]
        )
    ]
    with engine.begin() as connection:
        connection.execute(outbox.insert().values(event_name="e", topic="t"), rows)
    with engine.connect() as connection:
        found = list(connection.execute(sa.select(outbox.c.lane).order_by(outbox.c.id)).scalars())
    expected = [
        hashlib.sha256(row["event_id"].bytes if row["key"] is None else row["key"]).digest()[0] & 63
        for row in rows
    ]

    assert found == expected
    assert len(set(found)) > LANES * 0.9
    with engine.begin() as connection, pytest.raises(sa.exc.DBAPIError, match="generated"):
        connection.exec_driver_sql(
            "INSERT INTO outbox (event_name, topic, payload, lane) VALUES ('e', 't', '', 1)"
        )


async def work_a_little(store: Any, engine: sa.Engine) -> None:
    """What a relay does, on several connections in turn."""
    lease = await store.acquire("relay", wake_address="", lease_seconds=15)
    for _ in range(20):
        with engine.begin() as connection:
            connection.exec_driver_sql(
                "INSERT INTO outbox (event_name, topic, payload) VALUES ('e', 't', '')"
            )
        plan = ReadPlan(after_id=0, open_ids=frozenset(), limit=10)
        ids = [row.id for row in await store.read(plan)]
        await store.mark_produced(ids, lease.term)
        await store.max_id()


async def test_without_its_settings_for_statements_it_fails_behind_a_pooler(
    pgbouncer: Any,
    postgresql_database: Database,
    engine: sa.Engine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    A statement that is prepared under a name is unknown to the next transaction's server connection, or
    is somebody else's. Nothing is prepared under a name: the same work goes on.
    """
    url = pgbouncer.database(postgresql_database).async_url
    options = DatabaseOptions(url=url, transaction_pooler=True)
    ours = open_store(options)
    await work_a_little(ours, engine)
    await ours.close()

    original = postgresql.asyncpg_arguments

    def without(of: DatabaseOptions) -> dict[str, Any]:
        return {name: value for name, value in original(of).items() if name not in STATEMENT_CACHE}

    monkeypatch.setattr(postgresql, "asyncpg_arguments", without)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE outbox_lease SET expires_at = '1999-01-01 00:00:00+00'")
    theirs = open_store(options)
    with pytest.raises(StoreUnavailable, match="prepared statement"):
        await work_a_little(theirs, engine)
    await theirs.close()
