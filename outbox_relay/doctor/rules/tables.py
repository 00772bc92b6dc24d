"""Findings about the tables: there, of the right version, and of the right shape."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import sqlalchemy as sa

from outbox_relay.config import Config
from outbox_relay.doctor import ddl
from outbox_relay.doctor.catalogue import found
from outbox_relay.doctor.facts import Backend, TableFacts, TablesFacts
from outbox_relay.doctor.findings import Finding, shell, sql
from outbox_relay.schema import (
    ALLOW_ZERO_DATES,
    AS_BEFORE,
    POSTGRESQL_SETTINGS,
    SCHEMA_VERSION,
    ZERO_DATES_SINCE,
    Tables,
)

MOST_DEAD_ROWS: Final = 50_000
DEAD_SHARE: Final = 0.2
_VACUUM: Final = "autovacuum_vacuum_scale_factor"


def of_tables(
    facts: TablesFacts,
    names: Tables,
    config: Config,
    backend: Backend,
    version: tuple[int, ...] = (),
) -> list[Finding]:
    """Whether the relay, and whoever writes, can work with what is there."""
    found_ = _judge(facts, names, config, backend)
    if backend == "mysql" and version < ZERO_DATES_SINCE:
        return [_with_zero_dates(finding) for finding in found_]
    return found_


def _with_zero_dates(finding: Finding) -> Finding:
    """In one session: the server would refuse the change for a default that it has itself."""
    if not any(command.kind == "sql" for command in finding.commands):
        return finding
    commands = (*sql(ALLOW_ZERO_DATES), *finding.commands, *sql(AS_BEFORE))
    return replace(finding, commands=commands)


def _judge(facts: TablesFacts, names: Tables, config: Config, backend: Backend) -> list[Finding]:
    if facts.problem is not None:
        return [_unserved(facts, config)]
    if config.database.layout == "python-cqrs":
        return _adopted(facts)
    found_: list[Finding] = []
    if facts.version is not None and facts.version < SCHEMA_VERSION:
        found_.append(
            found(
                "tables-outdated",
                f"the tables are at version {facts.version}, this release writes {SCHEMA_VERSION}",
                "Bring them up to date; relays and applications go on meanwhile.",
                shell("outbox-relay migrate"),
            )
        )
    else:
        for table in names.metadata.sorted_tables:
            there = facts.there.get(table.name)
            if there is None:
                found_.append(_missing_table(table, names))
            else:
                found_ += _columns(table, there, backend)
    outbox = facts.there.get(names.outbox.name)
    if outbox is not None:
        found_ += [*_index(names, outbox, backend), *_kept(names, outbox, backend)]
        found_ += _lanes(facts, names, outbox, backend)
    return found_


def _unserved(facts: TablesFacts, config: Config) -> Finding:
    problem = facts.problem or ""
    if facts.version is None or "does not exist" in problem or "do not exist" in problem:
        adopted = config.database.layout == "python-cqrs"
        command = "outbox-relay adopt python-cqrs --prepare" if adopted else "outbox-relay migrate"
        return found(
            "tables-missing", problem, "Make them; it may be repeated safely.", shell(command)
        )
    return found("tables-too-new", problem, "Upgrade outbox-relay to the release that migrated.")


def _adopted(facts: TablesFacts) -> list[Finding]:
    if not facts.missing:
        return []
    is_index = any(" INDEX " in statement for statement in facts.missing)
    return [
        found(
            "index-missing" if is_index else "tables-missing",
            f"{len(facts.missing)} statements are due beside the table of python-cqrs",
            "Run them while applications write; it may be repeated safely.",
            shell("outbox-relay adopt python-cqrs --prepare"),
        )
    ]


def _missing_table(table: sa.Table, names: Tables) -> Finding:
    return found(
        "table-incomplete",
        f"the table {table.name} is not there, though {names.version.name} says so",
        f"Restore it from a backup, or, where {names.outbox.name} is empty, drop all tables of the "
        "outbox and make them anew.",
        shell("outbox-relay migrate"),
    )


def _columns(table: sa.Table, there: TableFacts, backend: Backend) -> Iterator[Finding]:
    for column in table.columns:
        seen = there.columns.get(column.name)
        name = f"{table.name}.{column.name}"
        if seen is None:
            yield found(
                "table-incomplete",
                f"the column {name} is not there",
                "Add it; its rows get its default.",
                sql(ddl.add_column(column, backend)),
            )
            continue
        if backend == "sqlite":
            continue  # its columns hold what is put in, whatever their types say
        wanted = ddl.wanted_column(column, backend)
        if column.computed is not None:
            continue
        problems = [
            *([f"is {seen.type}"] if not ddl.holds(seen.type, wanted.type) else []),
            *(["may be NULL"] if seen.nullable and not wanted.nullable else []),
            *(["may not be NULL"] if wanted.nullable and not seen.nullable else []),
            *(["has no default"] if wanted.has_default and not seen.has_default else []),
        ]
        if _needs_number(column, backend) and not seen.has_default:
            problems.append("is not given by the database")
        if problems:
            yield found(
                "column-shape",
                f"{name} {' and '.join(problems)}; it should be {wanted.type}"
                f"{'' if wanted.nullable else ' NOT NULL'}",
                "Change it back; on a large table in a quiet hour.",
                sql(*ddl.alter_column(column, seen, backend)),
            )


def _needs_number(column: sa.Column[Any], backend: Backend) -> bool:
    return backend in ("mysql", "mariadb") and column.identity is not None


def _index(names: Tables, there: TableFacts, backend: Backend) -> Iterator[Finding]:
    (index,) = names.outbox.indexes
    seen = there.indexes.get(names.pending_index)
    wanted = ddl.wanted_index(index, backend)
    text = f"({', '.join(wanted.columns)}){f' WHERE {wanted.where}' if wanted.where else ''}"
    if seen is None:
        yield found(
            "index-missing",
            f"{names.outbox.name} has no index {names.pending_index} {text}",
            "Make it; others write meanwhile.",
            sql(ddl.create_index(index, backend)),
        )
    elif not seen.valid:
        yield found(
            "index-missing",
            f"the index {names.pending_index} is not valid: making it was cut off",
            "Make it anew; others write meanwhile.",
            sql(ddl.drop_index(index, backend), ddl.create_index(index, backend)),
        )
    elif not _same_index(seen.columns, wanted.columns, seen.where, wanted.where):
        is_now = f"({', '.join(seen.columns)}){f' WHERE {seen.where}' if seen.where else ''}"
        yield found(
            "index-shape",
            f"the index {names.pending_index} is over {is_now}; it should be over {text}",
            "Make it anew. Reads are slow, or wait, in between: best while nothing is pending.",
            sql(ddl.drop_index(index, backend), ddl.create_index(index, backend)),
        )


def _same_index(
    there: tuple[str, ...], wanted: tuple[str, ...], where_there: str, where_wanted: str
) -> bool:
    def bare(text: str) -> str:
        return re.sub(r"[\s()]|::\w+", "", text)

    # Tables of versions before slots had no lane in it; more columns behind do no harm.
    return there[: len(wanted)] == wanted and bare(where_there) == bare(where_wanted)


def _kept(names: Tables, there: TableFacts, backend: Backend) -> Iterator[Finding]:
    """How the server keeps the rows."""
    dialect = ddl.dialect_of(backend)
    table = dialect.identifier_preparer.format_table(names.outbox)
    if backend in ("mysql", "mariadb"):
        if there.engine and there.engine.lower() != "innodb":
            yield found(
                "table-engine",
                f"{names.outbox.name} is kept by {there.engine}",
                "Let InnoDB keep it; writers wait meanwhile.",
                sql(f"ALTER TABLE {table} ENGINE = InnoDB"),
            )
        wrong = sorted(
            name for name, column in there.columns.items() if _folds(column.collation or "")
        )
        if wrong:
            some = f"{', '.join(wrong[:3])}{' and others' if len(wrong) > 3 else ''}"
            yield found(
                "table-collation",
                f"{names.outbox.name}: {some} have the collation "
                f"{there.columns[wrong[0]].collation}",
                "Let names be compared byte by byte; writers wait meanwhile.",
                sql(f"ALTER TABLE {table} CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"),
            )
    if backend == "postgresql":
        yield from _vacuum(names.outbox.name, table, there)


def _folds(collation: str) -> bool:
    return bool(collation) and not (collation.startswith("utf8mb4") and collation.endswith("_bin"))


def _vacuum(name: str, table: str, there: TableFacts) -> Iterator[Finding]:
    if there.options.get("autovacuum_enabled") in ("false", "off"):
        yield found(
            "autovacuum-off",
            f"autovacuum is switched off for {name}",
            "Switch it on; it works while others write.",
            sql(f"ALTER TABLE {table} RESET (autovacuum_enabled)", f"VACUUM ANALYZE {table}"),
        )
    elif _VACUUM not in there.options:
        yield found(
            "autovacuum-settings",
            f"{name} has not the settings with which it is made",
            "Give them back.",
            sql(POSTGRESQL_SETTINGS % {"fullname": table}),
        )
    dead, live = there.dead_rows, there.live_rows
    if dead is not None and dead > MOST_DEAD_ROWS + DEAD_SHARE * (live or 0):
        yield found(
            "dead-rows",
            f"{name} has {dead:,} dead rows beside {live:,} that live",
            "Clear them away now; look for a long transaction or a replication slot that keeps them.",
            sql(f"VACUUM ANALYZE {table}"),
        )


def _lanes(
    facts: TablesFacts, names: Tables, outbox: TableFacts, backend: Backend
) -> Iterator[Finding]:
    seen = outbox.columns.get("lane")
    if seen is None or (facts.version or 0) < SCHEMA_VERSION:
        return
    column = names.outbox.c.lane
    if not seen.generated:
        what = f"{names.outbox.name}.lane is no generated column"
    elif facts.wrong_lanes:
        what = f"{facts.wrong_lanes} of the newest rows have another lane than their keys'"
    else:
        return
    table = ddl.dialect_of(backend).identifier_preparer.format_table(names.outbox)
    (index,) = names.outbox.indexes
    # Its index goes with it on some servers, and holds it back on others.
    yield found(
        "lane-column",
        what,
        "Stop the relays, make it anew with its index, and start them again; writers wait meanwhile.",
        sql(
            ddl.drop_index(index, backend),
            f"ALTER TABLE {table} DROP COLUMN lane",
            ddl.add_column(column, backend),
            ddl.create_index(index, backend),
        ),
    )
