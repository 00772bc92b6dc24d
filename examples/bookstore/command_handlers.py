"""
What the commands do: state and events in one transaction, news only after its commit.
"""

from __future__ import annotations

from functools import partial

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from examples.bookstore.commands import (
    AuthorModel,
    BookModel,
    CreateAuthor,
    CreateBook,
    DeleteBook,
    SaleModel,
    SellBook,
    UpdateBook,
)
from examples.bookstore.errors import Conflict, NotFound
from examples.bookstore.events import (
    AuthorCreated,
    BookCreated,
    BookDeleted,
    BookSold,
    BookUpdated,
)
from examples.bookstore.models import Author, Book, Sale
from examples.bookstore.news import News
from outbox_relay.cqrs import Event, RequestHandler, UnitOfWork


class _Handler:
    """What the handlers share: one unit of work each, and the events that go with it."""

    def __init__(self, unit: UnitOfWork, news: News) -> None:
        self._unit = unit
        self._session: AsyncSession = unit.session
        self._news = news
        self._events: list[Event] = []

    @property
    def events(self) -> list[Event]:
        """The events of this request; they commit with what the handler saves."""
        return self._events


class CreateAuthorHandler(_Handler, RequestHandler[CreateAuthor, AuthorModel]):
    """A second author of one name is refused by the database."""

    async def handle(self, request: CreateAuthor) -> AuthorModel:
        """The new author."""
        author = Author(name=request.name)
        self._session.add(author)
        await self._session.flush()
        self._events.append(AuthorCreated(author_id=author.id, name=author.name))
        self._unit.after_commit(self._news.author_created)
        return AuthorModel(id=author.id, name=author.name)


class CreateBookHandler(_Handler, RequestHandler[CreateBook, BookModel]):
    """An unknown author and a second book of one ISBN are refused by the database."""

    async def handle(self, request: CreateBook) -> BookModel:
        """The new book."""
        book = Book(**request.model_dump())
        self._session.add(book)
        await self._session.flush()
        self._events.append(BookCreated(book_id=book.id, title=book.title))
        self._unit.after_commit(partial(self._news.book_created, book.id, book.title))
        return book_model(book)


class UpdateBookHandler(_Handler, RequestHandler[UpdateBook, BookModel]):
    """Two updates of one book come one after the other, and each sees what the first has done."""

    async def handle(self, request: UpdateBook) -> BookModel:
        """The book as it is now."""
        book = await lock_book(self._session, request.id)
        if request.version is not None and request.version != book.version - 1:
            raise Conflict(
                f"book {book.id} has changed: its version is {book.version - 1}, "
                f"not {request.version}; read it again"
            )
        changes = request.changes()
        for name, value in changes.items():
            setattr(book, name, value)
        await self._session.flush()
        self._events.append(
            BookUpdated(book_id=book.id, version=book.version, changed=list(changes))
        )
        # A filter may count other books now.
        self._unit.after_commit(partial(self._news.book_updated, book.id, book.title))
        return book_model(book)


class DeleteBookHandler(_Handler, RequestHandler[DeleteBook, None]):
    """A book that was sold stays: the database refuses."""

    async def handle(self, request: DeleteBook) -> None:
        """It is gone."""
        book = await lock_book(self._session, request.id)
        await self._session.delete(book)
        await self._session.flush()
        self._events.append(BookDeleted(book_id=request.id))
        self._unit.after_commit(partial(self._news.book_deleted, request.id))


class SellBookHandler(_Handler, RequestHandler[SellBook, SaleModel]):
    """The row of the book is locked first, so no copy is sold twice."""

    async def handle(self, request: SellBook) -> SaleModel:
        """The sale: of now, or of an earlier request with this `sale_id`."""
        book = await lock_book(self._session, request.book_id)
        sale = await self._session.get(Sale, request.sale_id)
        if sale is not None:
            return self._repeated(request, sale, book)
        if book.copies < request.copies:
            raise Conflict(f"book {book.id} has {book.copies} copies left")
        book.copies -= request.copies
        total = request.copies * book.price_cents
        sale = Sale(id=request.sale_id, book_id=book.id, copies=request.copies, total_cents=total)
        self._session.add(sale)
        await self._session.flush()
        self._events.append(
            BookSold(
                book_id=book.id,
                sale_id=sale.id,
                title=book.title,
                copies=sale.copies,
                total_cents=total,
                version=book.version,
            )
        )
        self._unit.after_commit(partial(self._news.book_updated, book.id, book.title))
        return sale_model(sale)

    def _repeated(self, request: SellBook, sale: Sale, book: Book) -> SaleModel:
        if (sale.book_id, sale.copies) != (request.book_id, request.copies):
            raise Conflict(f"sale {sale.id} was made with other data")
        book.version -= 1  # nothing has changed
        return sale_model(sale)


async def lock_book(session: AsyncSession, book_id: int) -> Book:
    """
    The book, which nobody else changes until this transaction ends; its `version` is the next one.

    Raises NotFound.
    """
    # Writing first takes the lock on every database, SQLite too. To read first and then write would
    # overwrite what another transaction has committed in between.
    await session.execute(
        sa.update(Book).where(Book.id == book_id).values(version=Book.version + 1)
    )
    book = await session.get(Book, book_id, populate_existing=True)
    if book is None:
        raise NotFound(f"book {book_id} not found")
    return book


def book_model(book: Book) -> BookModel:
    """The book as it is answered."""
    return BookModel.model_validate(book, from_attributes=True)


def sale_model(sale: Sale) -> SaleModel:
    """The sale as it is answered."""
    return SaleModel.model_validate(sale, from_attributes=True)
