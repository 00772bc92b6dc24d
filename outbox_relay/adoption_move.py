"""
Moving what waits in a table of python-cqrs into a table of ours, a few rows in each transaction.

Each row is in exactly one of the two, whenever this ends; the same call goes on with the rest.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from outbox_relay.adoption import connected
from outbox_relay.adoption_prepare import relay_at_work
from outbox_relay.compression import UnreadablePayload, inflate
from outbox_relay.errors import SchemaMismatch, StoreUnavailable
from outbox_relay.migrate import read_version
from outbox_relay.python_cqrs import (
    MOST_FLUSHES,
    PENDING_STATES,
    AdoptedTables,
    adopted_in,
    codec_of,
    index_there,
    state,
)
from outbox_relay.relay.envelope import ENVELOPES, Parts
from outbox_relay.schema import (
    MAX_PAYLOAD_BYTES,
    MAX_TOPIC_CHARS,
    Codec,
    Tables,
    schema_problem,
    tables,
)
from outbox_relay.store.options import DatabaseOptions

ROWS_AT_ONCE: Final = 500
LOCK_SECONDS: Final = 5
"""How long it waits for an application that has not committed."""

_LOCKED: Final = (1205, "55P03")
"""What MySQL and PostgreSQL call a lock that did not come in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """What there is to move, and what stays because it was given up."""

    rows: int
    given_up: int


