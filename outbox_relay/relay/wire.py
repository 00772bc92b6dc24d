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
from typing import Any

from outbox_relay.compression import inflate
from outbox_relay.events import RELAY_HEADERS
from outbox_relay.relay.ports import Record, Row
from outbox_relay.schema import Codec


class UnreadableRow(ValueError):
    """The row cannot become a record, now and every time. The text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WireOptions:
    """What records look like, section ``[wire]``."""

    source: str = "/outbox-relay"
    """ce_source of events that were stored without one; the library stores Outbox(source=...)."""


def _stdlib_loads() -> Callable[[str], Any]:
    return json.JSONDecoder().decode


try:  # a quarter of the time per row, where it is installed
    from orjson import loads as _loads
except ImportError:
    _loads = _stdlib_loads()


@dataclass(slots=True)
class Encoder:
    """Turns rows into records. Holds caches only; equal rows give equal records."""

    source: str
    max_payload_bytes: int
    _source: tuple[str, bytes] = field(init=False)
    _shared: dict[tuple[str, str], list[tuple[str, bytes]]] = field(default_factory=dict)
    _own: dict[str, list[tuple[str, bytes]]] = field(default_factory=dict)
    _second: int = -1
    _second_text: str = ""

    def __post_init__(self) -> None:
        self._source = ("ce_source", self.source.encode())

    def record(self, row: Row) -> Record:
        """
        The record of *row*, whose payload is present.

        Raises UnreadableRow for an unknown codec, a damaged or oversized payload, or headers that
        are not a JSON object of strings.
        """
        identity = row.event_id.hex()
        headers = [
            (
                "ce_id",
                f"{identity[:8]}-{identity[8:12]}-{identity[12:16]}-{identity[16:20]}-{identity[20:]}".encode(),
            ),
            ("ce_time", self._time(row.created_us)),
            ("outbox-seq", b"%d" % row.id),
            *(self._shared.get((row.event_name, row.content_type)) or self._learn_shared(row)),
            *self._own_headers(row.headers),
        ]
        if row.requeued_us is not None:
            headers.append(("requeued-at", self._time(row.requeued_us)))
        return Record(row.key, self._value(row), headers, row.created_us // 1000)

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

    def _learn_shared(self, row: Row) -> list[tuple[str, bytes]]:
        shared = [
            ("ce_specversion", b"1.0"),
            ("ce_type", row.event_name.encode()),
            ("content-type", row.content_type.encode()),
        ]
        if len(self._shared) > 10_000:
            self._shared.clear()
        self._shared[(row.event_name, row.content_type)] = shared
        return shared

    def _own_headers(self, text: str | None) -> list[tuple[str, bytes]]:
        if text is None:
            return [self._source]
        known = self._own.get(text)
        if known is not None:
            return known
        try:
            stored = _loads(text)
        except ValueError as error:
            raise UnreadableRow(f"headers are not JSON ({error})") from error
        if not isinstance(stored, dict) or not all(isinstance(v, str) for v in stored.values()):
            raise UnreadableRow("headers are not a JSON object of strings")
        own = [
            (name, value.encode()) for name, value in stored.items() if name not in RELAY_HEADERS
        ]
        if "ce_source" not in stored:
            own.append(self._source)
        if len(self._own) > 1000:
            self._own.clear()
        self._own[text] = own
        return own

    def _time(self, microseconds: int) -> bytes:
        second, fraction = divmod(microseconds, 1_000_000)
        if second != self._second:
            self._second = second
            self._second_text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        return f"{self._second_text}.{fraction:06d}Z".encode()
