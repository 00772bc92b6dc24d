"""
The tables: the one home of columns, statuses, codecs, indexes and the schema's version.

The tables are a public interface. Any program may insert into ``outbox`` with plain SQL and needs
only `event_name`, `topic` and `payload`; the database fills in the rest. ``docs/reference/table.md``
documents each column. What differs between databases (a default, a generated column) is a small
SQL expression here; the numbered scripts in ``migrations/`` build the same tables step by step.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import FunctionElement
from sqlalchemy.types import TypeDecorator, TypeEngine

SCHEMA_VERSION = 3
"""The version of the tables that this release writes."""

OLDEST_SUPPORTED_VERSION = 1
"""The oldest tables that this release still serves, so that a rolling deploy never breaks."""

SUSPECTS_VERSION = 3
"""Since this version the lease table keeps which rows were looked at when a relay died."""

LANES = 64
"""
Relays share out the keys by lanes. SQLite has one writer and so one lane. As many rows of the lease
table above them are the slots of active relays.
"""

MAX_ID = 2**63 - 1
MAX_NAME_CHARS = 255
MAX_TOPIC_CHARS = 249  # org.apache.kafka.common.internals.Topic.MAX_NAME_LENGTH
MAX_KEY_BYTES = 1024
MAX_ERROR_CHARS = 1000
MAX_PAYLOAD_BYTES = 16 * 1024 * 1024 - 1

NOT_YET = datetime(1970, 1, 1, tzinfo=UTC)
"""`produced_at` of a row that is not produced. A NULL that becomes a value makes InnoDB rows grow:
50 times the redo and half the rate."""


class Status(IntEnum):
    """Where an outboxed event stands. Only the relay changes it."""

    PENDING = 0
    PRODUCED = 1
    DEAD = 2
    SCHEDULED = 3  # kept for events that become due later


class Codec(IntEnum):
    """How `payload` is stored. Each row says it, so a changed setting never breaks old rows."""

    RAW = 0
    ZLIB = 1
    ZSTD = 2  # kept
    TOMBSTONE = 3  # no value: Kafka's null, which deletes the key from a compacted topic


class new_event_id(FunctionElement[uuid.UUID]):  # noqa: N801
    """A unique id made by the database, for writers who bring none."""

    inherit_cache = True


class utc_now(FunctionElement[datetime]):  # noqa: N801
    """The database's clock, UTC, as fine as it has it."""

    inherit_cache = True


class never(FunctionElement[datetime]):  # noqa: N801
    """`NOT_YET`, as a default."""

    inherit_cache = True


class lane_of_row(FunctionElement[int]):  # noqa: N801
    """The lane of a row. The number means something within one table only."""

    inherit_cache = True


def _sql(sql: str) -> Any:
    def compile_(element: Any, compiler: SQLCompiler, **kw: Any) -> str:
        return sql

    return compile_


compiles(new_event_id, "mysql", "mariadb")(_sql("(unhex(replace(uuid(),'-','')))"))
compiles(new_event_id, "sqlite")(_sql("(randomblob(16))"))
compiles(new_event_id, "postgresql")(_sql("gen_random_uuid()"))
compiles(utc_now, "mysql", "mariadb")(_sql("(utc_timestamp(6))"))
compiles(utc_now, "sqlite")(_sql("(strftime('%Y-%m-%d %H:%M:%f000','now'))"))
compiles(utc_now, "postgresql")(_sql("statement_timestamp()"))
compiles(never)(_sql("'1970-01-01 00:00:00.000000'"))
compiles(never, "postgresql")(_sql("'1970-01-01 00:00:00+00'"))
compiles(lane_of_row, "mysql", "mariadb")(_sql("(mod(crc32(coalesce(`key`,`event_id`)), 64))"))
compiles(lane_of_row, "sqlite")(_sql("(0)"))
compiles(lane_of_row, "postgresql")(
    _sql('(get_byte(sha256(coalesce("key", uuid_send(event_id))), 0) & 63)::smallint')
)


class EventIdType(TypeDecorator[uuid.UUID]):
    """A UUID in 16 bytes, big-endian, so that v7 ids sort by time."""

    impl = sa.LargeBinary(16)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name in ("mysql", "mariadb"):
            return dialect.type_descriptor(mysql.BINARY(16))
        if dialect.name == "postgresql":
            return dialect.type_descriptor(postgresql.UUID(as_uuid=True))
        return dialect.type_descriptor(sa.LargeBinary(16))

    def process_bind_param(
        self, value: uuid.UUID | None, dialect: Dialect
    ) -> bytes | uuid.UUID | None:
        return value if value is None or dialect.name == "postgresql" else value.bytes

    def process_result_value(
        self, value: bytes | uuid.UUID | None, dialect: Dialect
    ) -> uuid.UUID | None:
        if value is None or isinstance(value, uuid.UUID):
            return value
        return uuid.UUID(bytes=bytes(value))