@dataclass(slots=True)
class Move:
    """
    From the table that *options* name to the table *to* beside it, in order of id.

    The rows keep what goes on the wire: their payload is the whole document. With *payload_only* it is
    what the document has under ``payload``, for a relay with ``wire.envelope``.
    """

    options: DatabaseOptions
    to: str
    payload_only: bool = False
    rows_at_once: int = ROWS_AT_ONCE
    moved: Callable[[int], None] = field(default=lambda _: None)

    def run(self) -> int:
        """
        Move all that waits. How many rows they were.

        Raises SchemaMismatch unless both tables are there, StoreUnavailable while a relay of ours or a
        transaction of an application is at work on the first one.
        """
        return connected(self.options, self._all, isolation="READ COMMITTED")

    def waiting(self) -> Waiting:
        """How much there is to move, by the index alone. Moves nothing; raises as `run` does."""
        return connected(self.options, self._waiting)

    def _waiting(self, connection: sa.Connection) -> Waiting:
        names, _ = self._tables(connection)

        def count(wanted: sa.ColumnElement[bool]) -> int:
            rows = sa.select(sa.func.count()).select_from(names.outbox).where(wanted)
            return int(connection.execute(names.by_index(rows)).scalar_one())

        return Waiting(rows=count(names.pending()), given_up=count(names.given_up()))

    def _all(self, connection: sa.Connection) -> int:
        names, ours = self._tables(connection)
        connection.commit()
        total = 0
        while True:
            try:
                with connection.begin():
                    rows = self._some(connection, names, ours)
            except sa.exc.DBAPIError as error:
                if _code(error) not in _LOCKED:
                    raise
                raise StoreUnavailable(
                    f"a transaction on {names.outbox.name} has not ended within {LOCK_SECONDS} s (error "
                    f"{_code(error)}), after {total:,} rows were moved: stop what writes there and the "
                    "old relay, then run the same command"
                ) from error
            if not rows:
                return total
            total += rows
            self.moved(rows)

    def _tables(self, connection: sa.Connection) -> tuple[AdoptedTables, Tables]:
        schema = self.options.schema or None
        names = adopted_in(connection, self.options.table, schema)
        has_index = connection.exec_driver_sql(index_there(connection.dialect.name, names)).first()
        if has_index is None:
            raise SchemaMismatch(
                f"{names.outbox.name} has no index by which its rows are found in order: run "
                "`outbox-relay adopt python-cqrs --prepare`"
            )
        if self.to == self.options.table:
            raise SchemaMismatch(f"{self.to} is the table of python-cqrs itself: name another")
        ours = tables(self.to, schema=schema)
        problem = schema_problem(*read_version(connection, ours))
        if problem is not None:
            raise SchemaMismatch(
                f"{self.to}: {problem}, here `outbox-relay migrate {self._settings_of_ours()}`"
            )
        return names, ours

    def _settings_of_ours(self) -> str:
        """What makes a configuration for the old table one for the new table."""
        told = ["layout=outbox", f"table={self.to}"]
        told += [
            f"{name}="
            for name in ("layout_topic", "layout_key_path")
            if getattr(self.options, name)
        ]
        told += [
            f"{name}={default}"
            for name, default in (("layout_payload", "sniff"), ("layout_envelope", "auto"))
            if getattr(self.options, name) != default
        ]
        return " ".join(f"-s database.{setting}" for setting in told)

    def _some(self, connection: sa.Connection, names: AdoptedTables, ours: Tables) -> int:
        """The next rows, in one transaction."""
        self._keep_writers_out(connection, names)
        self._keep_relays_out(connection, names)
        rows = sorted(
            (row for name in PENDING_STATES for row in self._first(connection, names, name)),
            key=lambda row: int(row.id),
        )[: self.rows_at_once]
        if rows:
            # One by one, in order: ids of ours are given out in that order.
            for row in rows:
                connection.execute(sa.insert(ours.outbox), [self._values(row, names)])
            ids = [row.id for row in rows]
            connection.execute(sa.delete(names.outbox).where(names.outbox.c.id.in_(ids)))
        return len(rows)

    def _keep_writers_out(self, connection: sa.Connection, names: AdoptedTables) -> None:
        if connection.dialect.name == "postgresql":
            # Waits for every transaction that has inserted: nothing shows what is not committed.
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")
            table = connection.dialect.identifier_preparer.format_table(names.outbox)
            connection.exec_driver_sql(f"LOCK TABLE {table} IN SHARE MODE")
        else:
            # The locking read below waits for each row that is inserted and not committed.
            connection.exec_driver_sql(f"SET SESSION innodb_lock_wait_timeout = {LOCK_SECONDS}")

    def _keep_relays_out(self, connection: sa.Connection, names: AdoptedTables) -> None:
        lease = names.beside.lease
        if not sa.inspect(connection).has_table(lease.name, schema=lease.schema):
            return
        # Locked: none begins before this transaction has ended.
        connection.execute(sa.select(lease.c.lane).with_for_update()).all()
        if relay_at_work(connection, names):
            raise StoreUnavailable(
                f"a relay is at work on {names.outbox.name}: stop it, then run the same command"
            )

    def _first(
        self, connection: sa.Connection, names: AdoptedTables, name: str
    ) -> Sequence[sa.Row[Any]]:
        c = names.outbox.c
        # A time that there is not, such as 0000-00-00, is none.
        epoch: sa.ColumnElement[Any] = sa.func.coalesce(sa.func.unix_timestamp(c.created_at), 0)
        if connection.dialect.name == "postgresql":
            zoned = sa.cast(c.created_at, postgresql.TIMESTAMP(timezone=True))
            epoch = sa.extract("epoch", zoned)
        chosen = (
            sa.select(names.outbox, epoch.label("created_epoch"))
            .where(c.event_status == state(name), c.flush_counter < MOST_FLUSHES)
            .order_by(c.id)
            .limit(self.rows_at_once)
            .with_for_update()
        )
        return connection.execute(names.by_index(chosen)).all()

    def _values(self, row: sa.Row[Any], names: AdoptedTables) -> dict[str, Any]:
        layout, options = names.layout, self.options
        found = row._mapping
        stored = bytes(row.payload)
        codec = codec_of(stored, options.layout_payload)
        event_id, topic = bytes(row.event_id_bin), found.get("topic") or options.layout_topic
        if not 0 < len(topic) <= MAX_TOPIC_CHARS:
            raise SchemaMismatch(
                f"row {row.id} names no topic that Kafka knows ({len(topic)} characters): set "
                "database.layout_topic, or correct the row"
            )
        key = None
        try:
            plain = inflate(stored, max_bytes=MAX_PAYLOAD_BYTES) if codec is Codec.ZLIB else stored
            key = layout.key_of(plain, options.layout_key_path.split("."))
            shape = layout.envelope(options.layout_envelope)
            if shape and not self.payload_only:
                parts = Parts(
                    event_id=event_id,
                    event_name=row.event_name,
                    topic=topic,
                    timestamp=row.created_at.isoformat(),
                    message_type=str(found["event_type"]).lower(),
                )
                stored, codec = ENVELOPES[shape](plain, parts), Codec.RAW
            elif self.payload_only and not shape:
                stored, codec = _payload_of(plain), Codec.RAW
        except UnreadablePayload:
            pass  # the relay of our table says so, and it becomes a dead letter there
        return {
            "event_id": UUID(bytes=event_id),
            "event_name": row.event_name,
            "topic": topic,
            "key": key,
            "payload": stored,
            "codec": int(codec),
            "created_at": datetime.fromtimestamp(float(row.created_epoch), UTC).replace(
                tzinfo=None
            ),
        }


def _code(error: sa.exc.DBAPIError) -> object:
    """The number of an error of MySQL, the state of one of PostgreSQL."""
    number = next(iter(getattr(error.orig, "args", ())), None)
    # MySQL's drivers name a state too, which says less than the number.
    return number if isinstance(number, int) else getattr(error.orig, "sqlstate", None)


def _payload_of(document: bytes) -> bytes:
    """What the document has under ``payload``; all of it, if it is no such document."""
    try:
        found = json.loads(document)["payload"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return document
    return json.dumps(found, ensure_ascii=False, separators=(",", ":")).encode()
