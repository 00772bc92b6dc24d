"""An operator's way to the database: each call connects, works within its limits, and lets go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox_relay.errors import ConfigError, SchemaMismatch, StoreUnavailable
from outbox_relay.migrate import database_engine, read_version
from outbox_relay.python_cqrs import beside_problem
from outbox_relay.schema import Tables, schema_problem, tables
from outbox_relay.store.login import hint, said
from outbox_relay.store.options import DatabaseOptions

Result = TypeVar("Result")

CLOSE_SECONDS: Final = 0.5


class Session:
    """One connection of an operator. Each `run` is a transaction of its own."""

    def __init__(self, connection: AsyncConnection, options: DatabaseOptions) -> None:
        self._connection = connection
        self._options = options

    async def run(self, work: Callable[[sa.Connection], Result]) -> Result:
        """
        *work* in a transaction, committed. Raises StoreUnavailable if it takes too long.

        After an error the connection is gone, and so is this session.
        """
        with _as_ours():
            try:
                async with asyncio.timeout(self._options.timeout_seconds + 1.0):
                    result = await self._connection.run_sync(self._limited, work)
                    await self._connection.commit()
                    return result
            except BaseException:
                # A rollback would wait for a server that does not answer.
                await self.close(by_force=True)
                raise

    async def close(self, *, by_force: bool = False) -> None:
        """Let go of the connection, without waiting for long."""
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                if by_force:
                    await self._connection.invalidate()
                await self._connection.close()
        except (sa.exc.SQLAlchemyError, OSError, TimeoutError):
            pass  # it is gone either way

    def _limited(
        self, connection: sa.Connection, work: Callable[[sa.Connection], Result]
    ) -> Result:
        for statement in _limits(connection.dialect.name, self._options.timeout_seconds):
            connection.exec_driver_sql(statement)
        return work(connection)


class Access:
    """
    The outbox of *options*, for an operator.

    Holds no connection between calls. Each raises StoreUnavailable if the database does not answer in
    time or refuses, SchemaMismatch without tables that fit.
    """

    def __init__(self, options: DatabaseOptions) -> None:
        self.options = options
        self.names: Tables = tables(options.table, schema=options.schema or None)
        self._engine = database_engine(options)
        self._fits = False

    async def close(self) -> None:
        """Let go of what is left of connections."""
        await self._engine.dispose()

    def require_own_layout(self, what: str) -> None:
        """Raise ConfigError unless the table is one of ours. *what* is asked for."""
        if self.options.layout != "outbox":
            raise ConfigError(
                [
                    f'{what}: database.layout = "{self.options.layout}": such a table does not say when '
                    "and whether a row was acked; this works on tables that `outbox-relay migrate` made"
                ]
            )

    def exists(self) -> bool:
        """Whether there is a database at all. SQLite would make the file, and looking changes nothing."""
        url = make_url(self.options.url)
        return url.get_backend_name() != "sqlite" or Path(url.database or "").exists()

    @asynccontextmanager
    async def session(self, *, checked: bool = True) -> AsyncIterator[Session]:
        """A connection for several calls; *checked*: its tables fit."""
        if not self.exists():
            raise SchemaMismatch(schema_problem(None, None))
        with _as_ours():
            # The driver's own limit ends with the TCP connection.
            async with asyncio.timeout(self.options.connect_timeout_seconds):
                connection = await self._engine.connect()
        opened = Session(connection, self.options)
        try:
            if checked and not self._fits:
                await opened.run(self._check)
                self._fits = True
            yield opened
        finally:
            await opened.close()

    async def run(self, work: Callable[[sa.Connection], Result]) -> Result:
        """*work* in a transaction of its own, committed."""
        async with self.session() as opened:
            return await opened.run(work)

    def _check(self, connection: sa.Connection) -> None:
        version, min_reader = read_version(connection, self.names)
        if self.options.layout == "outbox":
            problem = schema_problem(version, min_reader)
        else:
            problem = beside_problem(version, min_reader, has_index=True)
        if problem:
            raise SchemaMismatch(problem)


@contextmanager
def _as_ours() -> Iterator[None]:
    """Turn what a driver raises into StoreUnavailable, without the statement and what it holds."""
    try:
        yield
    except TimeoutError as error:
        raise StoreUnavailable("the database does not answer in time: is it up?") from error
    except (sa.exc.DBAPIError, OSError) as error:
        cause: Any = getattr(error, "orig", None) or error
        raise StoreUnavailable(
            f"the database refuses or does not answer: {said(cause)}{hint(cause)}"
        ) from error


def _limits(dialect: str, seconds: float) -> tuple[str, ...]:
    """So that the server ends a statement too, and reads by the index whatever its statistics say."""
    milliseconds = max(1, int(seconds * 1000))
    if dialect == "postgresql":
        settings = {"statement_timeout": str(milliseconds), "jit": "off"}
        settings |= dict.fromkeys(("enable_seqscan", "enable_bitmapscan", "enable_sort"), "off")
        told = ", ".join(
            f"set_config('{name}', '{value}', true)" for name, value in settings.items()
        )
        return (f"SELECT {told}",)
    if dialect in ("mysql", "mariadb"):
        # Of the two, MySQL and MariaDB each read their own.
        wait = max(1, int(seconds / 2))
        return (
            f"SET SESSION innodb_lock_wait_timeout = {wait} "
            f"/*M! , max_statement_time = {seconds:f} */ "
            f"/*!80000 , max_execution_time = {milliseconds:d} */",
        )
    return (f"PRAGMA busy_timeout = {milliseconds // 2}",)
