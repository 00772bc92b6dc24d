"""
Brings the tables to the version of this release.

``<table>_version`` is the one truth. Alembic's own table, ``<table>_alembic_version``, is written
from it before each run, so that the two cannot disagree.
"""

from __future__ import annotations

import asyncio
import io
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from outbox_relay.autogenerate import include_name, include_object
from outbox_relay.errors import OutboxRelayError, SchemaMismatch, StoreUnavailable
from outbox_relay.migration_locks import (
    GIVE_UP_SECONDS,
    PAUSE_SECONDS,
    TableBusy,
    given_up,
    is_busy,
    take_turn,
)
from outbox_relay.schema import SCHEMA_VERSION, Status, Tables, schema_problem, tables
from outbox_relay.store.login import MYSQL_ESCAPING, asyncpg_arguments, hint, log_in, said
from outbox_relay.store.options import DatabaseOptions

__all__ = [
    "check",
    "downgrade",
    "include_name",
    "include_object",
    "migrate",
    "sql_script",
    "upgrade",
]

# Alembic keeps its context in module globals: two runs in one process would mix.
_one_at_a_time = threading.Lock()


def migrate(options: DatabaseOptions, *, on_wait: Callable[[], object] = lambda: None) -> list[str]:
    """
    Apply what is missing, and return one line for each step applied; none if all is there.

    Safe to repeat and to run by several at once: one works, the others wait. A transaction that
    holds a lock is waited for in short tries, `outbox_relay.migration_locks`; *on_wait* is called
    after each that was in vain. Blocks; may be called with or without a running event loop. Raises
    StoreUnavailable if the database does not answer or refuses, or if no try came through,
    SchemaMismatch if the tables are newer than this release can serve.
    """
    gives_up_at = time.monotonic() + GIVE_UP_SECONDS
    was_there: list[int] = []

    def work(connection: sa.Connection, names: Tables) -> list[str]:
        return _apply(connection, names, was_there)

    while True:
        try:
            with ThreadPoolExecutor(1) as own_thread:
                return own_thread.submit(lambda: asyncio.run(_connected(options, work))).result()
        except TableBusy as busy:
            if time.monotonic() >= gives_up_at:
                backend = make_url(options.url).get_backend_name()
                raise StoreUnavailable(given_up(options.table, backend)) from busy
        on_wait()
        time.sleep(PAUSE_SECONDS)


def check(options: DatabaseOptions) -> list[str]:
    """
    What is missing, one line each; nothing if the tables are as this release makes them.

    Changes nothing. Raises as `migrate` does.
    """
    url = make_url(options.url)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
        # SQLite would create the file.
        return [f"missing: {_title(script)}" for script in _scripts()]
    with ThreadPoolExecutor(1) as own_thread:
        return own_thread.submit(lambda: asyncio.run(_connected(options, _missing))).result()


def sql_script(
    dialect: str,
    *,
    table: str = "outbox",
    schema: str | None = None,
    since: int = 0,
    to: int = SCHEMA_VERSION,
) -> str:
    """
    The statements that bring the tables from version *since* (0: there are none) to version *to*.

    For whoever may not run DDL by program. *dialect* is "mysql", "mariadb", "postgresql" or
    "sqlite". Connects to nothing.
    """
    text = io.StringIO()
    context = MigrationContext.configure(
        dialect_name=dialect, opts={"as_sql": True, "output_buffer": text, "literal_binds": True}
    )
    with _one_at_a_time, Operations.context(context):
        for script in _scripts(since=since, to=to):
            text.write(f"-- {_title(script)}\n\n")
            script.module.upgrade(table=table, schema=schema)
    return text.getvalue()


def upgrade(
    op: Any,
    *,
    table: str = "outbox",
    schema: str | None = None,
    to: int = SCHEMA_VERSION,
    since: int = 0,
) -> None:
    """
    Bring the tables to version *to* inside a revision of your own, which passes Alembic's `op`.

    Pin *to*: a revision must do the same for ever. What is there already is left out, by
    ``<table>_version``; offline (``alembic upgrade --sql``) nothing can be looked up, so *since*
    says which version is there.
    """
    context = op.get_context()
    if not context.as_sql:
        since = max(since, read_version(op.get_bind(), tables(table, schema=schema))[0] or 0)
    for script in _scripts(since=since, to=to):
        script.module.upgrade(table=table, schema=schema)


def downgrade(op: Any, *, table: str = "outbox", schema: str | None = None) -> None:
    """
    Drop the tables inside a revision of your own: the way back from the first `upgrade`.

    Raises OutboxRelayError while an event is not published: it would be lost. Between versions
    there is no way back, and none is needed: older releases serve newer tables.
    """
    names = tables(table, schema=schema)
    if not op.get_context().as_sql and sa.inspect(op.get_bind()).has_table(table, schema):
        kept = sa.select(names.outbox.c.id).where(names.outbox.c.status != Status.PRODUCED)
        if op.get_bind().execute(kept.limit(1)).first() is not None:
            raise OutboxRelayError(
                f"{table} holds events that are not published, or dead letters: relay them, see "
                "`outbox-relay status` and `outbox-relay dead-letters`, then downgrade again"
            )
    for known in reversed(names.metadata.sorted_tables):
        op.drop_table(known.name, schema=schema, if_exists=True)


def scripts_folder() -> Path:
    """The Alembic scripts: inside the installed package, else beside it in the source tree."""
    package = Path(__file__).resolve().parent
    installed = package / "_migrations"
    return installed if installed.is_dir() else package.parent / "migrations"


