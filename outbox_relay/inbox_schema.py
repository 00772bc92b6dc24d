"""
The inbox: which events a consumer has handled. In the consuming service's own database.

Two tables. ``inbox`` has a row for each event; ``inbox_latest``, for `reject_stale` only, one for each
key of a topic. They have no version beside them: a column that is added later is left to its default,
so that older releases go on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from outbox_relay.schema import MYSQL_OPTIONS, EventIdType, instant, new_metadata

MAX_CONSUMER_CHARS = 100


@dataclass(frozen=True, slots=True)
class InboxTables:
    """The tables of one inbox, named after it."""

    metadata: sa.MetaData
    inbox: sa.Table
    latest: sa.Table


def inbox_tables(name: str = "inbox", *, schema: str | None = None) -> InboxTables:
    """
    The tables of the inbox called *name*.

    Raises ValueError if *name* or *schema* is not a plain SQL identifier of up to 48 characters.
    """
    metadata = new_metadata(name, schema=schema)
    inbox = sa.Table(
        name,
        metadata,
        _consumer(),
        sa.Column("event_id", EventIdType(), primary_key=True),
        sa.Column("received_at", instant(), nullable=False),
        sa.Index(f"{name}_received_ix", "consumer", "received_at"),
        **MYSQL_OPTIONS,
    )
    latest = sa.Table(
        f"{name}_latest",
        metadata,
        _consumer(),
        sa.Column("scope", EventIdType(), primary_key=True),
        sa.Column("event_id", EventIdType(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("event_at", instant(), nullable=False),
        sa.Column("received_at", instant(), nullable=False),
        sa.Index(f"{name}_latest_received_ix", "consumer", "received_at"),
        **MYSQL_OPTIONS,
    )
    return InboxTables(metadata, inbox, latest)


def sql_script(dialect: str, *, table: str = "inbox", schema: str | None = None) -> str:
    """
    The statements that make the tables, for whoever may not run DDL by program.

    *dialect* is "mysql", "mariadb", "postgresql" or "sqlite". Connects to nothing.
    """
    target = sa.engine.make_url(f"{dialect}://").get_dialect()()
    statements: list[sa.schema.ExecutableDDLElement] = []
    for known in inbox_tables(table, schema=schema).metadata.sorted_tables:
        statements.append(sa.schema.CreateTable(known))
        statements += [sa.schema.CreateIndex(index) for index in known.indexes]
    return "".join(f"{str(each.compile(dialect=target)).strip()};\n\n" for each in statements)


def upgrade(op: Any, *, table: str = "inbox", schema: str | None = None) -> None:
    """
    Make the tables inside a revision of your own, which passes Alembic's `op`.

    What is there already stays as it is, except with ``alembic upgrade --sql``, which cannot look.
    """
    is_there = None if op.get_context().as_sql else sa.inspect(op.get_bind()).has_table
    for known in inbox_tables(table, schema=schema).metadata.sorted_tables:
        if is_there is None or not is_there(known.name, schema):
            op.execute(sa.schema.CreateTable(known))
            for index in known.indexes:
                op.execute(sa.schema.CreateIndex(index))


def downgrade(op: Any, *, table: str = "inbox", schema: str | None = None) -> None:
    """
    Drop the tables: the way back from `upgrade`.

    From then on a repeated delivery is handled again: stop the consumer first.
    """
    for known in reversed(inbox_tables(table, schema=schema).metadata.sorted_tables):
        op.drop_table(known.name, schema=schema, if_exists=True)


def _consumer() -> sa.Column[str]:
    return sa.Column("consumer", sa.String(MAX_CONSUMER_CHARS), primary_key=True)
