"""
The inbox on each database: the effect of an event happens once, whatever is delivered when.
"""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from outbox_relay import DomainEvent, uuid7
from outbox_relay.consumer import ConsumedRecord, Delivery, Envelope, Inbox
from outbox_relay.errors import AutocommitHandle
from tests.contract.write_side import HANDLES, begin_for_real, settled
from tests.services.database import Database

METADATA = sa.MetaData()
INVOICES = sa.Table(
    "invoices",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("tag", sa.String(40), nullable=False),
)


@pytest.fixture(params=("mariadb", "mysql", "postgresql", "sqlite"))
def database(request: pytest.FixtureRequest) -> Database:
    """An empty database of each kind."""
    found: Database = request.getfixturevalue(f"{request.param}_database")
    return found


@dataclass
class Billing:
    """A consuming service: its engine, its inbox, and the table that its handler writes to."""

    database: Database
    engine: sa.Engine
    inbox: Inbox

    def handle(self, session: Any, record: ConsumedRecord, tag: str = "x") -> bool:
        if not self.inbox.first_time(session, record):
            return False
        session.execute(sa.insert(INVOICES).values(tag=tag))
        return True

    def transaction(self, record: ConsumedRecord, tag: str = "x") -> bool:
        with Session(self.engine) as session, session.begin():
            return self.handle(session, record, tag)

    def tags(self) -> list[str]:
        with self.engine.connect() as connection:
            return list(connection.scalars(sa.select(INVOICES.c.tag).order_by(INVOICES.c.id)))

    def remembered(self) -> int:
        with self.engine.connect() as connection:
            count = sa.select(sa.func.count()).select_from(self.inbox.tables.inbox)
            return connection.execute(count).scalar_one()


@pytest.fixture
def billing(database: Database) -> Iterator[Billing]:
    """The service, with its tables."""
    engine = sa.create_engine(database.sync_url)
    if engine.dialect.name == "sqlite":
        begin_for_real(engine)
    inbox = Inbox("billing", reject_stale=True)
    inbox.create(engine)
    METADATA.create_all(engine)
    yield Billing(database, engine, inbox)
    engine.dispose()


def record(
    *,
    event_id: uuid.UUID | None = None,
    sequence: int | None = None,
    at: datetime | None = None,
    key: bytes | None = b"k",
    topic: str = "orders",
    source: str = "/shop",
) -> ConsumedRecord:
    """An event as it was consumed."""
    return ConsumedRecord(
        delivery=Delivery(topic=topic, partition=0, offset=0, key=key, value=b"{}"),
        envelope=Envelope.CLOUDEVENTS_BINARY,
        event_id=event_id or uuid7(),
        event_name="order.placed",
        sequence=sequence,
        time=at,
        source=source,
        content=b"{}",
    )


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


NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def test_an_older_event_of_a_key_is_rejected(billing: Billing) -> None:
    """
    By outbox-seq, within one source, topic and key: each of the others has a latest of its own.
    """

    def comes(sequence: int, **where: Any) -> bool:
        at = NOON + timedelta(seconds=sequence)
        return billing.transaction(record(sequence=sequence, at=at, **where))

    assert [comes(5), comes(7), comes(6), comes(8)] == [True, True, False, True]
    assert [comes(1, key=b"other"), comes(1, topic="t")] == [True] * 2
    assert comes(1, source="/another")
    assert billing.inbox.stale == 1


def test_events_without_a_key_have_no_order_to_be_late_in(billing: Billing) -> None:
    """
    They are spread over the partitions, so a lower number may come later: to reject it would lose it.
    """
    seen = [billing.transaction(record(sequence=n, at=NOON, key=None)) for n in (9, 3, 5)]

    assert seen == [True] * 3
    assert billing.inbox.stale == 0


def test_where_late_events_are_rejected_the_event_alone_is_refused(billing: Billing) -> None:
    """
    It has no number: handled in silence, an older one would replace a newer one.
    """
    with Session(billing.engine) as session, pytest.raises(TypeError, match="needs the record"):
        billing.inbox.first_time(session, DomainEvent())


def test_a_rejected_event_leaves_no_trace_when_it_is_rolled_back(billing: Billing) -> None:
    """
    The latest event of a key is part of the transaction, like everything else.
    """
    with Session(billing.engine) as session:
        billing.handle(session, record(sequence=9, at=NOON))
        session.rollback()

    assert billing.transaction(record(sequence=8, at=NOON))


def test_an_outbox_that_gives_its_numbers_again_loses_no_effect(billing: Billing) -> None:
    """
    After a restore the numbers begin below; the events' times do not. They are handled, and order
    holds among them from then on.
    """
    later = NOON + timedelta(hours=1)
    assert billing.transaction(record(sequence=1000, at=NOON))
    assert billing.transaction(record(sequence=10, at=later))
    assert not billing.transaction(record(sequence=9, at=NOON))
    assert billing.transaction(record(sequence=11, at=later))


def test_an_event_without_a_number_is_never_stale(billing: Billing) -> None:
    """
    Other producers send no outbox-seq.
    """
    assert billing.transaction(record(sequence=5, at=NOON))
    assert billing.transaction(record(sequence=None))


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
