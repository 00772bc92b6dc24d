"""
What goes on the wire: a row becomes a record.

CloudEvents 1.0, Kafka protocol binding, binary mode (cloudevents/spec, kafka-protocol-binding.md):
the value is the payload, each attribute is a header ``ce_<name>``, ``content-type`` is the payload's.
Beside them ``outbox-seq`` (the row's id, so that a consumer can drop the older copy of a repeated
event) and the event's own headers. The payload is inflated, never parsed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from outbox_relay.compression import inflate
from outbox_relay.events import RELAY_HEADERS
from outbox_relay.relay.ports import RECORD_OVERHEAD_BYTES, Record, Row, header_bytes
from outbox_relay.schema import Codec


class UnreadableRow(ValueError):
    """The row cannot become a record, now and every time. The text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WireOptions:
    """What records look like, section ``[wire]``."""

    source: str = "/outbox-relay"
    """ce_source of events that were stored without one; the library stores Outbox(source=...)."""


_loads: Callable[[str], Any] = json.JSONDecoder().decode


class _Headers(NamedTuple):
    """Headers that many records share, and their bytes."""

    headers: list[tuple[str, bytes]]
    byte_count: int


def _headers(*headers: tuple[str, bytes]) -> _Headers:
    return _Headers(list(headers), header_bytes(headers))


_MOST_SHARED = 10_000
_MOST_OWN = 1000
_EACH = (("ce_id", b"0" * 36), ("ce_time", b"0" * 27), ("outbox-seq", b"0" * 20))
_FIXED_BYTES = RECORD_OVERHEAD_BYTES + header_bytes(_EACH)


def _object_of_strings(text: str) -> dict[str, str]:
    try:
        stored = _loads(text)
    except ValueError as error:
        raise UnreadableRow(f"headers are not JSON ({error})") from error
    if not isinstance(stored, dict) or not all(isinstance(v, str) for v in stored.values()):
        raise UnreadableRow("headers are not a JSON object of strings")
    return stored


@dataclass(slots=True)
class Encoder:
    """Turns rows into records. Holds caches only; equal rows give equal records."""

    source: str
    max_payload_bytes: int
    _shared: dict[tuple[str, str], _Headers] = field(default_factory=dict)
    _own: dict[str | None, _Headers] = field(default_factory=dict)
    _second: int = -1
    _second_text: str = ""

    def record(self, row: Row) -> Record:
        """
        The record of *row*, whose payload is present.

        Raises UnreadableRow for an unknown codec, a damaged or oversized payload, or headers that
        are not a JSON object of strings.
        """
        try:
            return self._record(row)
        except UnreadableRow:
            raise
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            # Rows come from any program: one that breaks a rule of the table must not end the relay.
            raise UnreadableRow(
                f"{type(error).__name__}: the row does not fit the table's rules"
            ) from error

    def _record(self, row: Row) -> Record:
        value = self._value(row)
        shared = self._shared.get((row.event_name, row.content_type)) or self._learn_shared(row)
        own = self._own.get(row.headers) or self._learn_own(row.headers)
        event_id = row.event_id.hex()
        headers = [
            (
                "ce_id",
                f"{event_id[:8]}-{event_id[8:12]}-{event_id[12:16]}-{event_id[16:20]}-"
                f"{event_id[20:]}".encode(),
            ),
            ("ce_time", self._time(row.created_us)),
            ("outbox-seq", b"%d" % row.id),
            *shared.headers,
            *own.headers,
        ]
        size = _FIXED_BYTES + shared.byte_count + own.byte_count
        if row.requeued_us is not None:
            requeued = ("requeued-at", self._time(row.requeued_us))
            headers.append(requeued)
            size += header_bytes([requeued])
        if value is not None:
            size += len(value)
        if row.key is not None:
            size += len(row.key)
        return Record(row.key, value, headers, row.created_us // 1000, size)

    def _value(self, row: Row) -> bytes | None:
        payload = row.payload
        if row.codec == Codec.ZLIB:
            try:
                return inflate(payload or b"", max_bytes=self.max_payload_bytes)
            except ValueError as error:
                raise UnreadableRow(str(error)) from error
        if row.codec == Codec.RAW:
            return payload
        if row.codec == Codec.TOMBSTONE:
            if row.key is None:
                raise UnreadableRow("a tombstone needs a key")
            return None
        raise UnreadableRow(f"codec {row.codec} is not one that this version reads")

    def _learn_shared(self, row: Row) -> _Headers:
        if len(self._shared) > _MOST_SHARED:
            self._shared.clear()
        shared = _headers(
            ("ce_specversion", b"1.0"),
            ("ce_type", row.event_name.encode()),
            ("content-type", row.content_type.encode()),
        )
        self._shared[(row.event_name, row.content_type)] = shared
        return shared

    def _learn_own(self, text: str | None) -> _Headers:
        stored = {} if text is None else _object_of_strings(text)
        for name in stored:
            name.encode()  # a lone surrogate would fail in the client, which knows no row
        own = [
            (name, value.encode()) for name, value in stored.items() if name not in RELAY_HEADERS
        ]
        if "ce_source" not in stored:
            own.append(("ce_source", self.source.encode()))
        if len(self._own) > _MOST_OWN:
            self._own.clear()
        headers = self._own[text] = _headers(*own)
        return headers

    def _time(self, microseconds: int) -> bytes:
        second, fraction = divmod(microseconds, 1_000_000)
        if second != self._second:
            self._second = second
            self._second_text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        return f"{self._second_text}.{fraction:06d}Z".encode()
