"""What an invoice is, and how a sale becomes one."""

from __future__ import annotations

import sys
import uuid
from typing import Final

from sqlalchemy import String
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from outbox_relay import NotificationEvent
from outbox_relay.consumer import ConsumedRecord, Inbox

CONSUMER: Final = "invoices"


class Base(DeclarativeBase):
    """The tables of this service, in a database of its own."""


class Invoice(Base):
    """
    One sale, to be paid.

    Nothing but the inbox keeps a sale from having two: `sale_id` is not unique.
    """

    __tablename__ = "invoices"

    id: Mapped[int] = mapped_column(primary_key=True)
    sale_id: Mapped[uuid.UUID]
    text: Mapped[str] = mapped_column(String(250))
    total_cents: Mapped[int]


class BookSold(NotificationEvent, name="book.sold"):
    """Of the bookstore's event, the fields that this service needs."""

    sale_id: uuid.UUID
    title: str
    copies: int
    total_cents: int


class Invoices:
    """Handles the bookstore's events."""

    def __init__(self, sessions: async_sessionmaker[AsyncSession]) -> None:
        self._sessions = sessions
        self.inbox = Inbox(CONSUMER)

    async def book_sold(self, record: ConsumedRecord) -> None:
        """Write the invoice and remember the event, in one transaction."""
        sold = BookSold.from_record(record)
        invoice = Invoice(
            sale_id=sold.sale_id,
            text=f"{sold.copies} x {sold.title}",
            total_cents=sold.total_cents,
        )
        async with self._sessions.begin() as session:
            first = await self.inbox.first_time(session, record)
            if first:
                session.add(invoice)
                await session.flush()
                said = f"invoice {invoice.id}: {invoice.text}, {invoice.total_cents / 100:.2f}"
            else:
                said = f"sale {sold.sale_id} came again: it has its invoice"
        # Only now it is so.
        sys.stdout.write(f"{said}\n")
        sys.stdout.flush()