def database_engine(options: DatabaseOptions) -> AsyncEngine:
    """An engine for a few statements of an operator, without a pool."""
    timeout = options.connect_timeout_seconds
    arguments: dict[str, Any]
    match make_url(options.url).get_backend_name():
        case "sqlite":
            arguments = {"timeout": timeout}
        case "postgresql":
            arguments = asyncpg_arguments(options)
        case _:
            arguments = {"connect_timeout": max(1, round(timeout)), **MYSQL_ESCAPING}
    engine = create_async_engine(
        options.url, poolclass=NullPool, connect_args=arguments, hide_parameters=True
    )
    log_in(engine, options)
    return engine


def read_version(connection: sa.Connection, names: Tables) -> tuple[int | None, int | None]:
    """(version, min_reader) of the tables; (None, None) if they do not exist or are half built."""
    if not sa.inspect(connection).has_table(names.version.name, schema=names.version.schema):
        return None, None
    newest = sa.select(names.version.c.version, names.version.c.min_reader).order_by(
        names.version.c.version.desc()
    )
    row = connection.execute(newest.limit(1)).one_or_none()
    return (None, None) if row is None else (row.version, row.min_reader)


def _scripts(*, since: int = 0, to: int = SCHEMA_VERSION) -> list[Script]:
    """The steps above *since*, up to *to*, in order."""
    config = AlembicConfig()
    config.set_main_option("script_location", str(scripts_folder()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    found = reversed(list(ScriptDirectory.from_config(config).walk_revisions()))
    return [script for script in found if since < int(script.revision) <= to]


def _title(script: Script) -> str:
    return f"{script.revision} {script.doc.splitlines()[0].rstrip('.')}"


def refuse_python_cqrs(connection: sa.Connection, outbox: sa.Table) -> None:
    """Raise SchemaMismatch if the table is one of python-cqrs: it is adopted, not migrated."""
    inspector = sa.inspect(connection)
    if not inspector.has_table(outbox.name, outbox.schema):
        return
    if "event_status" in {c["name"] for c in inspector.get_columns(outbox.name, outbox.schema)}:
        raise SchemaMismatch(
            f'{outbox.name} is a table of python-cqrs: set database.layout = "python-cqrs" to relay it in '
            "place, or name another database.table"
        )


def _missing(connection: sa.Connection, names: Tables) -> list[str]:
    refuse_python_cqrs(connection, names.outbox)
    version, min_reader = read_version(connection, names)
    if version is not None and (min_reader or 0) > SCHEMA_VERSION:
        raise SchemaMismatch(schema_problem(version, min_reader))
    steps = [f"missing: {_title(script)}" for script in _scripts(since=version or 0)]
    return steps or _changed_by_hand(connection, names)


def _changed_by_hand(connection: sa.Connection, names: Tables) -> list[str]:
    """What tables of the right version lack all the same."""
    inspector = sa.inspect(connection)
    found = []
    for table in names.metadata.sorted_tables:
        if not inspector.has_table(table.name, table.schema):
            found.append(f"missing: the table {table.name}; restore it, its version is there")
            continue
        there = {column["name"] for column in inspector.get_columns(table.name, table.schema)}
        found += [
            f"missing: the column {table.name}.{column.name}; restore it, its version is there"
            for column in table.columns
            if column.name not in there
        ]
    outbox = names.outbox
    if inspector.has_table(outbox.name, outbox.schema) and not inspector.has_index(
        outbox.name, names.pending_index, outbox.schema
    ):
        found.append(f"missing: the index {names.pending_index}; restore it, its version is there")
    return found


async def _connected(
    options: DatabaseOptions, work: Callable[[sa.Connection, Tables], list[str]]
) -> list[str]:
    engine = database_engine(options)
    try:
        # The driver's own limit ends with the TCP connection: a server that hangs accepts it and
        # never says a word.
        async with asyncio.timeout(options.connect_timeout_seconds):
            connection = await engine.connect()
        async with aclosing(connection):
            return await connection.run_sync(
                work, tables(options.table, schema=options.schema or None)
            )
    except TimeoutError as error:
        raise StoreUnavailable("the database does not answer in time: is it up?") from error
    except (sa.exc.DBAPIError, OSError) as error:
        cause = getattr(error, "orig", None) or error
        if is_busy(cause):
            raise TableBusy(said(cause)) from error
        raise StoreUnavailable(
            f"the database refuses or does not answer: {said(cause)}{hint(cause)}"
        ) from error
    finally:
        await engine.dispose()


def _apply(connection: sa.Connection, names: Tables, was_there: list[int]) -> list[str]:
    """
    One try. *was_there* keeps the version that the first one found: where each change of a table
    commits by itself, a try that failed has done some of the steps.
    """
    with _one_at_a_time:
        take_turn(connection, names.outbox)
        refuse_python_cqrs(connection, names.outbox)
        version, min_reader = read_version(connection, names)
        if version is not None and (min_reader or 0) > SCHEMA_VERSION:
            raise SchemaMismatch(schema_problem(version, min_reader))
        was_there.append(version or 0)
        if _scripts(since=version or 0):
            alembic = _alembic(connection, names.outbox)
            command.stamp(alembic, f"{version:04d}" if version else "base")
            command.upgrade(alembic, "head")
        connection.commit()
        return [_title(script) for script in _scripts(since=was_there[0])]


def _alembic(connection: sa.Connection, table: sa.Table) -> AlembicConfig:
    config = AlembicConfig()
    config.set_main_option("script_location", str(scripts_folder()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes.update(connection=connection, table=table.name, schema=table.schema)
    return config
