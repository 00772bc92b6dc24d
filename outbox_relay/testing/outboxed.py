"""
What an application wrote into its outbox, seen without asking the database.

SQLAlchemy tells of each INSERT, SAVEPOINT, rollback and commit of every engine of the process, sync or
async. So events are seen inside a transaction that a test rolls back at its end, and those that the
application itself rolled back are not. Rows written in SQL text, or by other processes, are not seen.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self, TypeVar, overload
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.pool import Pool
from sqlalchemy.sql.dml import Insert

from outbox_relay.compression import inflate
from outbox_relay.events import OutgoingEvent, uuid7
from outbox_relay.schema import MAX_PAYLOAD_BYTES, Codec
from outbox_relay.testing.crashes import crash_if_asked

Kind = TypeVar("Kind", bound=OutgoingEvent)

_NOTES: Final = "outbox_relay.testing"
_WRITTEN: Final = frozenset({"event_id", "event_name", "topic", "key", "payload", "codec"})
"""Columns by which the outbox table is known, whatever it is called."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenEvent:
    """
    An event as it was written. `value` is what a consumer gets: inflated, None for a tombstone.

    `headers` are the stored ones; the relay adds its own when it publishes.
    """

    event_id: UUID
    name: str
    topic: str
    key: bytes | None
    headers: Mapping[str, str]
    content_type: str
    value: bytes | None

    @property
    def payload(self) -> Any:
        """The value as the application said it: what JSON holds, text, bytes, or None."""
        kind = self.content_type.partition(";")[0].strip()
        if self.value is None or kind == "application/octet-stream":
            return self.value
        return json.loads(self.value) if kind.endswith("json") else self.value.decode()


@dataclass(slots=True, eq=False)
class _Entry:
    event: WrittenEvent
    savepoint: int
    is_committed: bool = False
    is_gone: bool = False


