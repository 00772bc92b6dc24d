"""
Connections: who is there, what waits for each, and what becomes of a reader who does not read.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from typing import Any, Final, TypeVar

from starlette.websockets import WebSocket, WebSocketDisconnect

from examples.bookstore.auth import Identity
from examples.bookstore.errors import PermissionDenied
from examples.bookstore.ws.constants import CloseCode
from examples.bookstore.ws.frames import ResponseModel

logger: Final = logging.getLogger(__name__)

Answer = Callable[[str | bytes, Identity], Awaitable[ResponseModel]]
Result = TypeVar("Result")


class Connection:
    """
    One client. Its requests are answered one after the other; its frames wait in a bounded queue.

    An answer waits for room in the queue, so who does not read is not read either. A broadcast
    waits for nobody: it drops the connection that has no room.
    """

    def __init__(
        self, websocket: WebSocket, identity: Identity, *, queue_frames: int, send_seconds: float
    ) -> None:
        self.identity = identity
        self._websocket = websocket
        self._send_seconds = send_seconds
        self._queue: asyncio.Queue[str] = asyncio.Queue(queue_frames)
        self._dropped: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def offer(self, frame: str) -> None:
        """Queue *frame*, or drop the connection if there is no room."""
        if self._dropped.done():
            return
        try:
            self._queue.put_nowait(frame)
        except asyncio.QueueFull:
            self.drop(f"slow reader: {self._queue.maxsize} frames wait")

    def drop(self, reason: str) -> None:
        """Send nothing more and close, without waiting. What runs already is finished."""
        if not self._dropped.done():
            logger.warning("a connection is dropped: %s", reason)
            self._end(reason)

    def _end(self, reason: str) -> None:
        if not self._dropped.done():
            self._dropped.set_result(reason)

    async def serve(self, answer: Answer) -> None:
        """Answer requests until the client leaves or is dropped."""
        writer = asyncio.create_task(self._write())
        try:
            await self._read(answer)
        finally:
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
        if self._dropped.done():
            # Its buffers are full: the last word passes only if the client reads again in time.
            with suppress(TimeoutError, RuntimeError, WebSocketDisconnect):
                async with asyncio.timeout(self._send_seconds):
                    await self._websocket.close(CloseCode.SLOW_READER, self._dropped.result())

    async def _read(self, answer: Answer) -> None:
        while True:
            message = await self._unless_dropped(self._websocket.receive())
            if message is None or message["type"] != "websocket.receive":
                return
            text: str | None = message.get("text")
            response = await answer(message["bytes"] if text is None else text, self.identity)
            await self._unless_dropped(self._queue.put(response.model_dump_json()))

    async def _unless_dropped(self, awaitable: Awaitable[Result]) -> Result | None:
        """Its result, or None once the connection is dropped."""
        waiting = asyncio.ensure_future(awaitable)
        try:
            either: set[asyncio.Future[Any]] = {waiting, self._dropped}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            return waiting.result() if waiting.done() else None
        finally:
            waiting.cancel()

    async def _write(self) -> None:
        while not self._dropped.done():
            frame = await self._queue.get()
            try:
                async with asyncio.timeout(self._send_seconds):
                    await self._websocket.send_text(frame)
            except TimeoutError:
                self.drop(f"slow reader: one frame took {self._send_seconds:g} s")
            except (RuntimeError, WebSocketDisconnect):
                # The reader may wait for room in the queue, which nobody will ever make.
                self._end("it is gone")


class ConnectionManager:
    """Every connection of this process."""

    def __init__(self) -> None:
        self._connections: set[Connection] = set()

    def __len__(self) -> int:
        return len(self._connections)

    async def serve(self, connection: Connection, answer: Answer) -> None:
        """Let *connection* hear broadcasts while it is served."""
        self._connections.add(connection)
        try:
            await connection.serve(answer)
        finally:
            self._connections.discard(connection)

    def broadcast(self, frame: ResponseModel, *, roles: Collection[str] = ()) -> None:
        """Queue *frame* for all who have every one of *roles*. Waits for nobody."""
        text = frame.model_dump_json()
        for connection in self._connections:
            with suppress(PermissionDenied):
                connection.identity.require(roles)
                connection.offer(text)
