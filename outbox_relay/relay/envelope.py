"""
The documents that python-cqrs puts around a payload, for consumers that expect them.

Its releases wrote four forms, each named here after the first release line that did. The payload is
taken as it is stored, never parsed, and the rest is written as orjson writes it, so that the bytes are
those of its own relay. Times are UTC without a zone; python-cqrs has none either.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from outbox_relay.compression import UnreadablePayload, inflate
from outbox_relay.relay.ports import HeaderBlock, Record, Row
from outbox_relay.relay.wire import Encoder, UnreadableRow, WireOptions
from outbox_relay.schema import Codec

NOTIFICATION: Final = "notification_event"
MESSAGE_TYPE: Final = "message_type"
"""The header of a row that says which type python-cqrs-0 names, such as ecst_event."""


class _None(tuple[tuple[str, bytes], ...]):
    """No plain tuple: by that a record without headers is known, and the loop in C leaves it to Python."""

    __slots__ = ()


NO_HEADERS: Final = HeaderBlock(_None())
"""As a record's `shared`: it travels without any header, the three of its own included."""

_text: Callable[[str], str] = json.JSONEncoder(ensure_ascii=False).encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What is known of an event beside its payload."""

    event_id: bytes
    event_name: str
    topic: str
    timestamp: str
    message_type: str = NOTIFICATION


def _seed(payload: bytes, of: Parts) -> bytes:
    event_id, name = str(UUID(bytes=of.event_id)), _text(of.event_name)
    before = (
        f'{{"message_type":{_text(of.message_type)},"message_name":{name},'
        f'"message_id":"{event_id}","payload":{{"event_id":"{event_id}",'
        f'"event_timestamp":"{of.timestamp}","event_name":{name},"payload":'
    )
    return b"".join((before.encode(), payload, b"}}"))


def _payload_last(payload: bytes, of: Parts) -> bytes:
    before = (
        f'{{"event_id":"{UUID(bytes=of.event_id)}","event_timestamp":"{of.timestamp}",'
        f'"event_name":{_text(of.event_name)},"topic":{_text(of.topic)},"payload":'
    )
    return b"".join((before.encode(), payload, b"}"))


def _payload_first(payload: bytes, of: Parts) -> bytes:
    after = (
        f',"event_id":"{UUID(bytes=of.event_id)}","event_timestamp":"{of.timestamp}",'
        f'"event_name":{_text(of.event_name)},"topic":{_text(of.topic)}}}'
    )
    return b"".join((b'{"payload":', payload, after.encode()))


def _camel_case(payload: bytes, of: Parts) -> bytes:
    after = (
        f',"eventId":"{of.event_id.hex()}","eventTimestamp":"{of.timestamp}",'
        f'"topic":{_text(of.topic)}}}'
    )
    before = f'{{"eventName":{_text(of.event_name)},"payload":'
    return b"".join((before.encode(), payload, after.encode()))


ENVELOPES: Final[dict[str, Callable[[bytes, Parts], bytes]]] = {
    "python-cqrs-0": _seed,
    "python-cqrs-3": _payload_last,
    "python-cqrs-4": _payload_first,
    "python-cqrs-5": _camel_case,
}


def naive_time(microseconds: int) -> str:
    """
    The instant as pydantic writes a datetime without a zone.

    >>> naive_time(1_767_323_045_678_901), naive_time(1_767_323_045_000_000)
    ('2026-01-02T03:04:05.678901', '2026-01-02T03:04:05')
    """
    seconds, fraction = divmod(microseconds, 1_000_000)
    instant = datetime.fromtimestamp(seconds, UTC).replace(microsecond=fraction, tzinfo=None)
    return instant.isoformat()


@dataclass(slots=True)
class ShapedEncoder(Encoder):
    """An `Encoder` whose values have an envelope, or whose records have no headers."""

    envelope: Callable[[bytes, Parts], bytes] | None = None
    bare: bool = False
    _types: dict[str, str] = field(default_factory=dict)

    def record(self, row: Row) -> Record:
        """See Encoder. Raises UnreadableRow also for a payload that is not JSON, with an envelope."""
        if self.envelope is not None and row.codec != Codec.TOMBSTONE:
            row = self._wrapped(row)
        # Not super(): a dataclass with slots is another class than the one that is written here.
        record = Encoder.record(self, row)
        return record._replace(shared=NO_HEADERS, own=NO_HEADERS) if self.bare else record

    def _wrapped(self, row: Row) -> Row:
        kind = row.content_type.partition(";")[0].strip().lower()
        if kind != "application/json" and not kind.endswith("+json"):
            raise UnreadableRow(
                f"wire.envelope holds JSON, and the payload is {row.content_type}: take the envelope "
                "out, or publish such events by another relay"
            )
        payload = row.payload or b""
        try:
            if row.codec == Codec.ZLIB:
                payload = inflate(payload, max_bytes=self.max_payload_bytes)
            elif row.codec != Codec.RAW:
                return row
            parts = Parts(
                event_id=row.event_id,
                event_name=row.event_name,
                topic=row.topic,
                timestamp=naive_time(row.created_us),
                message_type=self._message_type(row.headers),
            )
            assert self.envelope is not None
            return row._replace(payload=self.envelope(payload, parts), codec=int(Codec.RAW))
        except UnreadablePayload as error:
            raise UnreadableRow(str(error)) from error
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise UnreadableRow(
                f"{type(error).__name__}: the row does not fit the table's rules"
            ) from error

    def _message_type(self, headers: str | None) -> str:
        if headers is None:
            return NOTIFICATION
        found = self._types.get(headers)
        if found is None:
            stored: Any = json.loads(headers)
            found = stored.get(MESSAGE_TYPE, NOTIFICATION) if isinstance(stored, dict) else ""
            if len(self._types) > 1000:
                self._types.clear()
            self._types[headers] = str(found)
        return str(found)


def make_encoder(wire: WireOptions, *, max_payload_bytes: int) -> Encoder:
    """What turns rows into the records that *wire* describes."""
    pass_through = wire.compressed_payloads == "pass_through"
    if wire.envelope == "none" and wire.headers == "cloudevents":
        return Encoder(
            source=wire.source, max_payload_bytes=max_payload_bytes, pass_through=pass_through
        )
    return ShapedEncoder(
        source=wire.source,
        max_payload_bytes=max_payload_bytes,
        pass_through=pass_through,
        envelope=ENVELOPES.get(wire.envelope),
        bare=wire.headers == "none",
    )
