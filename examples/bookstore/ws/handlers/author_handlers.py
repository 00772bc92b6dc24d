"""Packages about authors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from examples.bookstore.commands import CreateAuthor, GetAuthors
from examples.bookstore.ws.constants import PkgID
from examples.bookstore.ws.frames import RequestModel, ResponseModel
from examples.bookstore.ws.router import pkg_router

if TYPE_CHECKING:
    from examples.bookstore.store import Bookstore


@pkg_router.register(PkgID.GET_AUTHORS)
async def get_authors_handler(request: RequestModel, bookstore: Bookstore) -> ResponseModel:
    """The first authors, for anybody."""
    page = await bookstore.send(GetAuthors(per_page=100))
    return ResponseModel.success(request.pkg_id, request.req_id, page.data)


@pkg_router.register(PkgID.GET_PAGINATED_AUTHORS, json_schema=GetAuthors)
async def get_paginated_authors_handler(
    request: RequestModel, bookstore: Bookstore
) -> ResponseModel:
    """A page of authors, for anybody."""
    page = await bookstore.send(GetAuthors(**request.data))
    return ResponseModel.success(request.pkg_id, request.req_id, page.data, page.meta)


@pkg_router.register(PkgID.CREATE_AUTHOR, roles=["create-author"], json_schema=CreateAuthor)
async def create_author_handler(request: RequestModel, bookstore: Bookstore) -> ResponseModel:
    """Make an author known."""
    author = await bookstore.send(CreateAuthor(**request.data))
    return ResponseModel.success(request.pkg_id, request.req_id, author)
