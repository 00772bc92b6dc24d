"""
The web application: both doors over one bookstore.

    uvicorn --factory examples.bookstore.app:create_app
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError

from examples.bookstore import http
from examples.bookstore.errors import BookstoreError, answer_to
from examples.bookstore.settings import Settings
from examples.bookstore.store import Bookstore
from examples.bookstore.ws import endpoint
from examples.bookstore.ws.router import load_handlers


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application; its settings come from the environment if none are given."""
    said = Settings.from_environment() if settings is None else settings
    # A handler that is not one shall stop the start, not the first client.
    packages = load_handlers()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        bookstore = Bookstore(said)
        app.state.bookstore = bookstore
        app.state.packages = packages
        await bookstore.create_tables()
        try:
            yield
        finally:
            await bookstore.close()

    app = FastAPI(title="Bookstore", lifespan=lifespan)
    app.include_router(http.router)
    app.include_router(endpoint.router)
    for kind in (BookstoreError, RequestValidationError, SQLAlchemyError):
        app.add_exception_handler(kind, _refuse)
    return app


async def _refuse(_: Request, error: Exception) -> JSONResponse:
    answer = answer_to(error)
    headers = {"www-authenticate": "Bearer"} if answer.http_status == 401 else None
    return JSONResponse({"msg": answer.msg}, status_code=answer.http_status, headers=headers)
