"""
A service that consumes events, on each database.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from outbox_relay import uuid7
from outbox_relay.consumer import ConsumedRecord, Delivery, Envelope, Inbox
from tests.contract.write_side import begin_for_real
from tests.services.database import Database

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
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