class InstantType(TypeDecorator[datetime]):
    """UTC without a zone, as the other databases have it, kept by PostgreSQL with its zone."""

    impl = postgresql.TIMESTAMP(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value if value is None or value.tzinfo else value.replace(tzinfo=UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)


def _variants(base: TypeEngine[Any], on_mysql: TypeEngine[Any]) -> TypeEngine[Any]:
    return base.with_variant(on_mysql, "mysql", "mariadb")


def _id() -> TypeEngine[Any]:
    # SQLite gives ids by itself only to INTEGER PRIMARY KEY.
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _small() -> TypeEngine[Any]:
    return _variants(sa.SmallInteger(), mysql.TINYINT())


def instant() -> TypeEngine[Any]:
    """The type of a moment: UTC, microseconds."""
    on_mysql = _variants(sa.DateTime(), mysql.DATETIME(fsp=6))
    return on_mysql.with_variant(InstantType(), "postgresql")


@dataclass(frozen=True, slots=True)
class Tables:
    """The tables of one outbox, named after it."""

    metadata: sa.MetaData
    outbox: sa.Table
    lease: sa.Table
    control: sa.Table
    version: sa.Table

    @property
    def pending_index(self) -> str:
        """The index that keeps a read cheap however many produced rows are kept."""
        return f"{self.outbox.name}_pending_ix"


_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_$]{0,47}")
MYSQL_OPTIONS: dict[str, Any] = {
    f"{name}_{option}": value
    for name in ("mysql", "mariadb")
    for option, value in (
        ("engine", "InnoDB"),
        ("charset", "utf8mb4"),
        ("collate", "utf8mb4_bin"),
    )
}

# MySQL 8.0.13 to 8.0.23 take a default that is an expression for a zero date, whenever a table is
# changed later: CREATE INDEX fails with "Invalid default value for 'created_at'". Here every
# mode goes but the one that says how names are quoted: the server warns about a half of them.
ALLOW_ZERO_DATES = (
    "SET @outbox_sql_mode = @@SESSION.sql_mode, SESSION sql_mode = "
    "IF(FIND_IN_SET('ANSI_QUOTES', @@SESSION.sql_mode), 'ANSI_QUOTES', '')"
)
AS_BEFORE = "SET SESSION sql_mode = @outbox_sql_mode"
ZERO_DATES_SINCE = (8, 0, 24)
"""From this release of MySQL on, changing the tables needs nothing of the kind."""


# Dead rows are cleared away after the same share of the table's growth, however large it is: the
# default, a fifth of the table, comes too late here. Payloads are compressed already.
POSTGRESQL_SETTINGS = (
    "ALTER TABLE %(fullname)s ALTER COLUMN payload SET STORAGE EXTERNAL, SET ("
    "autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 10000, "
    "autovacuum_vacuum_insert_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02, "
    "autovacuum_vacuum_cost_delay = 0)"
)
"""What PostgreSQL is told about the outbox table."""


def _on_mysql(statement: str) -> sa.ExecutableDDLElement:
    ddl = sa.DDL(statement)  # type: ignore[no-untyped-call]
    return ddl.execute_if(dialect=("mysql", "mariadb"))  # type: ignore[arg-type]


def _on_postgresql(statement: str) -> sa.ExecutableDDLElement:
    ddl = sa.DDL(statement)  # type: ignore[no-untyped-call]
    return ddl.execute_if(dialect="postgresql")


def new_metadata(name: str, *, schema: str | None) -> sa.MetaData:
    """For tables of *schema* that are named after *name*. Raises ValueError as `tables` does."""
    for identifier in (name, schema):
        if identifier is not None and not _IDENTIFIER.fullmatch(identifier):
            raise ValueError(
                f"{identifier!r} cannot name a table or schema: use a letter or _, then up to 47 of A-Z 0-9 _ $"
            )
    return sa.MetaData(schema=schema)


def tables(name: str = "outbox", *, schema: str | None = None) -> Tables:
    """
    The tables of the outbox called *name*.

    Raises ValueError if *name* or *schema* is not a plain SQL identifier of up to 48 characters:
    names become part of SQL text, so nothing else is let in.
    """
    metadata = new_metadata(name, schema=schema)
    outbox = _outbox(metadata, name)
    sa.event.listen(outbox, "before_create", _on_mysql(ALLOW_ZERO_DATES), propagate=True)
    sa.event.listen(outbox, "after_create", _on_mysql(AS_BEFORE), propagate=True)
    settings = _on_postgresql(POSTGRESQL_SETTINGS)
    sa.event.listen(outbox, "after_create", settings, propagate=True)
    return Tables(
        metadata,
        outbox,
        _lease(metadata, name),
        _control(metadata, name),
        _version(metadata, name),
    )


