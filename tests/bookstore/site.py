"""
The bookstore behind a real server, with real clients: everything in the loop of one test.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import sqlalchemy as sa
import websockets
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.util import await_only
from websockets.asyncio.client import ClientConnection

from examples.bookstore.app import create_app
from examples.bookstore.auth import issue
from examples.bookstore.settings import Settings
from examples.bookstore.store import Bookstore
from examples.bookstore.web import build_server
from examples.bookstore.ws.constants import PkgID
from outbox_relay.schema import tables

SECRET = "a secret that only these tests know"
NOBODY = "00000000-0000-0000-0000-000000000000"
ALL_ROLES = (
    "admin",
    "create-author",
    "create-book",
    "delete-book",
    "sell-book",
    "update-book",
    "view-books",
)


@dataclass(frozen=True, slots=True)
class Site:
    """A server on a port of its own, and the bookstore in it."""

    bookstore: Bookstore
    port: int

    def http(self, *roles: str) -> httpx.AsyncClient:
        """A client with *roles*; without any, with all."""
        return httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.port}", headers=authorization(*roles), timeout=30
        )

    def connect(self, *roles: str, **options: Any) -> websockets.connect:
        """A WebSocket with *roles*; without any, with all."""
        return websockets.connect(
            f"ws://127.0.0.1:{self.port}/ws",
            **{"additional_headers": authorization(*roles), **options},
        )

    async def outboxed(self) -> list[str]:
        """The names of all events in the outbox, in their order."""
        outbox = tables().outbox
        async with self.bookstore.engine.connect() as connection:
            rows = await connection.execute(sa.select(outbox.c.event_name).order_by(outbox.c.id))
            return list(rows.scalars())

    async def rows(self, statement: str) -> list[tuple[Any, ...]]:
        """What the database says."""
        async with self.bookstore.engine.connect() as connection:
            return [tuple(row) for row in await connection.execute(sa.text(statement))]


def authorization(*roles: str) -> dict[str, str]:
    """The header of a caller with *roles*; without any, with all."""
    return {"authorization": f"Bearer {issue(SECRET, *(roles or ALL_ROLES))}"}


@asynccontextmanager
async def running(url: str, **settings: Any) -> AsyncIterator[Site]:
    """The bookstore on the database at *url*, which is empty."""
    app = create_app(Settings(database_url=url, jwt_secret=SECRET, **settings))
    server = build_server(app, port=0)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.001)
        if serving.done():
            serving.result()
    bookstore: Bookstore = app.state.bookstore
    try:
        async with bookstore.engine.begin() as connection:
            await make_outbox(connection)
        [listener] = server.servers[0].sockets
        yield Site(bookstore, listener.getsockname()[1])
    finally:
        server.should_exit = True
        await serving


async def make_outbox(connection: AsyncConnection) -> None:
    """The outbox' tables, as `outbox-relay migrate` makes them."""
    await connection.run_sync(tables().metadata.create_all)


def frame(pkg_id: int, data: dict[str, Any] | None = None, *, req_id: str | None = None) -> str:
    """A request as a client sends it."""
    return json.dumps({"pkg_id": pkg_id, "req_id": req_id or str(uuid.uuid4()), "data": data or {}})


async def ask(
    socket: ClientConnection, pkg_id: PkgID, data: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The answer to a request; broadcasts that come before it are left out."""
    req_id = str(uuid.uuid4())
    await socket.send(frame(pkg_id, data, req_id=req_id))
    while True:
        answer = await receive(socket)
        if answer["req_id"] == req_id:
            return answer


async def receive(socket: ClientConnection) -> dict[str, Any]:
    """The next frame."""
    answer: dict[str, Any] = json.loads(await asyncio.wait_for(socket.recv(), 30))
    return answer


async def nothing_more(socket: ClientConnection) -> bool:
    """Whether no frame is on its way: an answer that is asked for now comes first."""
    req_id = str(uuid.uuid4())
    await socket.send(frame(PkgID.GET_AUTHORS, req_id=req_id))
    return (await receive(socket))["req_id"] == req_id


async def make_book(site: Site, **fields: Any) -> dict[str, Any]:
    """A book, and its author if there is none."""
    async with site.http() as client:
        if not (await client.get("/authors")).json()["data"]:
            await client.post("/authors", json={"name": "Octavia Butler"})
        book = {"title": "Kindred", "author_id": 1, "price_cents": 990, "copies": 10, **fields}
        answer = await client.post("/books", json=book)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


class HeldCommit:
    """The next COMMIT waits here, just before the database gets it."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.go = asyncio.Event()
        self.fails = False


@asynccontextmanager
async def held_commit(site: Site) -> AsyncIterator[HeldCommit]:
    """Hold the next COMMIT back; nothing else waits."""
    dialect = site.bookstore.engine.sync_engine.dialect
    commit: Callable[[Any], None] = dialect.do_commit
    held = HeldCommit()

    def do_commit(connection: Any) -> None:
        if not held.reached.is_set():
            held.reached.set()
            await_only(held.go.wait())
            if held.fails:
                raise dialect.loaded_dbapi.OperationalError(2013, "no answer to COMMIT")
        commit(connection)

    dialect.do_commit = do_commit  # type: ignore[method-assign]
    try:
        yield held
    finally:
        held.go.set()
        dialect.do_commit = commit  # type: ignore[method-assign]
