"""
A small application: it takes orders and writes each with its event, in one transaction.

Settings: DATABASE_URL (SQLAlchemy, async driver), ORDERS_PER_SECOND (5), ORDERS (0: without end).
It knows neither Kafka nor the relay; `outbox-relay migrate` has made the outbox.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from decimal import Decimal

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from outbox_relay import NotificationEvent, Outbox


class Base(DeclarativeBase):
    """The application's own tables."""


class Order(Base):
    """What a customer has ordered."""

    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    total: Mapped[Decimal]


class OrderPlaced(NotificationEvent, name="order.placed", topic="orders", key="order_id"):
    """Somebody has ordered something."""

    order_id: int
    total: Decimal


outbox = Outbox(source="/orders")


async def place_order(sessions: async_sessionmaker[AsyncSession], total: Decimal) -> int:
    """Write the order and its event: both, or neither."""
    async with sessions.begin() as session:
        order = Order(total=total)
        session.add(order)
        await session.flush()
        await outbox.add(session, OrderPlaced(order_id=order.id, total=order.total))
        return order.id


async def main() -> None:
    """Take orders until SIGTERM, or as many as ORDERS says."""
    engine = create_async_engine(os.environ["DATABASE_URL"], pool_pre_ping=True)
    sessions = async_sessionmaker(engine)
    pause = 1 / float(os.environ.get("ORDERS_PER_SECOND", "5"))
    most = int(os.environ.get("ORDERS", "0"))
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    taken = 0
    while not stop.is_set() and (most == 0 or taken < most):
        number = await place_order(sessions, Decimal(taken % 90 + 10))
        taken += 1
        sys.stdout.write(f"order {number} placed\n")
        sys.stdout.flush()
        await asyncio.sleep(pause)
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(main())
