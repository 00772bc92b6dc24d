"""
The commands and queries: what HTTP takes as its body and WebSocket as its `data`.

Each is checked when it is made. A field that nobody knows is refused: it may be a misspelt one.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from examples.bookstore.paging import MetadataModel
from outbox_relay.cqrs import Request, Response

Id = Annotated[int, Field(gt=0, lt=2**31)]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
Isbn = Annotated[str, Field(pattern=r"^978-\d{10}$")]
Cents = Annotated[int, Field(ge=0, le=1_000_000)]
Copies = Annotated[int, Field(ge=0, le=1_000_000)]
Page = Annotated[int, Field(ge=1, le=1_000_000)]
PerPage = Annotated[int, Field(ge=1, le=100)]
# The databases keep no zone.
Instant = Annotated[datetime, AfterValidator(lambda moment: moment.replace(tzinfo=UTC))]

STRICT = ConfigDict(extra="forbid", frozen=True)


# -- what is answered ---------------------------------------------------------------------------


class AuthorModel(Response):
    """An author."""

    id: int
    name: str


class BookModel(Response):
    """A book. Who has read `version` may ask for an update only if it is still the same."""

    id: int
    title: str
    author_id: int
    isbn: str | None
    price_cents: int
    copies: int
    version: int
    created_at: Instant


class SaleModel(Response):
    """Copies sold."""

    id: uuid.UUID
    book_id: int
    copies: int
    total_cents: int


class BookPage(Response):
    """Some books, and where they stand among all."""

    data: list[BookModel]
    meta: MetadataModel


class AuthorPage(Response):
    """Some authors, and where they stand among all."""

    data: list[AuthorModel]
    meta: MetadataModel


# -- commands -----------------------------------------------------------------------------------


class CreateAuthor(Request):
    """Make an author known."""

    model_config = STRICT

    name: Text


class CreateBook(Request):
    """Offer a book."""

    model_config = STRICT

    title: Text
    author_id: Id
    isbn: Isbn | None = None
    price_cents: Cents = 0
    copies: Copies = 0


class BookChanges(BaseModel):
    """What may change in a book. A field that is left out stays as it is."""

    model_config = STRICT

    version: int | None = None
    title: Text | None = None
    author_id: Id | None = None
    isbn: Isbn | None = None
    price_cents: Cents | None = None
    copies: Copies | None = None

    @model_validator(mode="after")
    def _something_that_may_be_set(self) -> Self:
        changes = self.changes()
        if not changes:
            raise ValueError("nothing to change: give at least one field besides id and version")
        for name, value in changes.items():
            if value is None and name != "isbn":
                raise ValueError(f"{name} may be left out, but not be null")
        return self

    def changes(self) -> dict[str, Any]:
        """The fields that were given, with their values. An `isbn` of None takes it away."""
        given = self.model_fields_set - {"id", "version"}
        return {name: getattr(self, name) for name in sorted(given)}


class UpdateBook(BookChanges, Request):
    """
    Change what is given and leave the rest.

    With `version` only if the book still has it; without, after whatever was changed before.
    """

    id: Id


class DeleteBook(Request):
    """Offer a book no more."""

    model_config = STRICT

    id: Id


class Purchase(BaseModel):
    """What is bought."""

    model_config = STRICT

    book_id: Id
    copies: Annotated[int, Field(ge=1, le=1000)] = 1


class SellBook(Purchase, Request):
    """Sell copies of a book. Once for each `sale_id`, however often it is asked."""

    sale_id: uuid.UUID


# -- queries ------------------------------------------------------------------------------------


class GetBook(Request):
    """One book."""

    model_config = STRICT

    id: Id


class BookFilters(BaseModel):
    """Which books: all conditions together."""

    model_config = STRICT

    author_id: Id | None = None
    title: Text | None = Field(default=None, description="a part of the title")


class GetBooks(Request):
    """A page of books, by id."""

    model_config = STRICT

    page: Page = 1
    per_page: PerPage = 20
    filters: BookFilters = BookFilters()


class GetAuthors(Request):
    """A page of authors, by id."""

    model_config = STRICT

    page: Page = 1
    per_page: PerPage = 20
