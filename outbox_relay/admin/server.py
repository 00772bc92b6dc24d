"""The dashboard beside a relay: its address, its task, its end."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from outbox_relay.admin.app import build_admin
from outbox_relay.admin.desk import Desk
from outbox_relay.http.server import HttpServer, listen

CLOSE_SECONDS = 0.5


class Dashboard:
    """
    Serves the pages of *desk*, which it closes. Takes its address when it is made: raises ConfigError if that is not possible, or the token cannot be
    used.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._server = HttpServer(build_admin(desk), listen(desk.options, section="admin"))
        self._watch: asyncio.Task[None] | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that are listened on."""
        return self._server.address

    def start(self) -> None:
        """Begin to serve, and to look at the counters."""
        self._server.start()
        self._watch = asyncio.create_task(self._desk.course.keep())

    async def close(self) -> None:
        """Stop serving, soon, whatever browsers and the database do."""
        if self._watch is not None:
            self._watch.cancel()
        await self._server.close()
        with suppress(TimeoutError, OSError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._desk.close()
