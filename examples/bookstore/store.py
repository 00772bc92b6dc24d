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
from outbox_relay.cqrs import PlainContainer, Request, RequestMap, UnitOfWorkFactory
from outbox_relay.cqrs.requests.bootstrap import bootstrap

SOURCE: Final = "/bookstore"


def map_commands(commands: RequestMap) -> None:
    """Which handler handles which command."""
    commands.bind(CreateAuthor, CreateAuthorHandler)
    commands.bind(CreateBook, CreateBookHandler)
    commands.bind(UpdateBook, UpdateBookHandler)
    commands.bind(DeleteBook, DeleteBookHandler)
    commands.bind(SellBook, SellBookHandler)


def map_queries(queries: RequestMap) -> None:
    """Which handler handles which query."""
    queries.bind(GetAuthors, GetAuthorsHandler)
    queries.bind(GetBook, GetBookHandler)
    queries.bind(GetBooks, GetBooksHandler)


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
        sessions = async_sessionmaker(self.engine, expire_on_commit=False)
        container = PlainContainer()
        container.bind(CountCache, self.counts)
        container.bind(News, News(self.counts, self.connections))
        self.mediator = bootstrap(
            container,
            commands_mapper=map_commands,
            queries_mapper=map_queries,
            unit_of_work=UnitOfWorkFactory(sessions, Outbox(source=SOURCE, wake=settings.wake)),
        )

    async def send(self, request: Request) -> Any:
        """
        Handle a command or a query in a transaction of its own. Its response.

        What the handler saves and its events commit together; when it raises, neither is there.
        """
        return await self.mediator.send(request)

    async def create_tables(self) -> None:
        """The bookstore's own tables, where they are missing. The outbox is `outbox-relay migrate`'s."""
        async with self.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)

    async def close(self) -> None:
        """Give the connections to the database back."""
        await self.engine.dispose()
