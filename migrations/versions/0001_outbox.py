"""
The outbox and the tables beside it, at version 1.

Safe to repeat after a stop in the middle, since MySQL and MariaDB commit each CREATE TABLE by itself.
The version is written last, so half-built tables are never taken for whole ones.

Lock on MariaDB: nothing that anybody waits for: it creates tables.
Lock on MySQL: nothing that anybody waits for: it creates tables.
Lock on PostgreSQL: nothing that anybody waits for: it creates tables.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql, postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

VERSION = 1
MIN_READER = 1
NEVER = "1970-01-01 00:00:00.000000"

# What differs between databases. MySQL 8 (8.0.15 ignores the CHECK) and MariaDB share their
# expressions; a database that is not here is refused.
DIALECTS: dict[str, dict[str, Any]] = {
    "mysql": {
        "lanes": 64,
        "new_event_id": "(unhex(replace(uuid(),'-','')))",
        "utc_now": "(utc_timestamp(6))",
        "lane": "(mod(crc32(coalesce(`key`,`event_id`)), 64))",
        "id": sa.BigInteger(),
        "event_id": mysql.BINARY(16),
        "key": mysql.VARBINARY(1024),
        "headers": mysql.TEXT(),
        "payload": mysql.MEDIUMBLOB(),
        "small": mysql.TINYINT(),
        "instant": mysql.DATETIME(fsp=6),
    },
    "sqlite": {
        "lanes": 1,  # one writer at a time, so one lane
        "new_event_id": "(randomblob(16))",
        "utc_now": "(strftime('%Y-%m-%d %H:%M:%f000','now'))",
        "lane": "(0)",
        "id": sa.Integer(),  # SQLite gives ids by itself only to INTEGER PRIMARY KEY
        "event_id": sa.LargeBinary(16),
        "key": sa.LargeBinary(),
        "headers": sa.Text(),
        "payload": sa.LargeBinary(),
        "small": sa.SmallInteger(),
        "instant": sa.DateTime(),
    },
    "postgresql": {
        "lanes": 64,
        "new_event_id": "gen_random_uuid()",
        "utc_now": "statement_timestamp()",
        "lane": '(get_byte(sha256(coalesce("key", uuid_send(event_id))), 0) & 63)::smallint',
        "id": sa.BigInteger(),
        "identity": [sa.Identity()],  # unlike bigserial, a writer needs no right on a sequence
        "event_id": postgresql.UUID(),
        "key": sa.LargeBinary(),
        "headers": sa.Text(),
        "payload": sa.LargeBinary(),
        "small": sa.SmallInteger(),
        "instant": postgresql.TIMESTAMP(timezone=True),
        "never": "1970-01-01 00:00:00+00",
        # Produced rows, of which there may be millions, are not in the index.
        "index": {"postgresql_where": sa.text("status <> 1")},
        # Dead rows are cleared away after the same share of the table's growth, however large it
        # is: the default, a fifth of the table, comes too late here. Payloads are compressed
        # already.
        "settings": (
            "ALTER TABLE {} ALTER COLUMN payload SET STORAGE EXTERNAL, SET ("
            "autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 10000, "
            "autovacuum_vacuum_insert_scale_factor = 0.02, "
            "autovacuum_analyze_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0)"
        ),
    },
}
DIALECTS["mariadb"] = DIALECTS["mysql"]

# Said here because a server's own defaults may be latin1 or MyISAM.
OPTIONS = {
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


def upgrade(table: str = "outbox", schema: str | None = None) -> None:
    """Create what is not there yet, then write the version."""
    name = op.get_context().dialect.name
    if name not in DIALECTS:
        raise NotImplementedError(f"this revision has no tables for {name}")
    parts = DIALECTS[name]
    _outbox(table, schema, parts)
    _lease(table, schema, parts)
    _control(table, schema, parts)
    _version(table, schema, parts)
    _lanes(table, schema, parts["lanes"])
    _write_version(table, schema)


def downgrade(table: str = "outbox", schema: str | None = None) -> None:
    """There is no way back: it would throw away events that nobody has published."""
    raise NotImplementedError("migrations of the outbox go forward only")


def _outbox(table: str, schema: str | None, parts: dict[str, Any]) -> None:
    op.create_table(
        table,
        sa.Column(
            "id", parts["id"], *parts.get("identity", ()), primary_key=True, autoincrement=True
        ),
        sa.Column(
            "event_id",
            parts["event_id"],
            nullable=False,
            server_default=sa.text(parts["new_event_id"]),
        ),
        sa.Column("event_name", sa.String(255), nullable=False),
        sa.Column("topic", sa.String(249), nullable=False),
        sa.Column("key", parts["key"]),
        sa.Column("lane", parts["small"], sa.Computed(parts["lane"], persisted=True)),
        sa.Column("headers", parts["headers"]),
        sa.Column(
            "content_type", sa.String(255), nullable=False, server_default="application/json"
        ),
        sa.Column("payload", parts["payload"], nullable=False),
        sa.Column("codec", parts["small"], nullable=False, server_default="0"),
        sa.Column("status", parts["small"], nullable=False, server_default="0"),
        sa.Column("attempts", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("available_at", parts["instant"]),
        _now("created_at", parts),
        _never("produced_at", parts),
        sa.Column("dead_at", parts["instant"]),
        sa.Column("last_error", sa.String(1000)),
        sa.CheckConstraint("(status = 2) = (last_error IS NOT NULL)", name=f"{table}_dead_ck"),
        sqlite_autoincrement=True,  # an id never comes back
        if_not_exists=True,
        schema=schema,
        **OPTIONS,
    )
    # Without a connection the statements are for tables that do not exist.
    if op.get_context().as_sql or not sa.inspect(op.get_bind()).has_index(
        table, f"{table}_pending_ix", schema
    ):
        _index(table, schema, parts)
    if "settings" in parts:
        quote = op.get_context().dialect.identifier_preparer.quote_identifier
        name = ".".join(quote(part) for part in (schema, table) if part)
        op.execute(parts["settings"].format(name))


def _index(table: str, schema: str | None, parts: dict[str, Any]) -> None:
    is_mysql = op.get_context().dialect.name in ("mysql", "mariadb")
    if is_mysql:
        op.execute(ALLOW_ZERO_DATES)
    columns = ["status", "id", "lane"]
    op.create_index(f"{table}_pending_ix", table, columns, schema=schema, **parts.get("index", {}))
    if is_mysql:
        op.execute(AS_BEFORE)


def _lease(table: str, schema: str | None, parts: dict[str, Any]) -> None:
    op.create_table(
        f"{table}_lease",
        sa.Column("lane", sa.SmallInteger(), primary_key=True, autoincrement=False),
        sa.Column("owner", sa.String(255), nullable=False, server_default=""),
        sa.Column("term", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("nonce", sa.String(32), nullable=False, server_default=""),
        _never("expires_at", parts),
        sa.Column("wake_address", sa.String(255), nullable=False, server_default=""),
        sa.Column("server", sa.String(255), nullable=False, server_default=""),
        sa.Column("noted_id", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("crash_count", sa.Integer(), nullable=False, server_default="0"),
        if_not_exists=True,
        schema=schema,
        **OPTIONS,
    )


def _control(table: str, schema: str | None, parts: dict[str, Any]) -> None:
    op.create_table(
        f"{table}_control",
        sa.Column("topic", sa.String(249), primary_key=True),
        _now("paused_at", parts),
        sa.Column("reason", sa.String(255), nullable=False, server_default=""),
        if_not_exists=True,
        schema=schema,
        **OPTIONS,
    )


def _version(table: str, schema: str | None, parts: dict[str, Any]) -> None:
    op.create_table(
        f"{table}_version",
        sa.Column("version", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("min_reader", sa.Integer(), nullable=False),
        _now("migrated_at", parts),
        if_not_exists=True,
        schema=schema,
        **OPTIONS,
    )


def _now(column: str, parts: dict[str, Any]) -> sa.Column[Any]:
    default = sa.text(parts["utc_now"].replace(":", "\\:"))
    return sa.Column(column, parts["instant"], nullable=False, server_default=default)


def _never(column: str, parts: dict[str, Any]) -> sa.Column[Any]:
    never = parts.get("never", NEVER)
    return sa.Column(column, parts["instant"], nullable=False, server_default=never)


def _lanes(table: str, schema: str | None, lanes: int) -> None:
    lease = sa.table(f"{table}_lease", sa.column("lane", sa.SmallInteger()), schema=schema)
    there: set[int] = set()
    if not op.get_context().as_sql:
        there.update(op.get_bind().execute(sa.select(lease.c.lane)).scalars())
    missing = [{"lane": lane} for lane in range(lanes) if lane not in there]
    if missing:
        op.execute(sa.insert(lease).values(missing))


def _write_version(table: str, schema: str | None) -> None:
    version = sa.table(
        f"{table}_version",
        sa.column("version", sa.Integer()),
        sa.column("min_reader", sa.Integer()),
        schema=schema,
    )
    op.bulk_insert(version, [{"version": VERSION, "min_reader": MIN_READER}])