def _outbox(metadata: sa.MetaData, name: str) -> sa.Table:
    return sa.Table(
        name,
        metadata,
        # Only PostgreSQL has identity columns; they need no right on a sequence.
        sa.Column("id", _id(), sa.Identity(), primary_key=True, autoincrement=True),
        sa.Column("event_id", EventIdType(), nullable=False, server_default=new_event_id()),
        sa.Column("event_name", sa.String(MAX_NAME_CHARS), nullable=False),
        sa.Column("topic", sa.String(MAX_TOPIC_CHARS), nullable=False),
        sa.Column("key", _variants(sa.LargeBinary(), mysql.VARBINARY(MAX_KEY_BYTES))),
        sa.Column("lane", _small(), sa.Computed(lane_of_row(), persisted=True)),
        sa.Column("headers", _variants(sa.Text(), mysql.TEXT())),
        sa.Column(
            "content_type", sa.String(255), nullable=False, server_default="application/json"
        ),
        sa.Column("payload", _variants(sa.LargeBinary(), mysql.MEDIUMBLOB()), nullable=False),
        sa.Column("codec", _small(), nullable=False, server_default="0"),
        sa.Column("status", _small(), nullable=False, server_default="0"),
        sa.Column("attempts", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("available_at", instant()),
        sa.Column("created_at", instant(), nullable=False, server_default=utc_now()),
        sa.Column("produced_at", instant(), nullable=False, server_default=never()),
        sa.Column("dead_at", instant()),
        sa.Column("last_error", sa.String(MAX_ERROR_CHARS)),
        sa.CheckConstraint("(status = 2) = (last_error IS NOT NULL)", name=f"{name}_dead_ck"),
        sa.Index(
            f"{name}_pending_ix", "status", "id", "lane", postgresql_where=sa.text("status <> 1")
        ),
        sqlite_autoincrement=True,
        **MYSQL_OPTIONS,
    )


def _lease(metadata: sa.MetaData, name: str) -> sa.Table:
    return sa.Table(
        f"{name}_lease",
        metadata,
        sa.Column("lane", sa.SmallInteger(), primary_key=True, autoincrement=False),
        sa.Column("owner", sa.String(255), nullable=False, server_default=""),
        sa.Column("term", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("nonce", sa.String(32), nullable=False, server_default=""),
        sa.Column("expires_at", instant(), nullable=False, server_default=never()),
        sa.Column("wake_address", sa.String(255), nullable=False, server_default=""),
        sa.Column("server", sa.String(255), nullable=False, server_default=""),
        sa.Column("noted_id", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("crash_count", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("suspect_first_id", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("suspect_last_id", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("suspect_term", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("suspect_count", sa.Integer(), nullable=False, server_default="0"),
        **MYSQL_OPTIONS,
    )


def _control(metadata: sa.MetaData, name: str) -> sa.Table:
    return sa.Table(
        f"{name}_control",
        metadata,
        sa.Column("topic", sa.String(MAX_TOPIC_CHARS), primary_key=True),
        sa.Column("paused_at", instant(), nullable=False, server_default=utc_now()),
        sa.Column("reason", sa.String(255), nullable=False, server_default=""),
        **MYSQL_OPTIONS,
    )


def _version(metadata: sa.MetaData, name: str) -> sa.Table:
    return sa.Table(
        f"{name}_version",
        metadata,
        sa.Column("version", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("min_reader", sa.Integer(), nullable=False),
        sa.Column("migrated_at", instant(), nullable=False, server_default=utc_now()),
        **MYSQL_OPTIONS,
    )


def is_one_of(column: sa.ColumnElement[str], names: Sequence[str]) -> sa.ColumnElement[bool]:
    """Whether the text in *column* is one of *names*, exactly: MySQL would let spaces at its end go."""
    return (column + ".").in_([f"{name}." for name in names])


def schema_problem(version: int | None, min_reader: int | None) -> str | None:
    """
    Why this release cannot serve tables of *version*, or None if it can. Says what mends it.

    >>> schema_problem(1, 1) is None
    True
    """
    if version is None or min_reader is None:
        return "the outbox tables do not exist: run `outbox-relay migrate`"
    if version < OLDEST_SUPPORTED_VERSION:
        return (
            f"the outbox tables are at version {version}, this release needs "
            f"{OLDEST_SUPPORTED_VERSION} or later: run `outbox-relay migrate`"
        )
    if min_reader > SCHEMA_VERSION:
        return (
            f"the outbox tables (version {version}) need a relay that reads version {min_reader}, "
            f"this release reads {SCHEMA_VERSION}: upgrade outbox-relay"
        )
    return None
