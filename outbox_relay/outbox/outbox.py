"""`Outbox`: the one object that an application holds."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import overload

import sqlalchemy as sa
from sqlalchemy.sql.dml import Insert

from outbox_relay import schema as tables
from outbox_relay.compression import Compressor, ZlibCompressor
from outbox_relay.errors import EventTooLarge
from outbox_relay.events import UNSET, OutboxedEvent, Unset
from outbox_relay.handles import AsyncHandle, SyncHandle, resolve
from outbox_relay.outbox.encode import (
    Encoder,
    EventLabel,
    Key,
    Payload,
    Said,
    checked_headers,
    headers_json,
)
from outbox_relay.outbox.handles import (
    PendingAdd,
    Rows,
    execute,
    refuse_declared_autocommit,
)
from outbox_relay.outbox.statement import OutboxInsert
from outbox_relay.wake import Sender, parse_wake_address

_ROW_OVERHEAD_BYTES = 128
"""Ids, numbers, quotes and commas of a row within a statement, generously."""


class Outbox:
    """
    Writes events into the outbox table, in the caller's own transaction.

    Holds no connection, no buffer and no state; one for the whole application will do.

    * source: `ce_source` of the events, such as "/shop"; default: the relay's `[wire] source`
    * table, schema: where the outbox is
    * compressor, compress_above_bytes: larger payloads are stored compressed if that saves bytes
    * max_event_bytes: payload, key and headers of one event, uncompressed; keep it below Kafka's
      `max.message.bytes`
    * max_statement_bytes: of one INSERT; keep it below a quarter of `max_allowed_packet`
    * headers: of every event; a call may add to them and override them
    * default_topic: of events whose class and call name none; without it they are refused
    * wake: where a relay waits for hints, unix:/path or udp:host:port; a commit with events in it is
      followed by one, so that the relay need not poll to find them
    * trace: whether events keep the span of OpenTelemetry in which they are written, if one is active
    """

    def __init__(
        self,
        *,
        source: str | None = None,
        table: str = "outbox",
        schema: str | None = None,
        compressor: Compressor | None = ZlibCompressor(),  # noqa: B008 - holds no state
        compress_above_bytes: int = 256,
        max_event_bytes: int = 1_000_000,
        max_statement_bytes: int = 4_000_000,
        headers: Mapping[str, str] | None = None,
        default_topic: str | None = None,
        wake: str | None = None,
        trace: bool = True,
    ) -> None:
        if compressor is not None and compressor.codec is not tables.Codec.ZLIB:
            raise ValueError(f"no relay reads codec {compressor.codec!r}: use ZlibCompressor")
        if source is not None and not source:
            raise ValueError('source is empty: say source="/...", or leave it out')
        shared = checked_headers(headers or {})
        if source is not None:
            shared = {"ce_source": source, **shared}
        self.table: sa.Table = tables.tables(table, schema=schema).outbox
        self._encoder = Encoder(
            headers=shared,
            headers_json=headers_json(shared),
            compressor=compressor,
            compress_above_bytes=compress_above_bytes,
            max_event_bytes=max_event_bytes,
            default_topic=default_topic,
            trace=trace,
        )
        self._max_statement_bytes = max_statement_bytes
        self._wake = None if wake is None else Sender(parse_wake_address(wake))
        # One statement for all adds, so that SQLAlchemy compiles it once. Inline: nobody asks for
        # the ids, so none are fetched.
        self._insert = sa.insert(self.table)
        self._statement = self._insert.inline()

    def insert(
        self,
        *events: Payload,
        name: str | Unset = UNSET,
        topic: str | None = None,
        key: Key | Unset = UNSET,
        headers: Mapping[str, str] | None = None,
        content_type: str | None = None,
    ) -> Insert:
        """
        One INSERT statement with a row for each of *events*, in this order, for the caller to
        execute.

        Touches no connection. Raises a WriteError that names the event, before anything is written.
        """
        said = Said(name=name, topic=topic, key=key, headers=headers, content_type=content_type)
        batches = self._batches(self._encode(events, said))
        if len(batches) > 1:
            label = EventLabel(batches[1][0].event_name, batches[1][0].event_id)
            raise EventTooLarge(
                f"{label}: with it the statement is larger than max_statement_bytes = "
                f"{self._max_statement_bytes:,}: insert fewer events at a time, or use add"
            )
        rows = [event.values() for event in batches[0]]
        if len(rows) == 1:
            return OutboxInsert(self.table, rows[0], self._insert, self._wake)
        return OutboxInsert(self.table, None, self._insert, self._wake).values(rows)

    @overload
    def add(
        self,
        handle: SyncHandle,
        *events: Payload,
        name: str | Unset = UNSET,
        topic: str | None = None,
        key: Key | Unset = UNSET,
        headers: Mapping[str, str] | None = None,
        content_type: str | None = None,
    ) -> None: ...

    @overload
    def add(
        self,
        handle: AsyncHandle,
        *events: Payload,
        name: str | Unset = UNSET,
        topic: str | None = None,
        key: Key | Unset = UNSET,
        headers: Mapping[str, str] | None = None,
        content_type: str | None = None,
    ) -> Awaitable[None]: ...

    def add(
        self,
        handle: SyncHandle | AsyncHandle,
        *events: Payload,
        name: str | Unset = UNSET,
        topic: str | None = None,
        key: Key | Unset = UNSET,
        headers: Mapping[str, str] | None = None,
        content_type: str | None = None,
    ) -> Awaitable[None] | None:
        """
        Write *events*, in this order, in the transaction that *handle* is in. At once: no flush or
        commit has to follow. To be awaited on async handles.

        Raises a WriteError that names the event, at the call and before anything is written. Never
        commits, flushes or begins a transaction of its own. If the INSERT fails, the transaction
        can only be rolled back.
        """
        sync, asynchronous = resolve(handle, "outbox.add")
        said = Said(name=name, topic=topic, key=key, headers=headers, content_type=content_type)
        encoded = self._encode(events, said)
        label = EventLabel(encoded[0].event_name, encoded[0].event_id)
        batches = self._rows(encoded)
        if asynchronous is None:
            execute(sync, self._statement, batches, label, self._wake)
            return None
        refuse_declared_autocommit(sync, self._statement, label)
        return PendingAdd(asynchronous, sync, self._statement, batches, label, wake=self._wake)

    def _encode(self, events: tuple[Payload, ...], said: Said) -> list[OutboxedEvent]:
        if not events:
            raise TypeError("no event was given: pass at least one, such as add(session, event)")
        return [self._encoder.encode(event, said) for event in events]

    def _rows(self, events: list[OutboxedEvent]) -> list[Rows]:
        """The parameters of as few statements as max_statement_bytes allows."""
        return [
            batch[0].values() if len(batch) == 1 else [event.values() for event in batch]
            for batch in self._batches(events)
        ]

    def _batches(self, events: list[OutboxedEvent]) -> list[list[OutboxedEvent]]:
        """*events* in this order, as few statements as max_statement_bytes allows."""
        batches: list[list[OutboxedEvent]] = [[]]
        batch_bytes = 0
        for event in events:
            size = _statement_bytes(event)
            if size > self._max_statement_bytes:
                raise EventTooLarge(
                    f"{EventLabel(event.event_name, event.event_id)}: {size:,} bytes in the "
                    f"statement; max_statement_bytes is {self._max_statement_bytes:,}"
                )
            if batches[-1] and batch_bytes + size > self._max_statement_bytes:
                batches.append([])
                batch_bytes = 0
            batches[-1].append(event)
            batch_bytes += size
        return batches


def _statement_bytes(event: OutboxedEvent) -> int:
    return (
        _ROW_OVERHEAD_BYTES
        + len(event.payload)
        + len(event.key or b"")
        + 4 * (len(event.headers or "") + len(event.event_name))
        + len(event.topic)
        + len(event.content_type)
    )
