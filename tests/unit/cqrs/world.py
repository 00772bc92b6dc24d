"""An application in small: accounts in SQLite, the outbox beside them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import outbox_relay.cqrs as cqrs
from outbox_relay import NotificationEvent, Outbox
from outbox_relay.schema import tables


class Base(DeclarativeBase):
    pass


class Account(Base):
    __tablename__ = "accounts"
    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str]


class AccountOpened(NotificationEvent, name="account.opened", topic="accounts", key="owner"):
    owner: str


class OwnerSeen(cqrs.DomainEvent):
    owner: str


class OpenAccount(cqrs.Request):
    owner: str


@dataclass(frozen=True)
class World:
    """A database, and what is committed in it."""

    engine: AsyncEngine
    units: cqrs.UnitOfWorkFactory

    async def owners(self) -> list[str]:
        """Whose accounts are committed."""
        async with self.engine.connect() as connection:
            return list(await connection.scalars(sa.select(Account.owner).order_by(Account.id)))

    async def events(self) -> list[tuple[str, bytes | None]]:
        """Name and key of each event that is committed, in their order."""
        table = self.units.outbox.table
        query = sa.select(table.c.event_name, table.c.key).order_by(table.c.id)
        async with self.engine.connect() as connection:
            return [tuple(row) for row in await connection.execute(query)]

    async def state(self) -> tuple[list[str], list[str]]:
        """Owners and the names of the events."""
        return await self.owners(), [name for name, _ in await self.events()]


@asynccontextmanager
async def world(url: str, outbox: Outbox | None = None) -> AsyncIterator[World]:
    """A new database at *url*."""
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        await connection.run_sync(tables().metadata.create_all)
    sessions = async_sessionmaker(engine, class_=AsyncSession, expire_on_commit=False)
    try:
        yield World(engine, cqrs.UnitOfWorkFactory(sessions, outbox))
    finally:
        await engine.dispose()
