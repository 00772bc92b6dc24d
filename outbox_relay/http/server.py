"""Serves an application on the loop that is running, without touching the process's signals."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Final, Protocol

import uvicorn
from starlette.types import ASGIApp

from outbox_relay.errors import ConfigError

CLOSE_SECONDS: Final = 0.2
"""How long a request that is under way may still take when the server closes."""

TICK_SECONDS: Final = 1.0
"""How often the header ``date`` is set anew."""


class Address(Protocol):
    """A section of the settings that says where to listen."""

    @property
    def host(self) -> str: ...

    @property
    def port(self) -> int: ...


def listen(options: Address, *, section: str = "http") -> socket.socket:
    """A socket that listens as *options*, of *section*, say. Raises ConfigError if the address is taken."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            options.host, options.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(
            [f"{section}.host = {options.host!r} cannot be used ({error.strerror})"]
        ) from error
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise ConfigError(
            [
                f"{section}.port = {options.port} on {options.host} cannot be listened on "
                f"({error.strerror}): choose another {section}.port, or 0 for any free one"
            ]
        ) from error
    listener.setblocking(False)
    return listener


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.closing = asyncio.Event()

    async def main_loop(self) -> None:
        # uvicorn's own looks ten times a second whether to exit: most of what an idle relay would do.
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_SECONDS):
                    await self.closing.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn would take SIGTERM for itself, and the relay would never hear of it.
        yield


class HttpServer:
    """An HTTP server as a task of the running loop."""

    def __init__(self, app: ASGIApp, listener: socket.socket) -> None:
        self._listener = listener
        self._server = _Server(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="off",
                server_header=False,
                timeout_graceful_shutdown=1,
            )
        )
        self._task: asyncio.Task[None] | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that are listened on."""
        host, port = self._listener.getsockname()[:2]
        return host, port

    @property
    def serving(self) -> bool:
        """Whether it still answers."""
        return self._task is not None and not self._task.done()

    def start(self) -> None:
        """Begin to serve."""
        self._task = asyncio.create_task(self._server.serve(sockets=[self._listener]))

    def release(self) -> None:
        """Give the address back; it was never served."""
        self._listener.close()

    async def close(self) -> None:
        """Stop serving, soon, whatever clients do."""
        self._server.should_exit = True
        self._server.closing.set()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=CLOSE_SECONDS)
            self._server.force_exit = True
            self._task.cancel()
            await asyncio.wait([self._task], timeout=CLOSE_SECONDS)
        self._listener.close()
