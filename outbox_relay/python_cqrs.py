"""
The outbox table of python-cqrs, releases 0.0.12 to 5.3: the one home of its columns and states.

A relay may work on that table in place. What it needs besides (lease, paused topics, version, the
reasons of dead letters) is in tables of ours, named after it; of the foreign table itself only
`event_status` and `flush_counter` are ever changed, and never those of a row that is PRODUCED.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

from outbox_relay.compression import ZLIB_STARTS
from outbox_relay.errors import SchemaMismatch
from outbox_relay.schema import (
    MAX_ERROR_CHARS,
    MAX_KEY_BYTES,
    SCHEMA_VERSION,
    Codec,
    Status,
    Tables,
    tables,
    utc_now,
)

PENDING_STATES: Final = ("NEW", "NOT_PRODUCED")
"""What its relay selects, while `flush_counter` is below `MOST_FLUSHES`."""

MOST_FLUSHES: Final = 5
"""Its relay never selects a row again that failed so often (MAX_FLUSH_COUNTER_VALUE)."""

GIVEN_UP: Final = 100
"""`flush_counter` of a row that this relay gave up: its relay does not select it either."""

ABANDONED: Final = "abandoned"
ABANDONED_ERROR: Final = (
    f"{ABANDONED}: the relay of python-cqrs gave it up after {MOST_FLUSHES} attempts"
)
"""The reason of rows that were given up before."""

MAX_PAYLOAD_BYTES: Final = 65_535
"""Its BLOB on MySQL holds no more: a larger event fails the application's own transaction."""

