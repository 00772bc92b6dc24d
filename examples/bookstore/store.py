"""The bookstore as one object: what both doors hand their commands to."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy.ext.asyncio import async_sessionmaker

from examples.bookstore.command_handlers import (
    CreateAuthorHandler,
    CreateBookHandler,
    DeleteBookHandler,
    SellBookHandler,
    UpdateBookHandler,
)
from examples.bookstore.commands import (
    CreateAuthor,
    CreateBook,
    DeleteBook,
    GetAuthors,
    GetBook,
    GetBooks,
    SellBook,
    UpdateBook,
)
from examples.bookstore.models import Base, create_engine
from examples.bookstore.news import News
from examples.bookstore.paging import CountCache
from examples.bookstore.query_handlers import GetAuthorsHandler, GetBookHandler, GetBooksHandler
from examples.bookstore.settings import Settings
from examples.bookstore.ws.connections import ConnectionManager
from outbox_relay import Outbox
from outbox_relay.cqrs import Request, RequestMap, UnitOfWorkFactory

SOURCE: Final = "/bookstore"


def commands() -> RequestMap:
    """Which handler handles which command."""
    commands = RequestMap()
    commands.bind(CreateAuthor, CreateAuthorHandler)
    commands.bind(CreateBook, CreateBookHandler)
    commands.bind(UpdateBook, UpdateBookHandler)
    commands.bind(DeleteBook, DeleteBookHandler)
    commands.bind(SellBook, SellBookHandler)
    return commands


def queries() -> RequestMap:
    """Which handler handles which query."""
    queries = RequestMap()
    queries.bind(GetAuthors, GetAuthorsHandler)
    queries.bind(GetBook, GetBookHandler)
    queries.bind(GetBooks, GetBooksHandler)
    return queries


class Bookstore:
    """
    Holds the database, the connected clients and the totals of one process.

    Make it on the loop that will serve it, and `close` it there.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.engine = create_engine(settings.database_url)
        self.connections = ConnectionManager()
        self.counts = CountCache(settings.count_seconds)
        self.news = News(self.counts, self.connections)
        sessions = async_sessionmaker(self.engine, expire_on_commit=False)
        self.units = UnitOfWorkFactory(sessions, Outbox(source=SOURCE, wake=settings.wake))
        self._commands = commands()
        self._queries = queries()

    async def send(self, request: Request) -> Any:
        """
        Handle a command or a query in a transaction of its own. Its response.

        What the handler saves and its events commit together; when it raises, neither is there.
        """
        async with self.units.begin() as unit:
            if type(request) in self._queries:
                return await self._queries.get(type(request))(unit, self.counts).handle(request)
            handler = self._commands.get(type(request))(unit, self.news)
            response = await handler.handle(request)
            if handler.events:
                await unit.add(*handler.events)
            return response

    async def create_tables(self) -> None:
        """The bookstore's own tables, where they are missing. The outbox is `outbox-relay migrate`'s."""
        async with self.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)

    async def close(self) -> None:
        """Give the connections to the database back."""
        await self.engine.dispose()
