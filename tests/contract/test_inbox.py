"""
The inbox on each database: the effect of an event happens once, whatever is delivered when.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from outbox_relay.consumer import ConsumedRecord, Inbox
from outbox_relay.errors import AutocommitHandle
from tests.contract.billing import INVOICES, NOON, Billing, record
from tests.contract.write_side import HANDLES, settled
from tests.services.database import Database


def test_an_event_is_handled_once(billing: Billing) -> None:
    """
    The first delivery is handled, each later one is dropped and counted.
    """
    event = record()

    assert [billing.transaction(event) for _ in range(3)] == [True, False, False]
    assert billing.tags() == ["x"]
    assert billing.inbox.duplicates == 2


@pytest.mark.parametrize("kind", HANDLES)
async def test_each_handle_takes_part_in_its_own_transaction(database: Database, kind: str) -> None:
    """
    What is remembered is committed with the handler's writes, through each kind of handle.
    """
    async_engine, engine = (
        create_async_engine(database.async_url),
        sa.create_engine(database.sync_url),
    )
    inbox, event = Inbox("billing"), record()
    await inbox.create(async_engine)
    handle: Any = {
        "AsyncSession": lambda: AsyncSession(async_engine),
        "AsyncConnection": async_engine.connect,
        "Session": lambda: Session(engine),
        "Connection": engine.connect,
    }[kind]()
    if kind == "AsyncConnection":
        await handle.start()

    seen = [await settled(inbox.first_time(handle, event))]
    await settled(handle.rollback())
    seen.append(await settled(inbox.first_time(handle, event)))
    await settled(handle.commit())
    seen.append(await settled(inbox.first_time(handle, event)))
    await settled(handle.close())
    await async_engine.dispose()
    engine.dispose()

    assert seen == [True, True, False]


def test_a_handler_that_fails_is_not_remembered(billing: Billing) -> None:
    """
    After a rollback the event counts as never seen: it is delivered again, and handled.
    """
    event = record()

    def fail() -> None:
        with Session(billing.engine) as session, session.begin():
            billing.handle(session, event)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()

    assert billing.tags() == []
    assert billing.transaction(event)


def test_two_consumers_of_one_database_do_not_drop_each_others_events(billing: Billing) -> None:
    """
    The consumer's name is part of the key.
    """
    event = record()
    other = Billing(billing.database, billing.engine, Inbox("shipping"))

    assert billing.transaction(event, "billing")
    assert other.transaction(event, "shipping")
    assert billing.tags() == ["billing", "shipping"]


def levels(engine: sa.Engine) -> list[str]:
    """Isolation levels to try."""
    if engine.dialect.name == "sqlite":
        return ["SERIALIZABLE"]
    return ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]


@pytest.mark.parametrize("ends", ["commit", "rollback"])
def test_two_deliveries_at_the_same_time_have_one_effect(billing: Billing, ends: str) -> None:
    """
    The second delivery begins, and has read something, before the first one ends. At each level it
    then waits, or fails and is repeated; the effect is there once, also if the first rolls back.
    """
    for level in levels(billing.engine):
        event, tag = record(), level
        second = threading.Thread(target=repeat_until_done, args=(billing, event, tag, level))
        with ExitStack() as stack:
            first = stack.enter_context(
                billing.engine.connect().execution_options(isolation_level=level)
            )
            assert billing.handle(first, event, tag)
            second.start()
            second.join(timeout=0.3)  # it cannot end now; the time only lets it come to its wait
            assert second.is_alive()
            first.commit() if ends == "commit" else first.rollback()
        second.join()

        assert [found for found in billing.tags() if found == tag] == [tag]


def repeat_until_done(billing: Billing, event: ConsumedRecord, tag: str, level: str) -> None:
    """A consumer: whatever the database says, the event is delivered again."""
    options = {"isolation_level": level}
    while True:
        try:
            with billing.engine.connect().execution_options(**options) as connection:
                if billing.engine.dialect.name != "sqlite":
                    # A snapshot from before the first commit: the trap of REPEATABLE READ.
                    connection.execute(sa.select(sa.func.count()).select_from(INVOICES))
                billing.handle(connection, event, tag)
                connection.commit()
                return
        except sa.exc.DBAPIError:
            continue


async def test_fifty_deliveries_at_once_have_one_effect(billing: Billing) -> None:
    """
    The same event fifty times over ten connections: one row, and no transaction is left aborted.
    """
    event = record()

    def deliver() -> bool:
        while True:
            try:
                return billing.transaction(event)
            except sa.exc.DBAPIError:
                continue

    seen = await asyncio.gather(*(asyncio.to_thread(deliver) for _ in range(50)))

    assert sum(seen) == 1
    assert billing.tags() == ["x"]


def test_a_duplicate_leaves_the_transaction_usable(billing: Billing) -> None:
    """
    A dropped event is no error: other writes of the same transaction go on and are committed.
    """
    event = record()
    billing.transaction(event)
    with Session(billing.engine) as session, session.begin():
        assert not billing.inbox.first_time(session, event)
        session.execute(sa.insert(INVOICES).values(tag="after"))

    assert billing.tags() == ["x", "after"]


@pytest.mark.parametrize("concurrent", [1, 2])
def test_new_keys_at_the_same_time_do_not_block_one_another(
    billing: Billing, concurrent: int
) -> None:
    """
    Two transactions that each bring a new key: neither waits for the other (no gap is locked).
    """
    if billing.engine.dialect.name == "sqlite":
        return  # one writer at a time
    with ExitStack() as stack:
        for number in range(concurrent + 1):
            session = stack.enter_context(Session(billing.engine))
            assert billing.handle(session, record(sequence=1, at=NOON, key=b"%d" % number))


def test_old_rows_are_forgotten(billing: Billing) -> None:
    """
    The purge deletes what this consumer received longer ago, in batches, and nothing else.
    """
    old, recent = record(sequence=1, at=NOON), record(sequence=2, at=NOON, key=b"other")
    others = Billing(billing.database, billing.engine, Inbox("shipping", reject_stale=True))
    for event in (old, *(record() for _ in range(6))):
        billing.transaction(event)
        others.transaction(event)
    make_older(billing, seconds=100)
    billing.transaction(recent)

    assert billing.inbox.purge(billing.engine, older_than_seconds=50, batch_rows=3) == 8
    assert billing.inbox.purge(billing.engine, older_than_seconds=50) == 0
    assert billing.remembered() == 1 + 7
    assert not billing.transaction(recent)
    assert billing.transaction(old)


def make_older(billing: Billing, *, seconds: float) -> None:
    """As if all rows had been written earlier."""
    with billing.engine.begin() as connection:
        for table in billing.inbox.metadata.sorted_tables:
            [found] = set(connection.scalars(sa.select(sa.func.min(table.c.received_at))))
            earlier = found - timedelta(seconds=seconds)
            connection.execute(sa.update(table).values(received_at=earlier))


async def test_the_purge_runs_on_an_async_engine(database: Database) -> None:
    """
    The same from a service that is async throughout.
    """
    engine = create_async_engine(database.async_url)
    inbox = Inbox("billing")
    await inbox.create(engine)
    async with AsyncSession(engine) as session, session.begin():
        await inbox.first_time(session, record())

    assert await inbox.purge(engine, older_than_seconds=0) == 1
    await engine.dispose()


def test_an_autocommit_handle_is_refused(billing: Billing) -> None:
    """
    Without a transaction, what is remembered and the effect could part: nothing is remembered.
    """
    engine = sa.create_engine(billing.database.sync_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection, pytest.raises(AutocommitHandle, match="AUTOCOMMIT"):
        billing.inbox.first_time(connection, record())
    engine.dispose()

    assert billing.remembered() == 0


@pytest.fixture
async def async_session(database: Database) -> AsyncIterator[AsyncSession]:
    """A session of an async service."""
    engine = create_async_engine(database.async_url)
    await Inbox("billing").create(engine)
    async with AsyncSession(engine) as session:
        yield session
    await engine.dispose()


async def test_a_forgotten_await_is_an_error(async_session: AsyncSession) -> None:
    """
    `if inbox.first_time(session, record):` would be true for every duplicate.
    """
    answer = Inbox("billing").first_time(async_session, record())

    with pytest.raises(TypeError, match=r"write `await inbox\.first_time"):
        bool(answer)
    assert await answer
