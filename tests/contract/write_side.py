"""
The application of the write side's contract tests: four kinds of handle on each database.

A *write* is one row of ``state`` and one outboxed event with the same tag, through one handle. What
is committed is read on another connection: both tags, or neither.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from outbox_relay import NotificationEvent, Outbox
from outbox_relay.schema import tables
from tests.services.database import Database

HANDLES = ("AsyncSession", "AsyncConnection", "Session", "Connection")
DATABASES = ("mariadb", "mysql", "postgresql", "sqlite")


class Base(DeclarativeBase):
    """Maps the application's own table."""


class State(Base):
    """What the application changes together with each event."""

    __tablename__ = "state"
    id: Mapped[int] = mapped_column(primary_key=True)
    tag: Mapped[str] = mapped_column(sa.String(40))


class Changed(NotificationEvent, name="state.changed", topic="states", key="tag"):
    """Says that a row of ``state`` was written."""

    tag: str


async def settled(value: Any) -> Any:
    """*value*, awaited where it is to be awaited: sync and async handles share their methods."""
    return await value if inspect.isawaitable(value) else value


def begin_for_real(engine: sa.Engine) -> None:
    """SQLAlchemy's recipe for SQLite: without it the driver begins too late for SAVEPOINTs."""

    @event.listens_for(engine, "connect")
    def no_driver_transactions(connection: Any, record: Any) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN")


@dataclass
class App:
    """An application with one pooled connection: what a user leaves behind, the next one finds."""

    database: Database
    engine: sa.Engine
    async_engine: AsyncEngine
    observer: sa.Engine
    outbox: Outbox = field(default_factory=Outbox)

    @asynccontextmanager
    async def handle(self, kind: str) -> AsyncIterator[Any]:
        """A handle of its own connection, closed at the end."""
        handle: Any = {
            "AsyncSession": lambda: AsyncSession(self.async_engine, expire_on_commit=False),
            "AsyncConnection": self.async_engine.connect,
            "Session": lambda: Session(self.engine, expire_on_commit=False),
            "Connection": self.engine.connect,
        }[kind]()
        if isinstance(handle, AsyncConnection):
            await handle.start()
        try:
            yield handle
        finally:
            await settled(handle.close())

    async def write_state(self, handle: Any, tag: str) -> None:
        await settled(handle.execute(sa.insert(State.__table__).values(tag=tag)))

    async def write(self, handle: Any, tag: str) -> None:
        """One state change and its event."""
        await self.write_state(handle, tag)
        await settled(self.outbox.add(handle, Changed(tag=tag)))

    def forget(self, handle: Any, tag: str) -> None:
        """An add that is never awaited. Only for async handles."""
        pending: Awaitable[None] = self.outbox.add(handle, Changed(tag=tag))
        del pending

    def committed(self) -> tuple[list[str], list[str]]:
        """The committed tags: of the state, and of the events."""
        with self.observer.connect() as connection:
            states = connection.scalars(sa.select(State.tag).order_by(State.tag)).all()
            keys = connection.scalars(sa.select(self.outbox.table.c.key)).all()
        return list(states), sorted(bytes(key).decode() for key in keys)


@asynccontextmanager
async def running_app(database: Database, *, has_tables: bool = False) -> AsyncIterator[App]:
    """An `App` on *database*, with its tables."""
    pool: dict[str, Any] = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 5}
    async with AsyncExitStack() as stack:
        engine = sa.create_engine(database.sync_url, **pool)
        stack.callback(engine.dispose)
        observer = sa.create_engine(database.sync_url)
        stack.callback(observer.dispose)
        async_engine = create_async_engine(database.async_url, **pool)
        stack.push_async_callback(async_engine.dispose)
        if not has_tables:
            tables().metadata.create_all(observer)
            Base.metadata.create_all(observer)
        if database.sync_url.startswith("sqlite"):
            begin_for_real(engine)
            begin_for_real(async_engine.sync_engine)
        yield App(database, engine, async_engine, observer)


@asynccontextmanager
async def lent_app(
    kind: str, ready: dict[str, Database], new: Callable[[], Database]
) -> AsyncIterator[App]:
    """
    An `App` on the database of this kind that the test before has left, emptied; on a new one if there is none.

    To make a database with its tables takes longer than most tests.
    """
    left = ready.pop(kind, None)
    database = left if left and _emptied(left) else None
    async with running_app(database or new(), has_tables=database is not None) as app:
        yield app
        if kind != "sqlite":
            ready[kind] = app.database


def _emptied(database: Database) -> bool:
    """Whether nothing is left: not if a table is gone, or if somebody still holds a row."""
    engine = sa.create_engine(database.sync_url, poolclass=sa.NullPool)
    patience = (
        "lock_timeout = 1000" if engine.name == "postgresql" else "innodb_lock_wait_timeout = 1"
    )
    try:
        with engine.begin() as connection:
            connection.execute(sa.text(f"SET SESSION {patience}"))
            connection.execute(sa.delete(tables().outbox))
            connection.execute(sa.delete(State))
    except sa.exc.DBAPIError:
        return False
    finally:
        engine.dispose()
    return True
