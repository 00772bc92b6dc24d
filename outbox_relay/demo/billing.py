"""
The second service: books each event once, however often it is delivered, in a database of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import async_sessionmaker

from outbox_relay.consumer import Inbox
from outbox_relay.demo.traffic import create_engine

_metadata: Final = sa.MetaData()
_bookings: Final = sa.Table(
    "bookings",
    _metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("customer", sa.String(40), nullable=False),
)


class Billing:
    """A handler with an inbox: what it remembers and what it books are one transaction."""

    def __init__(self, database: Path) -> None:
        self._engine = create_engine(database)
        self._sessions = async_sessionmaker(self._engine)
        self._inbox = Inbox("billing")

    @property
    def dropped(self) -> int:
        """Deliveries that the inbox has dropped."""
        return self._inbox.duplicates

    async def open(self) -> None:
        """Make the tables."""
        await self._inbox.create(self._engine)
        async with self._engine.begin() as connection:
            await connection.run_sync(_metadata.create_all)

    async def handle(self, records: Sequence[Any]) -> None:
        """Book those of *records* that are new."""
        async with self._sessions.begin() as session:
            for record in records:
                if await self._inbox.first_time(session, record):
                    await session.execute(sa.insert(_bookings).values(customer=record.key.decode()))

    async def bookings(self) -> int:
        """How many there are."""
        async with self._engine.connect() as connection:
            return (await connection.execute(sa.select(sa.func.count(_bookings.c.id)))).scalar_one()

    async def close(self) -> None:
        """Let go of the database."""
        await self._engine.dispose()
