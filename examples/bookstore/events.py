"""What the bookstore tells the world. Order holds within a book."""

from __future__ import annotations

import uuid
from typing import Final

from outbox_relay import NotificationEvent

TOPIC: Final = "bookstore"


class AuthorCreated(NotificationEvent, name="author.created", topic=TOPIC, key="author_id"):
    """The store knows a new author."""

    author_id: int
    name: str


class BookCreated(NotificationEvent, name="book.created", topic=TOPIC, key="book_id"):
    """A book is offered."""

    book_id: int
    title: str


class BookUpdated(NotificationEvent, name="book.updated", topic=TOPIC, key="book_id"):
    """A book was changed; `changed` names the fields."""

    book_id: int
    version: int
    changed: list[str]


class BookDeleted(NotificationEvent, name="book.deleted", topic=TOPIC, key="book_id"):
    """A book is offered no more."""

    book_id: int


class BookSold(NotificationEvent, name="book.sold", topic=TOPIC, key="book_id"):
    """Copies of a book were sold. Carries what an invoice needs."""

    book_id: int
    sale_id: uuid.UUID
    title: str
    copies: int
    total_cents: int
    version: int
