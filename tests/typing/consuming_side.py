"""What a type checker sees of the consuming side. Run by mypy, not by pytest."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import assert_type

from sqlalchemy.engine import Connection, Engine
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from outbox_relay import ConsumedRecord, EventConsumer, Inbox, NotificationEvent
from outbox_relay.consumer import AmqpSource, KafkaSource, Retries


class OrderPlaced(NotificationEvent, name="order.placed", topic="orders", key="order_id"):
    """An event."""

    order_id: int


async def handle(record: ConsumedRecord) -> None:
    """A handler."""
    assert_type(OrderPlaced.from_record(record), OrderPlaced)


def sync_handles(inbox: Inbox, session: Session, connection: Connection, engine: Engine) -> None:
    """Sync handles give the answer."""
    assert_type(inbox.first_time(session, object()), bool)
    assert_type(inbox.first_time(connection, OrderPlaced(order_id=1), event_id="7"), bool)
    assert_type(inbox.purge(engine, older_than_seconds=1), int)


async def async_handles(
    inbox: Inbox, session: AsyncSession, connection: AsyncConnection, engine: AsyncEngine
) -> None:
    """Async handles give it when they are awaited."""
    assert_type(inbox.first_time(session, object()), Awaitable[bool])
    assert_type(await inbox.first_time(connection, object()), bool)
    assert_type(await inbox.purge(engine, older_than_seconds=1), int)


async def consumers(kafka: KafkaSource, amqp: AmqpSource) -> None:
    """One handler, handlers by name, or a mediator."""
    await EventConsumer(kafka, handle, retries=Retries(attempts=3)).run()
    await EventConsumer(amqp, {"order.placed": handle}).run(handle_signals=False)
