"""What the queries read."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from examples.bookstore.command_handlers import book_model
from examples.bookstore.commands import (
    AuthorModel,
    AuthorPage,
    BookFilters,
    BookModel,
    BookPage,
    GetAuthors,
    GetBook,
    GetBooks,
)
from examples.bookstore.errors import NotFound
from examples.bookstore.models import Author, Book
from examples.bookstore.paging import CountCache, get_paginated_results
from outbox_relay.cqrs import Event, RequestHandler, UnitOfWork


class _Query:
    """What the query handlers share."""

    def __init__(self, unit: UnitOfWork, counts: CountCache) -> None:
        self._session: AsyncSession = unit.session
        self._counts = counts

    @property
    def events(self) -> list[Event]:
        """A query causes none."""
        return []


class GetBookHandler(_Query, RequestHandler[GetBook, BookModel]):
    """One book."""

    async def handle(self, request: GetBook) -> BookModel:
        """Raises NotFound."""
        book = await self._session.get(Book, request.id)
        if book is None:
            raise NotFound(f"book {request.id} not found")
        return book_model(book)


class GetBooksHandler(_Query, RequestHandler[GetBooks, BookPage]):
    """A page of books."""

    async def handle(self, request: GetBooks) -> BookPage:
        """The books of the page, by id."""
        books, meta = await get_paginated_results(
            self._session,
            _filtered(sa.select(Book), request.filters).order_by(Book.id),
            page=request.page,
            per_page=request.per_page,
            counts=self._counts,
            filters=request.filters,
        )
        return BookPage(data=[book_model(book) for book in books], meta=meta)


class GetAuthorsHandler(_Query, RequestHandler[GetAuthors, AuthorPage]):
    """A page of authors."""

    async def handle(self, request: GetAuthors) -> AuthorPage:
        """The authors of the page, by id."""
        authors, meta = await get_paginated_results(
            self._session,
            sa.select(Author).order_by(Author.id),
            page=request.page,
            per_page=request.per_page,
            counts=self._counts,
            filters=None,
        )
        data = [AuthorModel.model_validate(author, from_attributes=True) for author in authors]
        return AuthorPage(data=data, meta=meta)


def _filtered(books: sa.Select[tuple[Book]], filters: BookFilters) -> sa.Select[tuple[Book]]:
    if filters.author_id is not None:
        books = books.where(Book.author_id == filters.author_id)
    if filters.title is not None:
        books = books.where(Book.title.icontains(filters.title, autoescape=True))
    return books
