"""
A client that does not read: its frames wait in a bounded queue, and then it is dropped.
"""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

from websockets.exceptions import ConnectionClosed

from examples.bookstore.ws.constants import PkgID
from examples.bookstore.ws.frames import ResponseModel
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


async def test_who_does_not_read_answers_is_not_read_either(sqlite_database: Database) -> None:
    """
    Requests pile up at the client, not here: none is refused, and each is answered at last.
    """
    async with running(sqlite_database.async_url, queue_frames=2) as site:
        await make_book(site, title="x" * 200)
        for number in range(99):
            await make_book(site, title=f"{number:03}" + "x" * 190)
        slow = await unread(site)
        requests = [frame(PkgID.GET_BOOKS, {"per_page": 100}) for _ in range(400)]
        sending = asyncio.create_task(_send_all(slow, requests))
        await asyncio.sleep(0.5)
        answered_unread = site.bookstore.connections
        slow.transport.resume_reading()
        answers = [await receive(slow) for _ in requests]
        await sending
        await slow.close()

    assert len(answered_unread) <= 1
    assert [answer["req_id"] for answer in answers] == [
        json.loads(request)["req_id"] for request in requests
    ]


async def _send_all(client: Any, requests: list[str]) -> None:
    for request in requests:
        await client.send(request)


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


