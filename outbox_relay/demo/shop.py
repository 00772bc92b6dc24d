"""
The shop: an application that uses the outbox.

Each command is handled in one transaction that changes the state and adds the event. Where the
transaction rolls back, neither the change nor the event has happened.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from sqlalchemy import ForeignKey, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from outbox_relay import NotificationEvent, Outbox

TOPIC: Final = "orders"


# -- state ------------------------------------------------------------------------------------


class Base(DeclarativeBase):
    """The shop's own tables, beside the outbox in one database."""


class Customer(Base):
    """The aggregate. `last_number` counts its events."""

    __tablename__ = "customers"

    id: Mapped[int] = mapped_column(primary_key=True)
    last_number: Mapped[int] = mapped_column(default=0)


class Order(Base):
    """
    An order, and which events told of it: the truth that the account compares deliveries with.
    """

    __tablename__ = "orders"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    customer_id: Mapped[int] = mapped_column(ForeignKey("customers.id"), index=True)
    total: Mapped[str]
    placed_number: Mapped[int]
    placed_event_id: Mapped[uuid.UUID]
    cancelled_number: Mapped[int | None]
    cancelled_event_id: Mapped[uuid.UUID | None]


# -- events -----------------------------------------------------------------------------------


class OrderPlaced(NotificationEvent, name="order.placed", topic=TOPIC, key="customer_id"):
    """A customer placed an order."""

    customer_id: int
    number: int
    order_id: uuid.UUID
    total: Decimal


class OrderCancelled(NotificationEvent, name="order.cancelled", topic=TOPIC, key="customer_id"):
    """A customer cancelled an order."""

    customer_id: int
    number: int
    order_id: uuid.UUID


# -- commands and their handlers --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PlaceOrder:
    """Place an order for a customer."""

    customer_id: int
    total: Decimal


@dataclass(frozen=True, slots=True)
class CancelOrder:
    """Cancel an order of a customer."""

    customer_id: int
    order_id: uuid.UUID


class PaymentRefused(Exception):
    """The bank said no. The transaction rolls back, and with it the event."""


outbox = Outbox(source="/shop")


async def place_order(session: AsyncSession, command: PlaceOrder) -> uuid.UUID:
    """Store the order and tell of it. The id of the order."""
    number = await next_number(session, command.customer_id)
    order_id = uuid.uuid4()
    placed = OrderPlaced(
        customer_id=command.customer_id, number=number, order_id=order_id, total=command.total
    )
    session.add(
        Order(
            id=order_id,
            customer_id=command.customer_id,
            total=str(command.total),
            placed_number=number,
            placed_event_id=placed.event_id,
        )
    )
    await outbox.add(session, placed)
    return order_id


async def cancel_order(session: AsyncSession, command: CancelOrder) -> None:
    """Mark the order as cancelled and tell of it."""
    number = await next_number(session, command.customer_id)
    order = await session.get_one(Order, command.order_id)
    cancelled = OrderCancelled(
        customer_id=command.customer_id, number=number, order_id=command.order_id
    )
    order.cancelled_number = number
    order.cancelled_event_id = cancelled.event_id
    await outbox.add(session, cancelled)


async def next_number(session: AsyncSession, customer_id: int) -> int:
    """The place of the next event of this customer."""
    # First of all, lock the aggregate. Two transactions on one customer would otherwise add their
    # events in one order and commit in the other, and no relay could know which came first.
    result = await session.execute(
        update(Customer)
        .where(Customer.id == customer_id)
        .values(last_number=Customer.last_number + 1)
        .returning(Customer.last_number)
    )
    number: int = result.scalar_one()
    return number
