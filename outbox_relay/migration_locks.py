"""
What a migration waits for, and how long others wait for it.

A change of a table waits for every transaction that has touched it, and whoever wants the table then
waits behind the change, also writers. So it waits for `LOCK_SECONDS`, lets go, leaves the others
`PAUSE_SECONDS`, and tries again: nobody waits longer for it than that, however long a transaction is.
"""

from __future__ import annotations

import hashlib
from typing import Final

import sqlalchemy as sa

from outbox_relay.errors import StoreUnavailable

LOCK_SECONDS: Final = 2
"""How long one try waits for a table's lock. While it waits, it holds up the application."""

PAUSE_SECONDS: Final = 2.0
"""How long whoever waited behind a try has the tables, before the next one."""

GIVE_UP_SECONDS: Final = 60.0
"""How long it is tried."""

TURN_SECONDS: Final = 60
"""How long a migration waits for another one to end."""

_BUSY: Final = frozenset(
    {
        *(1205, 1213),  # MySQL, MariaDB: lock wait timeout, deadlock
        *("55P03", "40P01"),  # PostgreSQL: the same two
        *(5, 261, 517),  # SQLite: busy, while it recovers, by an old snapshot
    }
)

_WHO: Final = {
    "mysql": "SELECT trx_mysql_thread_id, trx_started FROM information_schema.innodb_trx "
    "ORDER BY trx_started",
    "postgresql": "SELECT pid, xact_start, state, query FROM pg_stat_activity "
    "WHERE xact_start IS NOT NULL ORDER BY xact_start",
}
_WHO["mariadb"] = _WHO["mysql"]


class TableBusy(StoreUnavailable):
    """One try was in vain: a transaction holds what the migration needs."""


def is_busy(cause: BaseException) -> bool:
    """Whether a driver's error says that a lock was not free in time, or that two waited for each other."""
    codes = (
        cause.args[0] if cause.args else None,
        getattr(cause, "sqlstate", None),
        getattr(cause, "sqlite_errorcode", None),
    )
    return any(isinstance(code, (int, str)) and code in _BUSY for code in codes)


def given_up(table: str, backend: str) -> str:
    """What to say when no try came through, with the statement that names who is in the way."""
    who = _WHO.get(backend)
    look = f"look for the oldest with `{who}`, end it" if who else "end it"
    return (
        f"a transaction has held the lock of {table} or a table beside it for {GIVE_UP_SECONDS:.0f} s: "
        f"{look}, and run `outbox-relay migrate` again, which goes on where this one stopped"
    )


def take_turn(connection: sa.Connection, table: sa.Table) -> None:
    """
    Let no other migration of *table* work until the connection closes, and bound every wait of it
    that follows.

    Raises StoreUnavailable if another one is still at work after `TURN_SECONDS`.
    """
    match connection.dialect.name:
        case "sqlite":
            # A log apart lets the application write while the relay reads. It stays with the file.
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        case "postgresql":
            _turn_on_postgresql(connection, table)
        case _:
            _turn_on_mysql(connection, table)


def mysql_lock_name(connection: sa.Connection, table: sa.Table) -> str:
    """Of the lock that whoever changes the tables of one outbox holds, for GET_LOCK."""
    database = table.schema or connection.exec_driver_sql("SELECT DATABASE()").scalar_one()
    # Names of locks belong to the whole server and hold 64 characters.
    return "outbox-relay-" + hashlib.sha256(f"{database}.{table.name}".encode()).hexdigest()[:40]


def postgresql_lock_number(connection: sa.Connection, table: sa.Table) -> int:
    """The same for PostgreSQL's advisory locks."""
    schema = table.schema or connection.exec_driver_sql("SELECT current_schema()").scalar_one()
    digest = hashlib.sha256(f"outbox-relay {schema}.{table.name}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def _turn_on_mysql(connection: sa.Connection, table: sa.Table) -> None:
    wait = sa.text("SELECT GET_LOCK(:name, :seconds)")
    named = {"name": mysql_lock_name(connection, table), "seconds": TURN_SECONDS}
    if connection.execute(wait, named).scalar() != 1:
        raise StoreUnavailable(
            f"another migration of {table.name} is still running after {TURN_SECONDS} s: "
            "look at SHOW PROCESSLIST, then run `outbox-relay migrate` again"
        )
    # The first is for tables, the second for rows.
    for variable in ("lock_wait_timeout", "innodb_lock_wait_timeout"):
        connection.exec_driver_sql(f"SET SESSION {variable} = {LOCK_SECONDS}")


def _turn_on_postgresql(connection: sa.Connection, table: sa.Table) -> None:
    """The same until the transaction ends: all of a migration is one."""
    number = postgresql_lock_number(connection, table)
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{TURN_SECONDS}s'")
    try:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({number})")
    except sa.exc.DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != "55P03":
            raise
        raise StoreUnavailable(
            f"another migration of {table.name} is still running after {TURN_SECONDS} s: "
            "look at pg_stat_activity, then run `outbox-relay migrate` again"
        ) from error
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")
