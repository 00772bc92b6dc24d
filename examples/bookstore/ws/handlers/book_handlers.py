"""Packages about books."""

from __future__ import annotations

from typing import TYPE_CHECKING

from examples.bookstore.commands import (
    CreateBook,
    DeleteBook,
    GetBook,
    GetBooks,
    SellBook,
    UpdateBook,
)
from examples.bookstore.ws.constants import PkgID
from examples.bookstore.ws.frames import RequestModel, ResponseModel
from examples.bookstore.ws.router import pkg_router

if TYPE_CHECKING:
    from examples.bookstore.store import Bookstore


@pkg_router.register(PkgID.GET_BOOKS, roles=["view-books"], json_schema=GetBooks)
async def get_books_handler(request: RequestModel, bookstore: Bookstore) -> ResponseModel:
    """A page of the books that fit the filters."""
    page = await bookstore.send(GetBooks(**request.data))
    return ResponseModel.success(request.pkg_id, request.req_id, page.data, page.meta)


@pkg_router.register(PkgID.GET_BOOK, roles=["view-books"], json_schema=GetBook)
async def get_book_handler(request: RequestModel, bookstore: Bookstore) -> ResponseModel:
    """One book."""
    book = await bookstore.send(GetBook(**request.data))
    return ResponseModel.success(request.pkg_id, request.req_id, book)


@pkg_router.register(PkgID.CREATE_BOOK, roles=["create-book"], json_schema=CreateBook)
async def create_book_handler(request: RequestModel, bookstore: Bookstore) -> ResponseModel:
    """Offer a book."""
    book = await bookstore.send(CreateBook(**request.data))
    return ResponseModel.success(request.pkg_id, request.req_id, book)


@pkg_router.register(PkgID.UPDATE_BOOK, roles=["update-book"], json_schema=UpdateBook)
async def update_book_handler(request: RequestModel, bookstore: Bookstore) -> ResponseModel:
    """Change what is given and leave the rest."""
    book = await bookstore.send(UpdateBook(**request.data))
    return ResponseModel.success(request.pkg_id, request.req_id, book)


@pkg_router.register(PkgID.DELETE_BOOK, roles=["delete-book", "admin"], json_schema=DeleteBook)
async def delete_book_handler(request: RequestModel, bookstore: Bookstore) -> ResponseModel:
    """Offer a book no more."""
    await bookstore.send(DeleteBook(**request.data))
    return ResponseModel.success(request.pkg_id, request.req_id, {"message": "book deleted"})


@pkg_router.register(PkgID.SELL_BOOK, roles=["sell-book"], json_schema=SellBook)
async def sell_book_handler(request: RequestModel, bookstore: Bookstore) -> ResponseModel:
    """Sell copies of a book; the same sale again sells nothing more."""
    sale = await bookstore.send(SellBook(**request.data))
    return ResponseModel.success(request.pkg_id, request.req_id, sale)
