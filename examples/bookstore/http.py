"""The HTTP door."""

from __future__ import annotations

import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request

from examples.bookstore.auth import Identity, bearer, identify
from examples.bookstore.commands import (
    AuthorModel,
    AuthorPage,
    BookChanges,
    BookFilters,
    BookModel,
    BookPage,
    CreateAuthor,
    CreateBook,
    DeleteBook,
    GetAuthors,
    GetBook,
    GetBooks,
    Id,
    Page,
    PerPage,
    Purchase,
    SaleModel,
    SellBook,
    Text,
    UpdateBook,
)
from examples.bookstore.errors import Unauthenticated
from examples.bookstore.store import Bookstore

router = APIRouter()


async def bookstore_of(request: Request) -> Bookstore:
    """The bookstore that this application serves."""
    bookstore: Bookstore = request.app.state.bookstore
    return bookstore


Store = Annotated[Bookstore, Depends(bookstore_of)]


def requires(*roles: str) -> Any:
    """A dependency: the caller, who has every one of *roles*."""

    async def caller(request: Request, bookstore: Store) -> Identity:
        token = bearer(request.headers.get("authorization"))
        if token is None:
            raise Unauthenticated("a token is needed: Authorization: Bearer TOKEN")
        identity = identify(token, bookstore.settings.jwt_secret)
        identity.require(roles)
        return identity

    caller.__name__ = f"requires {', '.join(roles)}"
    return Depends(caller)


@router.get("/livez")
async def livez() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/authors")
async def get_authors(bookstore: Store, page: Page = 1, per_page: PerPage = 20) -> AuthorPage:
    """A page of authors. For anybody."""
    return await bookstore.send(GetAuthors(page=page, per_page=per_page))


@router.post("/authors", status_code=201, dependencies=[requires("create-author")])
async def create_author(bookstore: Store, command: CreateAuthor) -> AuthorModel:
    """Make an author known."""
    return await bookstore.send(command)


@router.get("/books", dependencies=[requires("view-books")])
async def get_books(
    bookstore: Store,
    page: Page = 1,
    per_page: PerPage = 20,
    author_id: Annotated[Id | None, Query()] = None,
    title: Annotated[Text | None, Query()] = None,
) -> BookPage:
    """A page of books; with *title* those that have it in theirs."""
    filters = BookFilters(author_id=author_id, title=title)
    return await bookstore.send(GetBooks(page=page, per_page=per_page, filters=filters))


@router.post("/books", status_code=201, dependencies=[requires("create-book")])
async def create_book(bookstore: Store, command: CreateBook) -> BookModel:
    """Offer a book."""
    return await bookstore.send(command)


@router.get("/books/{book_id}", dependencies=[requires("view-books")])
async def get_book(bookstore: Store, book_id: Id) -> BookModel:
    """One book."""
    return await bookstore.send(GetBook(id=book_id))


@router.patch("/books/{book_id}", dependencies=[requires("update-book")])
async def update_book(bookstore: Store, book_id: Id, changes: BookChanges) -> BookModel:
    """Change what is given and leave the rest."""
    given = changes.model_dump(exclude_unset=True)
    return await bookstore.send(UpdateBook(id=book_id, **given))


@router.delete("/books/{book_id}", status_code=204, dependencies=[requires("delete-book", "admin")])
async def delete_book(bookstore: Store, book_id: Id) -> None:
    """Offer a book no more."""
    await bookstore.send(DeleteBook(id=book_id))


@router.put("/sales/{sale_id}", dependencies=[requires("sell-book")])
async def sell_book(bookstore: Store, sale_id: uuid.UUID, purchase: Purchase) -> SaleModel:
    """Sell copies of a book; the same request again sells nothing more."""
    return await bookstore.send(SellBook(sale_id=sale_id, **purchase.model_dump()))