_NEEDED: Final = frozenset(
    {
        "id",
        "event_id",
        "event_id_bin",
        "event_status",
        "flush_counter",
        "event_name",
        "created_at",
        "payload",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What differs between its releases."""

    has_topic: bool
    """Since 0.2; before, every event went to the topics of the relay's own settings."""

    has_event_type: bool
    """Up to 1.0.0: then `payload` holds the event's payload alone, and its relay made the rest."""

    text_ids: bool
    """Up to 4.10.0 `event_id` is 32 hexadecimal digits; later 16 bytes, or PostgreSQL's uuid."""

    def envelope(self, told: str) -> str | None:
        """The name of the envelope around its rows' payloads, unless they hold the whole document."""
        if not self.has_event_type:
            return None
        if told != "auto":
            return told
        return "python-cqrs-3" if self.has_topic else "python-cqrs-0"

    def key_of(self, plain: bytes, path: Sequence[str]) -> bytes | None:
        """The key of an event, where *plain* is what its row holds. *path* is that in the document."""
        if not path:
            return None
        if not self.has_event_type:
            return key_at(plain, path)
        return key_at(plain, path[1:]) if path[0] == "payload" else None

    @property
    def releases(self) -> str:
        """The releases that make such a table, as far as they were looked at."""
        if self.has_event_type:
            return "0.2 to 1.0" if self.has_topic else "0.0.12 to 0.0.15"
        return "2.6 to 4.10.0" if self.text_ids else "4.10.1 to 5.3"


NEWEST: Final = Layout(has_topic=True, has_event_type=False, text_ids=False)


def recognise(table: str, types: Mapping[str, str]) -> Layout:
    """
    The layout of a table with the columns *types*, name to type.

    Raises SchemaMismatch if python-cqrs made no such table.

    >>> types = dict.fromkeys(_NEEDED, "bigint") | {"event_id": "char(32)", "topic": "varchar"}
    >>> recognise("outbox", types).releases
    '2.6 to 4.10.0'
    """
    if not types:
        raise SchemaMismatch(
            f"there is no table {table}: correct database.table or database.schema"
        )
    missing = sorted(_NEEDED - types.keys())
    if missing:
        raise SchemaMismatch(
            f"{table} is not a table of python-cqrs: it has no column {', '.join(missing)}; "
            'correct database.table, or leave out database.layout = "python-cqrs"'
        )
    layout = Layout(
        has_topic="topic" in types,
        has_event_type="event_type" in types,
        text_ids="char" in types["event_id"].lower(),
    )
    if not layout.has_topic and not layout.has_event_type:
        raise SchemaMismatch(f"{table} is not a table of python-cqrs: it has no column topic")
    return layout


def codec_of(stored: bytes, told: str) -> Codec:
    """
    How *stored* is stored; *told* is ``sniff``, ``raw`` or ``zlib``.

    >>> codec_of(b'{"a": 1}', "sniff").name, codec_of(b"x\\x9c...", "sniff").name
    ('RAW', 'ZLIB')
    """
    if told == "sniff":
        return Codec.ZLIB if stored[:2] in ZLIB_STARTS else Codec.RAW
    return Codec[told.upper()]


def key_at(document: bytes, path: Sequence[str]) -> bytes | None:
    """
    The value at *path* in a JSON document, as a key; None if there is none, or it is too long for one.

    >>> key_at(b'{"payload": {"user_id": 7}}', ["payload", "user_id"])
    b'7'
    """
    try:
        found: Any = json.loads(document)
        for name in path:
            found = found[name]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    if found is None:
        return None
    text = found if isinstance(found, str) else json.dumps(found, separators=(",", ":"))
    key = text.encode(errors="surrogatepass")
    return key if len(key) <= MAX_KEY_BYTES else None


def state(name: str) -> sa.ColumnElement[str]:
    """
    A state in a statement.

    As a literal: on PostgreSQL its type, wherever that is, must not be named.
    """
    return sa.literal_column(f"'{name}'", sa.String())


def _waits(c: Any) -> sa.ColumnElement[bool]:
    """Whether the row has a state in which rows wait, whatever its counter says."""
    wanted: sa.ColumnElement[bool] = c.event_status.in_([state(name) for name in PENDING_STATES])
    return wanted


class _UuidOfBytes(TypeDecorator[UUID]):
    """A UUID in 16 plain bytes on every database."""

    impl = sa.LargeBinary
    cache_ok = True

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> UUID | None:
        return None if value is None else UUID(bytes=bytes(value))


@dataclass(frozen=True, slots=True)
class AdoptedTables:
    """The foreign table, as far as we name its columns, and ours beside it."""

    outbox: sa.Table
    dead: sa.Table
    beside: Tables
    """Of these: lease, control and version. Its `outbox` is not there."""
    layout: Layout

    @property
    def index(self) -> str:
        """The index by which rows are read: python-cqrs makes none."""
        return f"{self.outbox.name}_relay_ix"

    def by_index(self, chosen: sa.Select[Any]) -> sa.Select[Any]:
        """*chosen* by the index. Unhinted, MySQL passes the whole history for the first few by id."""
        hint = f"FORCE INDEX ({self.index})"
        return chosen.with_hint(self.outbox, hint, "mysql").with_hint(self.outbox, hint, "mariadb")

    def pending(self) -> sa.ColumnElement[bool]:
        """What its own relay would select too."""
        c = self.outbox.c
        return sa.and_(_waits(c), c.flush_counter < MOST_FLUSHES)

    def given_up(self) -> sa.ColumnElement[bool]:
        """
        What neither relay selects any more.

        Also what somebody made NEW again by hand without its counter: its relay passes it over.
        """
        c = self.outbox.c
        return sa.and_(_waits(c), c.flush_counter >= MOST_FLUSHES)

    def seconds_waited(self, connection: sa.Connection) -> sa.ColumnElement[Any]:
        """How long ago the oldest pending row was created, by the server's clock and zone."""
        c = self.outbox.c
        firsts = [
            self.by_index(
                sa.select(c.created_at)
                .where(c.event_status == state(name), c.flush_counter < MOST_FLUSHES)
                .order_by(c.id)
                .limit(1)
            ).scalar_subquery()
            for name in PENDING_STATES
        ]
        new, failed = firsts
        oldest = sa.func.least(sa.func.coalesce(new, failed), sa.func.coalesce(failed, new))
        if connection.dialect.name == "postgresql":
            return sa.extract("epoch", sa.func.localtimestamp() - oldest)
        return sa.func.timestampdiff(sa.text("SECOND"), oldest, sa.func.now())

    def _codec(self, told: str) -> sa.ColumnElement[int]:
        """As `codec_of`, in the database."""
        if told != "sniff":
            return sa.literal(int(Codec[told.upper()]))
        is_zlib = sa.func.substr(self.outbox.c.payload, 1, 2).in_(ZLIB_STARTS)
        return sa.case((is_zlib, int(Codec.ZLIB)), else_=int(Codec.RAW))

    def dead_letters(self, topic: str, stored_as: str) -> sa.Subquery:
        """
        The rows that were given up, in the columns of our own table.

        *topic* and *stored_as* are database.layout_topic and layout_payload.
        """
        c, d = self.outbox.c, self.dead.c
        named = sa.literal(topic) if "topic" not in c else sa.func.coalesce(
            sa.func.nullif(c.topic, ""), topic
        )  # fmt: skip
        chosen = (
            sa.select(
                c.id,
                sa.type_coerce(c.event_id_bin, _UuidOfBytes()).label("event_id"),
                c.event_name,
                named.label("topic"),
                d.key,
                sa.null().label("headers"),
                sa.literal("application/json").label("content_type"),
                self._codec(stored_as).label("codec"),
                c.payload,
                c.flush_counter.label("attempts"),
                c.created_at,
                d.dead_at,
                sa.func.coalesce(d.last_error, ABANDONED_ERROR).label("last_error"),
                sa.literal(int(Status.DEAD)).label("status"),
            )
            # Below, a reason is that of an earlier time, or of a mark that never came.
            .select_from(
                self.outbox.outerjoin(self.dead, sa.and_(c.id == d.id, c.flush_counter >= GIVEN_UP))
            )
            .where(self.given_up())
        )
        return self.by_index(chosen).subquery("dead_letters")


def adopted_tables(
    name: str = "outbox", *, schema: str | None = None, layout: Layout = NEWEST
) -> AdoptedTables:
    """
    The foreign table *name* and the tables beside it.

    Raises ValueError as `outbox_relay.schema.tables` does.
    """
    beside = tables(name, schema=schema)
    foreign = sa.MetaData(schema=schema)
    columns: list[sa.Column[Any]] = [
        sa.Column("id", sa.BigInteger(), primary_key=True),
        sa.Column("event_id_bin", sa.LargeBinary()),
        sa.Column("event_status", sa.String(16)),
        sa.Column("flush_counter", sa.SmallInteger()),
        sa.Column("event_name", sa.String(255)),
        sa.Column("created_at", sa.DateTime()),
        sa.Column("payload", sa.LargeBinary()),
    ]
    if layout.has_topic:
        columns.append(sa.Column("topic", sa.String(255)))
    if layout.has_event_type:
        columns.append(sa.Column("event_type", sa.String(32)))
    dead = sa.Table(
        f"{name}_dead",
        beside.metadata,
        sa.Column("id", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("topic", sa.String(255), nullable=False),
        sa.Column("key", _bytes(MAX_KEY_BYTES)),
        sa.Column(
            "dead_at", beside.outbox.c.dead_at.type, nullable=False, server_default=utc_now()
        ),
        sa.Column("last_error", sa.String(MAX_ERROR_CHARS), nullable=False),
        **beside.lease.dialect_kwargs,
    )
    return AdoptedTables(sa.Table(name, foreign, *columns), dead, beside, layout)


def adopted_in(connection: sa.Connection, name: str, schema: str | None) -> AdoptedTables:
    """The tables, as the release that made them. Raises SchemaMismatch if python-cqrs made none."""
    if connection.dialect.name not in ("mysql", "mariadb", "postgresql"):
        raise SchemaMismatch("python-cqrs cannot write to SQLite: name its server in database.url")
    inspector = sa.inspect(connection)
    types = {}
    if inspector.has_table(name, schema=schema):
        columns = inspector.get_columns(name, schema=schema)
        types = {column["name"]: str(column["type"]) for column in columns}
    return adopted_tables(name, schema=schema, layout=recognise(name, types))


def index_there(dialect_name: str, names: AdoptedTables) -> str:
    """A query with a row, if the index is there and whole."""
    schema = names.outbox.schema
    if dialect_name == "postgresql":
        index = ".".join(f'"{part}"' for part in (schema, names.index) if part)
        return f"SELECT 1 FROM pg_index WHERE indexrelid = to_regclass('{index}') AND indisvalid"
    where = f"'{schema}'" if schema else "DATABASE()"
    return (
        f"SELECT 1 FROM information_schema.statistics WHERE table_schema = {where} "
        f"AND table_name = '{names.outbox.name}' AND index_name = '{names.index}' LIMIT 1"
    )


def _bytes(length: int) -> Any:
    return sa.LargeBinary().with_variant(mysql.VARBINARY(length), "mysql", "mariadb")


def beside_problem(version: int | None, min_reader: int | None, *, has_index: bool) -> str | None:
    """Why this release cannot serve the table, or None. Says what mends it."""
    prepare = "run `outbox-relay adopt python-cqrs --prepare`"
    if version is None or min_reader is None:
        return f"the tables of the relay beside python-cqrs's outbox do not exist: {prepare}"
    if min_reader > SCHEMA_VERSION:
        return (
            f"the tables beside the outbox (version {version}) need a relay that reads version "
            f"{min_reader}, this release reads {SCHEMA_VERSION}: upgrade outbox-relay"
        )
    if not has_index:
        return f"python-cqrs's outbox has no index by which a relay could read it: {prepare}"
    return None
