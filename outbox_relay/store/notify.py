"""
The `Wake` port over PostgreSQL's NOTIFY: a trigger of the table says that there are new events.

It rests on nothing: a notification that is lost costs a poll. The connection is one of its own,
since LISTEN belongs to a session; it is opened again when it is lost, and looked after meanwhile, so
that one which is cut off without a word is found out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from outbox_relay.errors import CredentialsError, StoreUnavailable
from outbox_relay.relay.decide import Backoff
from outbox_relay.relay.ports import Observer
from outbox_relay.relay.watching import Silent
from outbox_relay.store.channel import CLOSE_SECONDS, describe
from outbox_relay.store.login import asyncpg_arguments, log_in
from outbox_relay.store.options import DatabaseOptions

FIRST_SECONDS = 1.0
"""The first wait before a connection that was lost is opened again; it doubles up to 30 s."""

LOOK_SECONDS: Final = 30.0
"""How often the connection is asked whether it is still there."""


class NotifyListener:
    """Takes the notifications of the channel that is named after the table."""

    address = ""

    def __init__(self, options: DatabaseOptions, *, observer: Observer | None = None) -> None:
        self._options = options
        self._observer = observer or Silent()
        self._received: Callable[[bool], None] = lambda _: None
        self._task: asyncio.Task[None] | None = None

    def start(self, received: Callable[[bool], None]) -> None:
        """See Wake."""
        self._received = received
        self._task = asyncio.create_task(self._listen())

    def pass_on(self, address: str) -> None:
        """See Wake. Every relay listens for itself."""

    def close(self) -> None:
        """See Wake."""
        if self._task is not None:
            self._task.cancel()

    async def _listen(self) -> None:
        options = self._options
        engine = create_async_engine(
            options.url,
            poolclass=NullPool,
            isolation_level="AUTOCOMMIT",
            hide_parameters=True,
            connect_args=asyncpg_arguments(options),
        )
        log_in(engine, options)
        backoff, failures = Backoff(initial_seconds=FIRST_SECONDS, max_seconds=30.0), 0
        try:
            while True:
                connection: AsyncConnection | None = None
                try:
                    async with asyncio.timeout(options.connect_timeout_seconds):
                        connection = await engine.connect()
                    await self._stay(connection)
                    failures = 0
                except (SQLAlchemyError, StoreUnavailable, CredentialsError, OSError) as error:
                    # A time-out is an OSError.
                    failures += 1
                    self._observer.log("wake_notify_failed", error=describe(error))
                finally:
                    await _drop(connection)
                await asyncio.sleep(backoff.delay_seconds(max(failures, 1), jitter=1.0))
        finally:
            await engine.dispose()

    async def _stay(self, connection: AsyncConnection) -> None:
        """Until the connection is lost."""
        driver: Any = (await connection.get_raw_connection()).driver_connection
        gone = asyncio.Event()
        driver.add_termination_listener(lambda _: gone.set())
        async with asyncio.timeout(self._options.timeout_seconds):
            await driver.add_listener(self._options.table, self._notified)
        self._observer.log("wake_notify_listening", channel=self._options.table)
        # For what was committed before.
        self._received(True)
        while not gone.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await gone.wait()
                    return
            async with asyncio.timeout(self._options.timeout_seconds):
                await connection.exec_driver_sql("SELECT 1")

    def _notified(self, *_: object) -> None:
        self._observer.hints("received", 1)
        # As if a relay had sent it: the other relays have it too.
        self._received(True)


async def _drop(connection: AsyncConnection | None) -> None:
    if connection is None:
        return
    with suppress(SQLAlchemyError, OSError):
        async with asyncio.timeout(CLOSE_SECONDS):
            await connection.invalidate()
            await connection.close()
