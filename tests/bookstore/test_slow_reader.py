"""
A client that does not read: its frames wait in a bounded queue, and then it is dropped.
"""

from __future__ import annotations

import asyncio
import json
import socket
from dataclasses import replace
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from examples.bookstore.store import Bookstore
from examples.bookstore.ws.constants import PkgID
from examples.bookstore.ws.frames import RequestModel, ResponseModel
from examples.bookstore.ws.router import load_handlers
from tests.bookstore.site import Site, ask, frame, make_book, receive, running
from tests.services.database import Database

LARGE = ResponseModel.broadcast(PkgID.BOOK_UPDATED, {"title": "x" * 500_000})
"""Fills the buffers of both kernels with a few frames."""


async def unread(site: Site) -> Any:
    """A connection whose client reads nothing until told to; its kernel takes little."""
    small = socket.socket()
    small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    small.connect(("127.0.0.1", site.port))
    client = await site.connect(sock=small, max_queue=1, max_size=None)
    await ask(client, PkgID.GET_AUTHORS)
    client.transport.pause_reading()
    return client


async def until_dropped(site: Site, frames: int) -> None:
    """Broadcast so many large frames, and let the server send what it can of each."""
    for _ in range(frames):
        site.bookstore.connections.broadcast(LARGE)
        await asyncio.sleep(0.005)


async def test_a_broadcast_drops_who_does_not_read_and_waits_for_nobody(
    sqlite_database: Database,
) -> None:
    """
    The others go on at once. Who reads again in time learns why it was closed.
    """
    async with running(sqlite_database.async_url, queue_frames=4) as site:
        slow = await unread(site)
        async with site.connect(max_size=None) as reader:
            reading = asyncio.create_task(_count(reader, 40))
            await until_dropped(site, 40)
            heard = await asyncio.wait_for(reading, 30)
            book = await make_book(site)
            slow.transport.resume_reading()
            taken, closed = await _until_closed(slow)

    assert heard == 40
    assert book["id"] == 1
    assert closed.rcvd is not None
    assert (closed.rcvd.code, closed.rcvd.reason) == (1013, "slow reader: 4 frames wait")
    assert taken < 40


async def test_who_never_reads_again_is_forgotten(sqlite_database: Database) -> None:
    """
    The last word waits for `send_seconds` and no longer.
    """
    async with running(sqlite_database.async_url, queue_frames=4, send_seconds=0.2) as site:
        slow = await unread(site)
        await until_dropped(site, 40)
        while len(site.bookstore.connections):
            await asyncio.sleep(0.01)
        slow.transport.abort()


async def test_one_frame_that_nobody_takes_is_enough(sqlite_database: Database) -> None:
    """
    The queue has room, but the reader takes nothing for `send_seconds`.
    """
    async with running(sqlite_database.async_url, send_seconds=0.2) as site:
        slow = await unread(site)
        await until_dropped(site, 30)
        while len(site.bookstore.connections):
            await asyncio.sleep(0.01)
        slow.transport.abort()


async def test_who_does_not_read_answers_is_not_read_either(
    sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Requests pile up at the client, not here: none is refused, and each is answered at last.
    """
    handled = []

    async def large_answer(request: RequestModel, _: Bookstore) -> ResponseModel:
        handled.append(request.req_id)
        return ResponseModel.success(request.pkg_id, request.req_id, "x" * 500_000)

    package = next(load_handlers().registrations())
    monkeypatch.setitem(load_handlers()._registrations, 99, replace(package, handler=large_answer))
    async with running(sqlite_database.async_url, queue_frames=2) as site:
        slow = await unread(site)
        requests = [frame(99) for _ in range(60)]
        for request in requests:
            await slow.send(request)
        [connection] = site.bookstore.connections._connections
        while not connection._queue.full():
            await asyncio.sleep(0.001)
        before = len(handled)
        slow.transport.resume_reading()
        answers = [await receive(slow) for _ in requests]
        await slow.close()

    assert before < len(requests)
    assert [answer["req_id"] for answer in answers] == [
        json.loads(request)["req_id"] for request in requests
    ]


async def test_who_is_gone_while_answers_wait_is_forgotten(
    sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The next answer finds no room, and nobody will ever make any: it is not waited for.
    """

    async def large_answer(request: RequestModel, _: Bookstore) -> ResponseModel:
        return ResponseModel.success(request.pkg_id, request.req_id, "x" * 500_000)

    package = next(load_handlers().registrations())
    monkeypatch.setitem(load_handlers()._registrations, 99, replace(package, handler=large_answer))
    async with running(sqlite_database.async_url, queue_frames=2) as site:
        gone = await unread(site)
        for _ in range(60):
            await gone.send(frame(99))
        [connection] = site.bookstore.connections._connections
        while not connection._queue.full():
            await asyncio.sleep(0.001)
        gone.transport.abort()
        while len(site.bookstore.connections):
            await asyncio.sleep(0.001)


async def _count(reader: Any, frames: int) -> int:
    for heard in range(frames):
        try:
            await reader.recv()
        except ConnectionClosed:
            return heard
    return frames


async def _until_closed(client: Any) -> tuple[int, ConnectionClosed]:
    taken = 0
    while True:
        try:
            await asyncio.wait_for(client.recv(), 30)
            taken += 1
        except ConnectionClosed as closed:
            return taken, closed
