"""
What a relay needs beside a table of python-cqrs: four tables of ours, and an index of that one.

Each statement is committed by itself. Broken off anywhere, the same call goes on with the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import sqlalchemy as sa
from sqlalchemy.schema import CreateTable

from outbox_relay.errors import StoreUnavailable
from outbox_relay.migration_locks import LOCK_SECONDS, mysql_lock_name, postgresql_lock_number
from outbox_relay.python_cqrs import AdoptedTables, index_there
from outbox_relay.schema import SCHEMA_VERSION, utc_now

LOCK_WAIT_TIMEOUT: Final = 1205
"""MySQL's number for a lock that did not come in time."""


def missing(connection: sa.Connection, names: AdoptedTables) -> list[str]:
    """The statements that make what is not there, in their order."""
    inspector = sa.inspect(connection)
    schema = names.outbox.schema
    beside = names.beside
    wanted = (names.dead, beside.control, beside.lease, beside.version)
    absent = [table for table in wanted if not inspector.has_table(table.name, schema=schema)]
    found = [str(CreateTable(table).compile(dialect=connection.dialect)) for table in absent]
    found = [" ".join(text.split()) for text in found]
    quote = connection.dialect.identifier_preparer.format_table
    # One lane: its rows say nothing of lanes, so one relay is active and the others stand by.
    if beside.lease in absent or _is_empty(connection, beside.lease):
        found.append(f"INSERT INTO {quote(beside.lease)} (lane) VALUES (0)")
    if beside.version in absent or _is_empty(connection, beside.version):
        values = f"({SCHEMA_VERSION:d}, 1)"
        found.append(f"INSERT INTO {quote(beside.version)} (version, min_reader) VALUES {values}")
    return found + _index_statements(connection, names)


def _is_empty(connection: sa.Connection, table: sa.Table) -> bool:
    return connection.execute(sa.select(sa.literal(1)).select_from(table).limit(1)).first() is None


def _index_statements(connection: sa.Connection, names: AdoptedTables) -> list[str]:
    """Make the index while others read and write the table."""
    name = connection.dialect.name
    if connection.exec_driver_sql(index_there(name, names)).first() is not None:
        return []
    quote = connection.dialect.identifier_preparer.quote_identifier
    schema = names.outbox.schema
    table, index = (
        ".".join(quote(part) for part in (schema, last) if part)
        for last in (names.outbox.name, names.index)
    )
    columns = "(event_status, id, flush_counter)"
    if name != "postgresql":
        return [
            f"ALTER TABLE {table} ADD INDEX {quote(names.index)} {columns}, ALGORITHM=INPLACE, LOCK=NONE"
        ]
    made = f"CREATE INDEX CONCURRENTLY {quote(names.index)} ON {table} {columns}"
    if sa.inspect(connection).has_index(names.outbox.name, names.index, schema=schema):
        # Left by a build that was broken off. No query uses it, and each write pays for it.
        return [f"DROP INDEX CONCURRENTLY {index}", made]
    return [made]


def make_missing(
    connection: sa.Connection,
    names: AdoptedTables,
    begins: Callable[[str], None],
    *,
    pooled: bool = False,
) -> list[str]:
    """
    Make what is not there; calls *begins* with each statement before it is run.

    *pooled*: behind a transaction pooler, where a lock or a setting of the session would stay with
    whoever gets the connection next.

    Raises StoreUnavailable if somebody else is at it, or an open transaction does not let go of the table.
    """
    if not pooled:
        _keep_others_out(connection, names)
    statements = missing(connection, names)
    for statement in statements:
        begins(statement)
        try:
            connection.exec_driver_sql(statement.replace("%", "%%"))
        except sa.exc.DBAPIError as error:
            if getattr(error.orig, "args", ())[:1] != (LOCK_WAIT_TIMEOUT,):
                raise
            raise StoreUnavailable(
                f"a transaction has kept {names.outbox.name} open for more than {LOCK_SECONDS} s "
                "(error 1205). Look for it in information_schema.innodb_trx: perhaps it is that of the "
                "old relay, which some programs never end while nothing waits. End it, and run the "
                "same command again; what is made so far stays"
            ) from error
    return statements


def _keep_others_out(connection: sa.Connection, names: AdoptedTables) -> None:
    """
    Until the connection closes, which on a server that goes on building is after the build.

    Waits for nobody: a statement that waits on PostgreSQL would itself be waited for by a build.
    """
    if connection.dialect.name == "postgresql":
        # Neither holds up a writer: a build waits behind transactions, nobody waits behind the build.
        connection.exec_driver_sql("SET lock_timeout = 0")
        connection.exec_driver_sql("SET statement_timeout = 0")
        number = postgresql_lock_number(connection, names.outbox)
        got, where = f"SELECT pg_try_advisory_lock({number})", "pg_stat_activity"
    else:
        # While ALTER TABLE waits for a transaction, everybody else waits behind it.
        seconds = LOCK_SECONDS
        connection.exec_driver_sql(f"SET SESSION lock_wait_timeout = {seconds}")
        name = mysql_lock_name(connection, names.outbox)
        got, where = f"SELECT GET_LOCK('{name}', 0)", "SHOW PROCESSLIST"
    if not connection.exec_driver_sql(got).scalar():
        raise StoreUnavailable(
            f"another --prepare is at work on {names.outbox.name}, or the server still builds the index "
            f"for one that was broken off: look at {where}, and run the same command when it has ended"
        )


def relay_at_work(connection: sa.Connection, names: AdoptedTables) -> bool:
    """Whether a relay of ours holds the lease of the table now."""
    lease = names.beside.lease
    if not sa.inspect(connection).has_table(lease.name, schema=lease.schema):
        return False
    alive = sa.select(lease.c.lane).where(lease.c.expires_at > utc_now()).limit(1)
    return connection.execute(alive).first() is not None