class Outboxed(Sequence[WrittenEvent]):
    """
    The events written while it is entered, in order, without those that were rolled back.

    One at a time; ``with Outboxed() as outboxed``, or the pytest fixture of this name.
    """

    def __init__(self) -> None:
        self._entries: list[_Entry] = []

    @overload
    def __getitem__(self, index: int) -> WrittenEvent: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[WrittenEvent]: ...
    def __getitem__(self, index: int | slice) -> WrittenEvent | Sequence[WrittenEvent]:
        return self._events()[index]

    def __len__(self) -> int:
        return len(self._events())

    def __repr__(self) -> str:
        return f"<outboxed: {', '.join(self.names()) or 'nothing'}>"

    def names(self) -> list[str]:
        """Their names."""
        return [event.name for event in self]

    def named(self, name: str) -> list[WrittenEvent]:
        """Those called *name*."""
        return [event for event in self if event.name == name]

    def of(self, kind: type[Kind]) -> list[Kind]:
        """Those of the event class *kind*, read back from what was written, with their event ids."""
        return [_read_back(event, kind) for event in self.named(kind.event_name)]

    def committed(self) -> list[WrittenEvent]:
        """Those whose outermost transaction was committed."""
        return [e.event for e in self._entries if e.is_committed]

    def clear(self) -> None:
        """Forget what was written so far."""
        self._entries.clear()

    def _events(self) -> list[WrittenEvent]:
        return [entry.event for entry in self._entries if not entry.is_gone]

    def __enter__(self) -> Self:
        if _recorders:
            raise RuntimeError("events are recorded already: use one `outboxed` at a time")
        _listen()
        _recorders.append(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _recorders.remove(self)


def _read_back(event: WrittenEvent, kind: type[Kind]) -> Kind:
    if event.value is None:
        raise ValueError(f"event {event.name!r} is a tombstone: it has no fields")
    made = kind.model_validate_json(event.value)
    made._event_id = event.event_id
    return made


def _event(row: Mapping[str, Any]) -> WrittenEvent:
    payload, codec = row["payload"], row.get("codec") or 0
    value = payload.encode() if isinstance(payload, str) else bytes(payload)
    return WrittenEvent(
        event_id=row.get("event_id") or uuid7(),  # else the database makes one
        name=row["event_name"],
        topic=row["topic"],
        key=row.get("key"),
        headers=_headers(row.get("headers")),
        content_type=row.get("content_type") or "application/json",
        value=None if codec == Codec.TOMBSTONE else _inflated(value, codec),
    )


def _inflated(value: bytes, codec: int) -> bytes:
    """What the payload holds; as it is if that cannot be told: an INSERT must not fail by being watched."""
    if codec != Codec.ZLIB:
        return value
    try:
        return inflate(value, max_bytes=10 * MAX_PAYLOAD_BYTES)
    except ValueError:
        return value


def _headers(text: str | None) -> dict[str, str]:
    try:
        found = json.loads(text) if text else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


# The listeners stay once they are there: they look whether anybody records, and go.
_recorders: list[Outboxed] = []
_listening: list[bool] = []


def watch() -> None:
    """Notice what is written, also while nobody records: crash points ask for that."""
    _listen()


def _listen() -> None:
    if _listening:
        return
    _listening.append(True)
    sa.event.listen(Engine, "after_cursor_execute", _after_cursor_execute)
    sa.event.listen(Engine, "rollback_savepoint", _on_rollback_savepoint)
    sa.event.listen(Engine, "rollback", _on_rollback)
    sa.event.listen(Pool, "checkin", _on_checkin)


def _after_cursor_execute(
    connection: Connection, _cursor: Any, _sql: str, _given: Any, context: Any, _many: bool
) -> None:
    statement = getattr(getattr(context, "compiled", None), "statement", None)
    if not isinstance(statement, Insert) or not set(statement.table.c.keys()) >= _WRITTEN:
        return
    _wrap_commit(connection.dialect)
    savepoint = _savepoint_number(connection)
    rows = [row for given in context.compiled_parameters for row in _rows(given)]
    entries = [_Entry(_event(row), savepoint) for row in rows]
    # What the connection has written since its transaction began.
    connection.info.setdefault(_NOTES, []).extend(entries)
    for recorder in _recorders:
        recorder._entries += entries


def _rows(parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of one execution: an INSERT of several VALUES numbers its parameters."""
    if "event_name" in parameters:
        return [dict(parameters)]
    rows: dict[int, dict[str, Any]] = {}
    for name, value in parameters.items():
        column, _, number = name.rpartition("_m")
        if number.isdecimal():
            rows.setdefault(int(number), {})[column] = value
    return [rows[number] for number in sorted(rows)]


def _on_rollback_savepoint(connection: Connection, name: str, _context: Any) -> None:
    # Numbers only grow: whatever was written within this SAVEPOINT has its number or a later one.
    number = _number(name)
    _forget(entry for entry in connection.info.get(_NOTES, ()) if entry.savepoint >= number)


def _on_rollback(connection: Connection) -> None:
    if not connection.closed and not connection.invalidated:
        _forget(connection.info.pop(_NOTES, ()))


def _on_checkin(_dbapi_connection: Any, record: Any) -> None:
    # The pool rolls back what nobody committed, without a word to the listeners above.
    _forget(record.info.pop(_NOTES, ()))


def _forget(entries: Iterable[_Entry]) -> None:
    for entry in entries:
        entry.is_gone = True


def _savepoint_number(connection: Connection) -> int:
    return _number(getattr(connection.get_nested_transaction(), "_savepoint", ""))


def _number(name: str) -> int:
    digits = name.rpartition("_")[2]
    return int(digits) if digits.isdecimal() else 0


def _wrap_commit(dialect: Any) -> None:
    if getattr(dialect, "_outbox_relay_testing", False):
        return
    dialect._outbox_relay_testing = True
    do_commit = dialect.do_commit

    def commit(pooled: Any) -> None:
        # SQLAlchemy's own event comes before the COMMIT, which may still fail.
        written: list[_Entry] = pooled.info.pop(_NOTES, [])
        entries = [entry for entry in written if not entry.is_gone]
        if not entries:
            do_commit(pooled)
            return
        _forget(entries)
        crash_if_asked("before_commit")
        do_commit(pooled)
        for entry in entries:
            entry.is_committed, entry.is_gone = True, False
        crash_if_asked("after_commit")

    dialect.do_commit = commit
