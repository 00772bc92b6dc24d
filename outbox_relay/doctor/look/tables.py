"""The tables as the server's catalogue describes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import sqlalchemy as sa

from outbox_relay.adoption_prepare import missing
from outbox_relay.doctor.ddl import dialect_of, plain_type
from outbox_relay.doctor.facts import Backend, ColumnFacts, IndexFacts, TableFacts, TablesFacts
from outbox_relay.doctor.look.connection import Questions
from outbox_relay.errors import SchemaMismatch
from outbox_relay.migrate import read_version
from outbox_relay.python_cqrs import AdoptedTables, adopted_in, beside_problem
from outbox_relay.schema import Tables, lane_of_row, schema_problem
from outbox_relay.store.options import DatabaseOptions

NEWEST_ROWS: Final = 200
_COLUMNS_ON_POSTGRESQL: Final = (
    "SELECT a.attname, format_type(a.atttypid, a.atttypmod), NOT a.attnotnull, "
    "a.atthasdef OR a.attidentity <> '', a.attgenerated <> '' FROM pg_attribute a "
    "WHERE a.attrelid = $1::regclass AND a.attnum > 0 AND NOT a.attisdropped"
)
_INDEXES_ON_POSTGRESQL: Final = (
    "SELECT c.relname, i.indisvalid, COALESCE(pg_get_expr(i.indpred, i.indrelid), ''), "
    "(SELECT array_agg(a.attname::text ORDER BY k.n) FROM unnest(i.indkey) WITH ORDINALITY k(number, n) "
    "JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number) "
    "FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = $1::regclass"
)


async def look_at_tables(
    questions: Questions, names: Tables, options: DatabaseOptions, backend: Backend
) -> tuple[TablesFacts, AdoptedTables | None]:
    """What is there of the outbox; with layout = "python-cqrs" also its table. Raises Refused."""
    if options.layout == "python-cqrs":
        return await _adopted(questions, options)
    version, min_reader = await questions.run(lambda link: read_version(link, names))
    facts = TablesFacts(
        version=version, min_reader=min_reader, problem=schema_problem(version, min_reader)
    )
    if facts.problem is not None:
        return facts, None
    there = await _there(questions, names, backend)
    wrong = await questions.ask("the lanes of rows", lambda: _wrong_lanes(questions, names, there))
    return replace(facts, there=there, wrong_lanes=wrong), None


async def _adopted(
    questions: Questions, options: DatabaseOptions
) -> tuple[TablesFacts, AdoptedTables | None]:
    def look(connection: sa.Connection) -> tuple[TablesFacts, AdoptedTables | None]:
        try:
            adopted = adopted_in(connection, options.table, options.schema or None)
        except SchemaMismatch as error:
            return TablesFacts(version=1, min_reader=1, problem=str(error)), None
        version, min_reader = read_version(connection, adopted.beside)
        lacking = tuple(missing(connection, adopted))
        problem = beside_problem(version, min_reader, has_index=True)
        facts = TablesFacts(
            version=version, min_reader=min_reader, problem=problem, missing=lacking
        )
        return facts, adopted

    return await questions.run(look)


async def _there(questions: Questions, names: Tables, backend: Backend) -> dict[str, TableFacts]:
    if backend == "sqlite":
        return await _on_sqlite(questions, names)
    if backend == "postgresql":
        return await _on_postgresql(questions, names)
    return await _on_mysql(questions, names)


async def _on_mysql(questions: Questions, names: Tables) -> dict[str, TableFacts]:
    listed = ", ".join(f"'{table.name}'" for table in names.metadata.sorted_tables)
    schema = f"'{names.outbox.schema}'" if names.outbox.schema else "DATABASE()"
    where = f"WHERE TABLE_SCHEMA = {schema} AND TABLE_NAME IN ({listed})"
    columns = await questions.rows(
        "SELECT TABLE_NAME, COLUMN_NAME, COLUMN_TYPE, IS_NULLABLE, COLUMN_DEFAULT, EXTRA, "
        f"COLLATION_NAME FROM information_schema.COLUMNS {where}"
    )
    indexes = await questions.rows(
        "SELECT TABLE_NAME, INDEX_NAME, COLUMN_NAME FROM information_schema.STATISTICS "
        f"{where} ORDER BY TABLE_NAME, INDEX_NAME, SEQ_IN_INDEX"
    )
    engines = await questions.rows(
        f"SELECT TABLE_NAME, ENGINE FROM information_schema.TABLES {where}"
    )
    return {
        name: TableFacts(
            columns=dict(_mysql_column(row) for row in columns if row[0] == name),
            indexes=_grouped((row[1], row[2]) for row in indexes if row[0] == name),
            engine=engine or "",
        )
        for name, engine in engines
    }


def _mysql_column(row: Sequence[Any]) -> tuple[str, ColumnFacts]:
    _, name, kind, nullable, default, extra, collation = row
    kind = kind.decode() if isinstance(kind, bytes) else kind
    default = None if default in (None, "NULL", b"NULL") else default
    words = extra.upper()
    generated = "GENERATED" in words.replace("DEFAULT_GENERATED", "")
    return name, ColumnFacts(
        type=plain_type(kind),
        nullable=nullable == "YES",
        has_default=not generated and (default is not None or "AUTO_INCREMENT" in words),
        generated=generated,
        collation=collation,
    )


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, IndexFacts]:
    columns: dict[str, list[str]] = {}
    for index, column in pairs:
        columns.setdefault(index, []).append(column)
    return {index: IndexFacts(columns=tuple(names)) for index, names in columns.items()}


async def _on_postgresql(questions: Questions, names: Tables) -> dict[str, TableFacts]:
    quote = dialect_of("postgresql").identifier_preparer
    found = {}
    for table in names.metadata.sorted_tables:
        name = quote.format_table(table)
        is_there = await questions.rows("SELECT to_regclass($1::text) IS NOT NULL", (name,))
        if is_there[0][0]:
            found[table.name] = await _postgresql_table(questions, name)
    return found


async def _postgresql_table(questions: Questions, name: str) -> TableFacts:
    columns = await questions.rows(_COLUMNS_ON_POSTGRESQL.replace("$1", _literal(name)))
    indexes = await questions.rows(_INDEXES_ON_POSTGRESQL.replace("$1", _literal(name)))
    ((options, dead, live),) = await questions.rows(
        "SELECT c.reloptions, s.n_dead_tup, s.n_live_tup FROM pg_class c "
        f"LEFT JOIN pg_stat_user_tables s ON s.relid = c.oid WHERE c.oid = {_literal(name)}::regclass"
    )
    return TableFacts(
        columns={
            column: ColumnFacts(
                type=kind,
                nullable=nullable,
                has_default=has_default and not generated,
                generated=generated,
            )
            for column, kind, nullable, has_default, generated in columns
        },
        indexes={
            index: IndexFacts(columns=tuple(parts or ()), where=where, valid=valid)
            for index, valid, where, parts in indexes
        },
        options=dict(option.split("=", 1) for option in options or ()),
        dead_rows=dead,
        live_rows=live,
    )


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


async def _on_sqlite(questions: Questions, names: Tables) -> dict[str, TableFacts]:
    found = {}
    for table in names.metadata.sorted_tables:
        rows = await questions.rows(f"PRAGMA table_xinfo('{table.name}')")
        if not rows:
            continue
        indexes = {}
        for listed in await questions.rows(f"PRAGMA index_list('{table.name}')"):
            parts = await questions.rows(f"PRAGMA index_info('{listed[1]}')")
            indexes[listed[1]] = IndexFacts(columns=tuple(part[2] for part in parts))
        found[table.name] = TableFacts(
            columns={
                row[1]: ColumnFacts(
                    type=plain_type(row[2]),
                    nullable=not row[3],
                    has_default=row[4] is not None,
                    generated=row[6] in (2, 3),
                )
                for row in rows
            },
            indexes=indexes,
        )
    return found


async def _wrong_lanes(
    questions: Questions, names: Tables, there: Mapping[str, TableFacts]
) -> int | None:
    c = names.outbox.c
    outbox = there.get(names.outbox.name)
    if outbox is None or not {"lane", "key", "event_id"} <= outbox.columns.keys():
        return None
    newest = (
        sa.select(c.lane, c.key, c.event_id)
        .order_by(c.id.desc())
        .limit(NEWEST_ROWS)
        .subquery("newest")
    )
    right = sa.type_coerce(lane_of_row(), sa.Integer())
    wrong = sa.or_(newest.c.lane.is_(None), newest.c.lane != right)
    count = sa.select(sa.func.count()).select_from(newest).where(wrong)
    found: int = await questions.run(lambda link: link.execute(count).scalar_one())
    return found
