"""
Events in Django's own transactions: the INSERT goes over `django.db.connections[using]`.

No SQLAlchemy engine, session or connection takes part, only what checks and encodes events, so the
rows are the same, byte for byte. Needs Django, which is imported with this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from django.db import DEFAULT_DB_ALIAS, connections, transaction

from outbox_relay.errors import AutocommitHandle
from outbox_relay.events import UNSET, OutboxedEvent, Unset
from outbox_relay.outbox import Outbox
from outbox_relay.outbox.encode import EventLabel, Key, Payload, Said

__all__ = ["DjangoOutbox"]

COLUMNS: Final = OutboxedEvent.__slots__
_BINARY: Final = frozenset({"key", "payload"})
_MOST_PARAMETERS: Final = 65_535
"""Of one statement with PostgreSQL's own binding. Databases may say less."""


class DjangoOutbox:
    """
    Writes events into the outbox table inside `transaction.atomic`.

    Holds no connection and no state; one for the whole project will do. *outbox* says everything
    that can be set, such as ``DjangoOutbox(Outbox(source="/shop", wake="unix:/run/wake.sock"))``.
    """

    def __init__(self, outbox: Outbox | None = None) -> None:
        self._outbox = Outbox() if outbox is None else outbox

    def add(
        self,
        *events: Payload,
        using: str = DEFAULT_DB_ALIAS,
        name: str | Unset = UNSET,
        topic: str | None = None,
        key: Key | Unset = UNSET,
        headers: Mapping[str, str] | None = None,
        content_type: str | None = None,
    ) -> None:
        """
        Write *events*, in this order, in the transaction that the database *using* is in. At once.

        Raises a WriteError that names the event, before anything is written; AutocommitHandle where
        no transaction is open. If the INSERT fails, the innermost `atomic` can only be rolled back.
        """
        said = Said(name=name, topic=topic, key=key, headers=headers, content_type=content_type)
        encoded = self._outbox._encode(events, said)
        connection = connections[using]
        if not connection.in_atomic_block and connection.get_autocommit():
            raise AutocommitHandle(
                f"{EventLabel(encoded[0].event_name, encoded[0].event_id)}: the database "
                f"{using!r} is in autocommit, so the state change and the event could part: write "
                f"both inside `with transaction.atomic(using={using!r})`"
            )
        try:
            for batch in self._outbox._batches(encoded):
                self._insert(connection, batch)
        except Exception:
            # Swallowed, the error would let the state change be committed without its event.
            if connection.in_atomic_block:
                transaction.set_rollback(True, using=using)
            raise
        self._tell_after_commit(connection, using)

    def _insert(self, connection: Any, events: list[OutboxedEvent]) -> None:
        quote = connection.ops.quote_name
        table = self._outbox.table
        name = ".".join(quote(part) for part in (table.schema, table.name) if part)
        columns = ", ".join(map(quote, COLUMNS))
        most = min(connection.features.max_query_params or _MOST_PARAMETERS, _MOST_PARAMETERS)
        rows_at_once = most // len(COLUMNS)
        with connection.cursor() as cursor:
            for first in range(0, len(events), rows_at_once):
                rows = [_parameters(connection, e) for e in events[first : first + rows_at_once]]
                row = f"({', '.join(['%s'] * len(COLUMNS))})"
                cursor.execute(
                    f"INSERT INTO {name} ({columns}) VALUES {', '.join([row] * len(rows))}",
                    [value for row_values in rows for value in row_values],
                )

    def _tell_after_commit(self, connection: Any, using: str) -> None:
        if self._outbox._wake is None or not connection.in_atomic_block:
            return
        tell = self._outbox._wake.send
        # One hint for each SAVEPOINT that wrote events: a rollback of one takes only its own.
        savepoints = set(connection.savepoint_ids)
        noted = getattr(connection, "run_on_commit", ())
        if not any(entry[0] == savepoints and entry[1] == tell for entry in noted):
            transaction.on_commit(tell, using=using, robust=True)


def _parameters(connection: Any, event: OutboxedEvent) -> list[Any]:
    values = event.values()
    if connection.vendor != "postgresql":
        values["event_id"] = event.event_id.bytes
    return [
        connection.Database.Binary(value) if column in _BINARY and value is not None else value
        for column, value in values.items()
    ]
