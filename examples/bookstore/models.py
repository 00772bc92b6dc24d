"""The bookstore's own tables, beside the outbox in one database."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ForeignKey, String, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


def utc_now() -> datetime:
    """Now, in UTC; without the zone, since MariaDB and SQLite keep none."""
    return datetime.now(UTC).replace(tzinfo=None, microsecond=0)


class Base(DeclarativeBase):
    """The tables of the bookstore."""


class Author(Base):
    """Who writes books."""

    __tablename__ = "authors"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(200), unique=True)


class Book(Base):
    """The aggregate. `version` grows with each change; whoever changes a book locks its row first."""

    __tablename__ = "books"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(String(200))
    author_id: Mapped[int] = mapped_column(ForeignKey("authors.id"), index=True)
    isbn: Mapped[str | None] = mapped_column(String(14), unique=True)
    price_cents: Mapped[int]
    copies: Mapped[int]
    version: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Sale(Base):
    """Copies sold. The buyer's side chooses the id, so that a repeated request sells nothing twice."""

    __tablename__ = "sales"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    book_id: Mapped[int] = mapped_column(ForeignKey("books.id"), index=True)
    copies: Mapped[int]
    total_cents: Mapped[int]


def create_engine(url: str) -> AsyncEngine:
    """An engine for the bookstore or the invoices, on MariaDB, PostgreSQL or SQLite."""
    if not url.startswith("sqlite"):
        # What was locked is read as it is now, not as it was when the transaction began.
        return create_async_engine(url, pool_pre_ping=True, isolation_level="READ COMMITTED")
    engine = create_async_engine(url, connect_args={"timeout": 30})

    @event.listens_for(engine.sync_engine, "connect")
    def configure(connection: Any, _: object) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA foreign_keys=ON")

    return engine
