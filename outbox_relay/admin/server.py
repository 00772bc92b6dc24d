"""The dashboard beside a relay: its address, its task, its end."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from outbox_relay.admin.app import build_admin
from outbox_relay.admin.desk import Desk, Examine
from outbox_relay.admin.options import AdminOptions
from outbox_relay.http.server import HttpServer, listen
from outbox_relay.metrics import MetricsObserver
from outbox_relay.operations import Access
from outbox_relay.relay.dead_letters import DeadLetters
from outbox_relay.store.options import DatabaseOptions

CLOSE_SECONDS = 0.5


class Dashboard:
    """
    Takes its address when it is made. Raises ConfigError if that is not possible, or the token cannot be
    used.
    """

    def __init__(
        self,
        options: AdminOptions,
        *,
        database: DatabaseOptions,
        letters: DeadLetters,
        observer: MetricsObserver,
        owner: str,
        examine: Examine,
        retention_seconds: float | None,
    ) -> None:
        self._desk = Desk(
            options,
            access=Access(database),
            letters=letters,
            observer=observer,
            owner=owner,
            examine=examine,
            retention_seconds=retention_seconds,
        )
        app = build_admin(self._desk)
        self._server = HttpServer(app, listen(options, section="admin"))
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
