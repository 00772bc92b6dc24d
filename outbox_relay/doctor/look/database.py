"""All of the database, one question after the other on one connection."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy.engine import make_url

from outbox_relay.config import Config
from outbox_relay.doctor.facts import (
    THE_LEASE,
    THE_ROWS,
    THE_SERVER,
    THE_TABLES,
    Backend,
    DatabaseFacts,
    ServerFacts,
    TablesFacts,
)
from outbox_relay.doctor.findings import Skipped
from outbox_relay.doctor.look.connection import Questions
from outbox_relay.doctor.look.rights import look_at_rights, needed_adopted, needed_rights
from outbox_relay.doctor.look.rows import look_at_adopted, look_at_lease, look_at_rows
from outbox_relay.doctor.look.server import look_at_server
from outbox_relay.doctor.look.tables import look_at_tables
from outbox_relay.python_cqrs import AdoptedTables
from outbox_relay.schema import Tables, schema_problem, tables


def is_file(path: str) -> bool:
    """Whether the file of a SQLite database is there."""
    return Path(path).exists()


async def look_at_database(config: Config) -> tuple[DatabaseFacts, list[Skipped]]:
    """What could be learnt, and what not. Changes nothing, not even by a lock."""
    url = make_url(config.database.url)
    backend: Any = url.get_backend_name()
    if backend == "sqlite" and not is_file(url.database or ""):
        # SQLite would create the file.
        none = TablesFacts(version=None, min_reader=None, problem=schema_problem(None, None))
        return DatabaseFacts(backend="sqlite", tables=none), []
    questions = Questions(config.database)
    try:
        away = await questions.connect()
        if away is not None:
            return DatabaseFacts(backend=backend, unreachable=away), []
        facts = await _look(questions, config, backend)
        return replace(facts, silent=tuple(questions.silent)), questions.skipped
    finally:
        await questions.close()


async def _look(questions: Questions, config: Config, backend: Backend) -> DatabaseFacts:
    options = config.database
    names = tables(options.table, schema=options.schema or None)
    server: ServerFacts | None = await questions.ask(
        THE_SERVER,
        lambda: look_at_server(questions, table=options.table, url_backend=backend),
    )
    backend = server.backend if server is not None else backend
    facts = DatabaseFacts(backend=backend, server=server)
    seen = await questions.ask(
        THE_TABLES, lambda: look_at_tables(questions, names, options, backend)
    )
    if seen is None:
        return await _with_rights(questions, facts, names, None)
    there, adopted = seen
    facts = replace(facts, tables=there)
    if there.problem is not None:
        return facts
    facts = await _with_rights(questions, facts, names, adopted)
    facts = await _with_rows(questions, facts, names, adopted, config)
    if backend == "postgresql" and config.relay.wake_notify:
        has = await questions.ask("the trigger", lambda: _has_trigger(questions, names))
        facts = replace(facts, tables=replace(there, has_notify_trigger=has))
    return facts


async def _with_rights(
    questions: Questions, facts: DatabaseFacts, names: Tables, adopted: AdoptedTables | None
) -> DatabaseFacts:
    if facts.backend == "sqlite":
        return facts
    beside = (names.lease, names.control, names.version)
    needed = (
        needed_rights(names.outbox, *beside)
        if adopted is None
        else needed_adopted(adopted.outbox, adopted.dead, *beside)
    )
    rights = await questions.ask("rights", lambda: look_at_rights(questions, needed, facts.backend))
    return replace(facts, rights=rights)


async def _with_rows(
    questions: Questions,
    facts: DatabaseFacts,
    names: Tables,
    adopted: AdoptedTables | None,
    config: Config,
) -> DatabaseFacts:
    there = facts.tables
    assert there is not None
    lease = await questions.ask(
        THE_LEASE,
        lambda: questions.run(lambda link: look_at_lease(link, names, there.version or 0)),
    )
    if adopted is None:
        rows = await questions.ask(
            THE_ROWS, lambda: questions.run(lambda link: look_at_rows(link, names, there.there))
        )
    else:
        rows = await questions.ask(
            THE_ROWS, lambda: questions.run(lambda link: look_at_adopted(link, adopted, config))
        )
    return replace(facts, lease=lease, rows=rows)


async def _has_trigger(questions: Questions, names: Tables) -> bool:
    quoted = names.outbox.fullname.replace("'", "''")
    rows = await questions.rows(
        "SELECT 1 FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid "
        f"WHERE t.tgrelid = '{quoted}'::regclass AND NOT t.tgisinternal AND t.tgenabled <> 'D' "
        "AND p.prosrc LIKE '%pg_notify%' LIMIT 1"
    )
    return bool(rows)
