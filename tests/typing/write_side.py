"""
The user's view of the write side. Never run: mypy reads it, and each ignore must be needed.
"""

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import assert_type

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session
from sqlalchemy.sql.dml import Insert

from outbox_relay import NotificationEvent, Outbox, ZlibCompressor


class OrderPlaced(NotificationEvent, name="order.placed", topic="orders", key="order_id"):
    order_id: int


@dataclass
class Point:
    x: int


outbox = Outbox(source="/shop", compressor=ZlibCompressor(level=9), headers={"team": "shop"})
event = OrderPlaced(order_id=1)


def sync_handles(
    session: Session, connection: sa.Connection, scoped: scoped_session[Session]
) -> None:
    outbox.add(session, event, event)
    outbox.add(connection, {"a": 1}, name="n", topic="t", key=None)
    outbox.add(scoped, Point(1), "text", b"bytes", [1], name="n", topic="t", key=b"k")
    outbox.add(session, None, name="n", topic="t", key=7)
    outbox.add(session, event, key=1.5)  # type: ignore[call-overload]
    outbox.add(session, 1.5)  # type: ignore[call-overload]


async def async_handles(
    session: AsyncSession, connection: AsyncConnection, scoped: async_scoped_session[AsyncSession]
) -> None:
    assert_type(outbox.add(session, event), Awaitable[None])
    await outbox.add(session, event)
    await outbox.add(connection, event, topic="other")
    await outbox.add(scoped, event, headers={"a": "b"})


def wrong_handles(engine: sa.Engine, async_engine: AsyncEngine) -> None:
    outbox.add(engine, event)  # type: ignore[call-overload]
    outbox.add(async_engine, event)  # type: ignore[call-overload]


def statements(connection: sa.Connection) -> None:
    assert_type(outbox.insert(event), Insert)
    connection.execute(outbox.insert(event, event))
