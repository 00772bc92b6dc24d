"""
The handles of a transaction that an application may pass: a Session, an AsyncSession, a Connection
or an AsyncConnection; and whether it is a transaction at all.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from sqlalchemy.engine import Connection, Engine
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from outbox_relay.errors import WriteError

SyncHandle: TypeAlias = Session | Connection | scoped_session[Any]
AsyncHandle: TypeAlias = AsyncSession | AsyncConnection | async_scoped_session[Any]


def resolve(
    handle: SyncHandle | AsyncHandle, call: str
) -> tuple[Session | Connection, AsyncSession | AsyncConnection | None]:
    """
    The sync session or connection that does the work, and the async handle around it if any.

    Raises TypeError for anything else, with the name of the *call* that it was passed to.
    """
    if isinstance(handle, scoped_session | async_scoped_session):
        handle = handle.registry()
    if isinstance(handle, AsyncSession):
        return handle.sync_session, handle
    if isinstance(handle, AsyncConnection):
        if handle.sync_connection is None:
            raise WriteError("the AsyncConnection is not open: `async with engine.connect() as c`")
        return handle.sync_connection, handle
    if isinstance(handle, Session | Connection):
        return handle, None
    raise TypeError(
        f"{call} takes a Session, AsyncSession, Connection or AsyncConnection, not "
        f"{type(handle).__name__}: pass the one that wrote the state change"
    )


def autocommits(connection: Connection) -> bool:
    """Whether each statement on *connection* is committed by itself. May begin its transaction."""
    if declares_autocommit(connection):
        return True
    if not driver_autocommits(connection):
        return False
    # The driver begins no transaction, but a listener may: SQLAlchemy's recipe for pysqlite sets
    # isolation_level=None and says BEGIN itself.
    begun = None if connection.in_transaction() else connection.begin()
    if driver_in_transaction(connection):
        return False
    if begun is not None:
        begun.rollback()
    return True


def declares_autocommit(on: Connection | Engine) -> bool:
    """Whether its isolation level is AUTOCOMMIT, told without I/O."""
    level = on.get_execution_options().get("isolation_level")
    if level is None:
        level = getattr(on.dialect, "_on_connect_isolation_level", None)
    return isinstance(level, str) and level.upper() == "AUTOCOMMIT"


def driver_autocommits(connection: Connection) -> bool:
    """Whether the driver itself is in autocommit mode."""
    pooled = connection.connection
    detect = getattr(connection.dialect, "detect_autocommit_setting", None)
    if detect is not None:  # since SQLAlchemy 2.1
        try:
            return bool(detect(pooled.dbapi_connection))
        except NotImplementedError:
            return False
    if connection.dialect.name == "sqlite":
        return getattr(pooled.dbapi_connection, "isolation_level", "") is None
    get_autocommit = getattr(pooled.driver_connection, "get_autocommit", None)
    return bool(get_autocommit()) if callable(get_autocommit) else False


def driver_in_transaction(connection: Connection) -> bool:
    """Whether the driver says that a transaction is open."""
    driver = connection.connection.driver_connection
    if driver_knows_transactions(connection):
        return bool(driver.get_transaction_status())  # type: ignore[union-attr]
    return bool(getattr(driver, "in_transaction", False))


def driver_knows_transactions(connection: Connection) -> bool:
    """Whether the server tells the driver with each answer, as MySQL and MariaDB tell asyncmy."""
    return hasattr(connection.connection.driver_connection, "get_transaction_status")
