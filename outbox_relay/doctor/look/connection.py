"""
One connection to the database, each question within its own time.

A question that is refused or too slow costs its own answer and no other's.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from outbox_relay.doctor.facts import Unreachable
from outbox_relay.doctor.findings import Area, Skipped
from outbox_relay.errors import CredentialsError, StoreUnavailable
from outbox_relay.migrate import database_engine
from outbox_relay.store.login import TOO_SLOW, hint, said
from outbox_relay.store.options import DatabaseOptions

Result = TypeVar("Result")
CLOSE_SECONDS: Final = 0.5
_LOGIN: Final = (1044, 1045, 1698, 3159, "28P01", "28000")
_MISSING: Final = (1049, "3D000")
REFUSED: Final = (1044, 1142, 1143, 1227, 1370, "42501")
"""What a server says to a user who may not ask."""

LOOK_SECONDS: Final = 10.0
"""All questions together. What is asked later is refused at once, and what was learnt is kept."""


class Refused(Exception):
    """The question was not answered; `code` is the server's, None if it was too slow."""

    def __init__(self, text: str, code: object = None) -> None:
        super().__init__(text)
        self.code = code

    @property
    def too_slow(self) -> bool:
        """Whether there was no answer in time."""
        return self.code is None or self.code in TOO_SLOW

    @property
    def lacks_right(self) -> bool:
        """Whether our user may not ask."""
        return self.code in REFUSED


def code_of(error: BaseException) -> object:
    """The server's number or SQLSTATE."""
    cause = getattr(error, "orig", None) or error.__cause__ or error
    state = getattr(cause, "sqlstate", None) or getattr(error, "sqlstate", None)
    if state is not None and not (cause.args and isinstance(cause.args[0], int)):
        return state
    return cause.args[0] if cause.args else None


class Questions:
    """Asks one thing at a time. Call `close` in the end."""

    def __init__(self, options: DatabaseOptions) -> None:
        self._options = options
        self._engine: AsyncEngine = database_engine(options)
        self._connection: AsyncConnection | None = None
        self._until = asyncio.get_running_loop().time() + LOOK_SECONDS
        self.skipped: list[Skipped] = []
        self.silent: list[str] = []
        """What was asked and not answered in time."""

    async def connect(self) -> Unreachable | None:
        """Why there is no connection, if so."""
        try:
            await self._connected()
        except TimeoutError:
            return Unreachable(
                kind="away",
                what="the database does not answer in time",
                mend="Start it, or correct host and port in database.url; look for a firewall.",
            )
        except (CredentialsError, StoreUnavailable, sa.exc.SQLAlchemyError, OSError) as error:
            return unreachable(error)
        return None

    async def open(self) -> AsyncConnection:
        """Another connection, for the caller to close."""
        async with asyncio.timeout(self._options.connect_timeout_seconds):
            connection = await self._engine.connect()
            return await connection.execution_options(isolation_level="AUTOCOMMIT")

    async def _connected(self) -> AsyncConnection:
        if self._connection is None:
            self._connection = await self.open()
        return self._connection

    async def run(self, work: Callable[[sa.Connection], Result]) -> Result:
        """*work*, within the time for one statement. Raises Refused."""
        found: Result = await self.within(lambda connection: connection.run_sync(work))
        return found

    async def within(self, work: Callable[[AsyncConnection], Any]) -> Any:
        """*work* on the connection itself, likewise."""
        left = self._until - asyncio.get_running_loop().time()
        seconds = min(self._options.timeout_seconds, max(left, 0.0))
        try:
            async with asyncio.timeout(seconds):
                return await work(await self._connected())
        except TimeoutError as error:
            await self._drop()
            raise Refused("an answer in time") from error
        except (CredentialsError, StoreUnavailable, sa.exc.SQLAlchemyError, OSError) as error:
            cause = getattr(error, "orig", None) or error
            # Perhaps it is gone; a new one costs little.
            await self._drop()
            raise Refused(said(cause)[:300], code_of(error)) from error

    async def rows(self, sql: str, parameters: Sequence[Any] = ()) -> Sequence[Any]:
        """The rows of one statement, if it has any. Raises Refused."""

        def work(connection: sa.Connection) -> Sequence[Any]:
            result = connection.exec_driver_sql(sql, tuple(parameters))
            return result.fetchall() if result.returns_rows else ()

        return await self.run(work)

    async def ask(
        self, what: str, work: Callable[[], Any], *, needs: str = "", area: Area = Area.DATABASE
    ) -> Any:
        """What *work* returns; None, and a line about *what* was skipped, if it is refused."""
        try:
            return await work()
        except Refused as error:
            if error.too_slow:
                self.silent.append(what)
            reason = needs if needs and error.lacks_right else str(error)
            self.skipped.append(Skipped(area=area, what=what, needs=reason))
            return None

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await let_go(connection)

    async def close(self) -> None:
        """Let go, whatever the server does."""
        await self._drop()
        with suppress(sa.exc.SQLAlchemyError, OSError, TimeoutError):
            await self._engine.dispose()


async def let_go(connection: AsyncConnection) -> None:
    """Close it within a moment."""
    with suppress(sa.exc.SQLAlchemyError, OSError, TimeoutError):
        async with asyncio.timeout(CLOSE_SECONDS):
            await connection.invalidate()
            await connection.close()


def unreachable(error: BaseException) -> Unreachable:
    """What kept us from connecting."""
    cause = getattr(error, "orig", None) or error.__cause__ or error
    if isinstance(error, CredentialsError):
        tls = "TLS" in str(error) or "encrypted" in str(error)
        return Unreachable(
            kind="tls" if tls else "login", what=str(error), mend="Correct what it names."
        )
    code = code_of(error)
    advice = hint(cause).removeprefix(": ")
    mend = advice[:1].upper() + advice[1:] + "." if advice else ""
    if _is_tls(cause):
        kind = "tls"
    elif code in _LOGIN:
        kind = "login"
    elif code in _MISSING:
        return Unreachable(kind="missing", what=said(cause)[:300], mend=mend)
    else:
        return Unreachable(
            kind="away",
            what=said(cause)[:300],
            mend=mend or "Start it, or correct host and port in database.url.",
        )
    return Unreachable(kind=kind, what=said(cause)[:300], mend=mend)  # type: ignore[arg-type]


def _is_tls(error: BaseException) -> bool:
    chain = (error, error.__cause__)
    return any(isinstance(item, ssl.SSLError) for item in chain) or "rejected SSL" in str(error)
