"""
The inbox' statements. Each is made once, for each dialect that says "unless it is there" its own way.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.engine import Connection
from sqlalchemy.sql.dml import Insert

from outbox_relay.consumer.record import ConsumedRecord
from outbox_relay.inbox_schema import InboxTables
from outbox_relay.schema import NOT_YET, utc_now

_MYSQL: Final = ("mysql", "mariadb")
_INSERTED: Final = 1
_A_MICROSECOND_LATER: Final = sa.text("received_at + INTERVAL 1 MICROSECOND")
_UPDATED: Final = 2  # what MySQL counts for a row that ON DUPLICATE KEY UPDATE has changed


class Statements:
    """
    What an inbox executes.

    On MySQL and MariaDB a duplicate changes its row by a microsecond, so that affected rows tell it from
    an insert: a row that is left as it is counts 1 there as well, for clients that ask for found rows, as
    SQLAlchemy does. INSERT IGNORE would hide other errors, and asyncmy logs each row that it ignored.
    """

    def __init__(self, tables: InboxTables) -> None:
        self._latest = tables.latest
        self.remember_any = sa.insert(tables.inbox)
        row = _parameters("consumer", "event_id")
        on_mysql = mysql.insert(tables.inbox).values(row)
        touching = _counted(on_mysql.on_duplicate_key_update(received_at=_A_MICROSECOND_LATER))
        standard = [
            _counted(insert(tables.inbox).values(row).on_conflict_do_nothing())
            for insert in (postgresql.insert, sqlite.insert)
        ]
        self._remember: Mapping[str, Insert] = {
            "mysql": touching,
            "mariadb": touching,
            "postgresql": standard[0],
            "sqlite": standard[1],
        }
        noting = _upsert_on_mysql(tables.latest)
        self._note_latest: Mapping[str, Insert] = {
            "mysql": noting,
            "mariadb": noting,
            "postgresql": _upsert(postgresql.insert, tables.latest),
            "sqlite": _upsert(sqlite.insert, tables.latest),
        }

    def is_first(self, connection: Connection, values: Mapping[str, Any]) -> bool:
        """Remember the event of *values*, unless it is remembered. Waits for a concurrent one."""
        count: int = connection.execute(self._remember[connection.dialect.name], values).rowcount
        if count not in (0, _INSERTED, _UPDATED):
            # To take a driver that counts nothing for "inserted" would handle every duplicate.
            raise RuntimeError(f"{connection.dialect.driver} says that {count} rows were inserted")
        return count == _INSERTED

    def is_latest(self, connection: Connection, values: Mapping[str, Any]) -> bool:
        """
        Note the event of *values* as the latest of its scope, unless a later one came before.

        Whether it is the latest: also if it was noted before, as what is replayed was.
        """
        dialect = connection.dialect.name
        changed: int = connection.execute(self._note_latest[dialect], values).rowcount
        if changed == (_UPDATED if dialect in _MYSQL else _INSERTED):
            return True
        # Found and left as it is; on MySQL perhaps inserted. The lock is ours; a plain SELECT could
        # read an older snapshot.
        row = self._latest.c
        mine = sa.select(row.event_id).where(
            row.consumer == values["consumer"], row.scope == values["scope"]
        )
        latest: uuid.UUID = connection.execute(mine.with_for_update()).scalar_one()
        return bool(latest == values["event_id"])


def latest_values(record: ConsumedRecord) -> dict[str, Any]:
    """
    What the table of latest events is told of *record*.

    The scope is source, topic and key: an `outbox-seq` means something within one outbox only.
    """
    names = [name.encode(errors="surrogatepass") for name in (record.source, record.topic)]
    scope = b"\0".join([*names, b"+" + (record.key or b"")])
    at: datetime = record.time or NOT_YET
    return {
        "scope": uuid.UUID(bytes=hashlib.sha256(scope).digest()[:16]),
        "seq": record.sequence,
        "event_at": at.astimezone(UTC).replace(tzinfo=None),
    }


def _parameters(*names: str) -> dict[str, Any]:
    return {**{name: sa.bindparam(name) for name in names}, "received_at": utc_now()}


def _counted(statement: Any) -> Any:
    # Of an INSERT, SQLAlchemy keeps the number of rows only where it is asked to.
    return statement.execution_options(preserve_rowcount=True)


_LATEST: Final = ("consumer", "scope", "event_id", "seq", "event_at")


def _upsert(insert: Callable[[sa.Table], Any], table: sa.Table) -> Any:
    statement = insert(table).values(_parameters(*_LATEST))
    new, old = statement.excluded, table.c
    upsert = statement.on_conflict_do_update(
        index_elements=["consumer", "scope"],
        set_={name: new[name] for name in ("event_id", "seq", "event_at", "received_at")},
        where=_is_later(new, old),
    )
    return _counted(upsert)


def _upsert_on_mysql(table: sa.Table) -> Any:
    statement = mysql.insert(table).values(_parameters(*_LATEST))
    new, old = statement.inserted, table.c
    # Assignments work from left to right on what is already assigned: the first one decides, the
    # others ask who won.
    won = old.event_id == new.event_id
    decided = sa.func.if_(_is_later(new, old), new.event_id, old.event_id)
    upsert = statement.on_duplicate_key_update(
        [
            ("event_id", decided),
            *(
                (name, sa.func.if_(won, new[name], old[name]))
                for name in ("seq", "event_at", "received_at")
            ),
        ]
    )
    return _counted(upsert)


def _is_later(new: Any, old: Any) -> sa.ColumnElement[bool]:
    # A lower number with a later time is no older event: the outbox was restored, or failed over to
    # a replica, and gives its numbers again. To reject it would lose its effect.
    return sa.or_(new.seq > old.seq, new.event_at > old.event_at)
