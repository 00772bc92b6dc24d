"""
What goes on the wire: a row becomes a record.

CloudEvents 1.0, Kafka protocol binding, binary mode (cloudevents/spec, kafka-protocol-binding.md):
the value is the payload, each attribute is a header ``ce_<name>``, ``content-type`` is the payload's.
Beside them ``outbox-seq`` (the row's id, so that a consumer can drop the older copy of a repeated
event) and the event's own headers. The payload is inflated, never parsed.
"""

from __future__ import annotations

import json
from binascii import hexlify
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from outbox_relay.compression import UnreadablePayload, inflate
from outbox_relay.events import RELAY_HEADERS
from outbox_relay.native import native
from outbox_relay.relay.ports import (
    RECORD_OVERHEAD_BYTES,
    HeaderBlock,
    Record,
    Row,
    header_bytes,
)
from outbox_relay.schema import Codec


class UnreadableRow(ValueError):
    """The row cannot become a record, now and every time. The text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WireOptions:
    """What records look like, section ``[wire]``."""

    source: str = "/outbox-relay"
    """ce_source of events that were stored without one; the library stores Outbox(source=...)."""

    compressed_payloads: Literal["inflate", "pass_through"] = "inflate"
    """What becomes of payloads that are stored compressed. pass_through publishes the stored bytes with the header content-encoding: deflate, which saves the relay a fifth of its work; consumers inflate, and max_payload_bytes is not checked."""

    envelope: Literal[
        "none", "python-cqrs-0", "python-cqrs-3", "python-cqrs-4", "python-cqrs-5"
    ] = "none"
    """Document around the payload, for consumers of python-cqrs: that of its release 0, of 1 and 3, of 4 and Pydantic events of 5, or of 5. none publishes the payload as it is stored, which python-cqrs's own tables need."""

    headers: Literal["cloudevents", "none"] = "cloudevents"
    """Headers of records. none leaves out all of them, as python-cqrs does; consumers can then tell neither a repeated event nor an older copy."""


_loads: Callable[[str], Any] = json.JSONDecoder().decode


_Block = tuple[HeaderBlock, int]
"""Headers, and their bytes in a record at most."""


def _block(headers: list[tuple[str, bytes]]) -> _Block:
    return HeaderBlock(tuple(headers)), header_bytes(headers)


_Kind = tuple[object, str, str | None, int, HeaderBlock, HeaderBlock, int]
"""Event name, content type, stored headers and codec, and what follows from them: two blocks of headers,
and the bytes of a record without its key and value."""

_NOTHING = HeaderBlock(())
_LIKE_NONE: _Kind = (object(), "", None, 0, _NOTHING, _NOTHING, 0)
_ZLIB = int(Codec.ZLIB)
_MOST_SHARED = 10_000
_MOST_OWN = 1000
_new = tuple.__new__  # a NamedTuple's own __new__ takes 0.2 microseconds more
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


def _as_stored(row: Row) -> bytes | None:
    """The value of a row whose payload is not compressed."""
    if row.codec == Codec.RAW:
        return row.payload
    if row.codec == Codec.TOMBSTONE:
        if row.key is None:
            raise UnreadableRow("a tombstone needs a key")
        return None
    raise UnreadableRow(f"codec {row.codec} is not one that this version reads")


def _with_deflate(headers: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """
    Says that the value is a zlib stream: what HTTP calls deflate (RFC 9110, 8.4.1.2).

    The last encoding comes last, after what the writer said of its own.
    """
    before = [value for name, value in headers if name == "content-encoding"]
    others = [header for header in headers if header[0] != "content-encoding"]
    return [*others, ("content-encoding", b", ".join([*before, b"deflate"]))]


def _second_text(second: int) -> bytes:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S").encode()


def _time(microseconds: int) -> bytes:
    second, fraction = divmod(microseconds, 1_000_000)
    return b"%b.%06dZ" % (_second_text(second), fraction)


@dataclass(slots=True)
class Encoder:
    """Turns rows into records. Holds caches only; equal rows give equal records."""

    source: str
    max_payload_bytes: int
    pass_through: bool = False
    _shared: dict[tuple[str, str], _Block] = field(default_factory=dict)
    _own: dict[tuple[str | None, bool], _Block] = field(default_factory=dict)
    _kind: _Kind = _LIKE_NONE  # of the last row: neighbours are alike
    _second: int | None = None
    _second_text: bytes = b""

    def record(self, row: Row) -> Record:
        """
        The record of *row*, whose payload is present.

        Raises UnreadableRow for an unknown codec, a damaged or oversized payload, or headers that
        are not a JSON object of strings.
        """
        try:
            return self._record_in_c(row) or self._record(row)
        except UnreadableRow:
            raise
        except UnreadablePayload as error:
            raise UnreadableRow(str(error)) from error
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            # Rows come from any program: one that breaks a rule of the table must not end the relay.
            raise UnreadableRow(
                f"{type(error).__name__}: the row does not fit the table's rules"
            ) from error

    def _record_in_c(self, row: Row) -> Record | None:
        if native is None:
            return None
        # Its answer is None for another kind of row, and for whatever Python must look at.
        limit, as_stored = self.max_payload_bytes, self.pass_through
        made: Record | None = native.record(Record, row, self._kind, limit, as_stored)
        if made is None and not self._is_like(row):
            self._kind = self._learn(row.event_name, row.content_type, row.headers, row.codec)
            made = native.record(Record, row, self._kind, limit, as_stored)
        return made

    def _is_like(self, row: Row) -> bool:
        """Whether *row* is of the kind of the last one."""
        kind = self._kind
        name, content_type, codec = row.event_name, row.content_type, row.codec
        return (name, content_type, row.headers, codec) == kind[:4]

    def _record(self, row: Row) -> Record:
        # Every microsecond here is paid for each event: hence one unpacking and cached blocks.
        row_id, _, key, _, _, codec, text, event_id, name, content_type, created, requeued, _ = row
        if not self._is_like(row):
            self._kind = self._learn(name, content_type, text, codec)
        value = self._value(row)
        _, _, _, _, shared, own, size = self._kind
        if requeued is not None:
            header = ("requeued-at", _time(requeued))
            own = HeaderBlock((*own.headers, header))
            size += header_bytes([header])
        digits = hexlify(event_id)
        second, fraction = divmod(created, 1_000_000)
        if second != self._second:
            self._second, self._second_text = second, _second_text(second)
        if value is not None:
            size += len(value)
        if key is not None:
            size += len(key)
        return _new(
            Record,
            (
                key,
                value,
                created // 1000,
                b"%b-%b-%b-%b-%b"
                % (digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]),
                b"%b.%06dZ" % (self._second_text, fraction),
                b"%d" % row_id,
                shared,
                own,
                size,
            ),
        )

    def _value(self, row: Row) -> bytes | None:
        if row.codec != _ZLIB:
            return _as_stored(row)
        if self.pass_through:
            return row.payload
        return inflate(row.payload or b"", max_bytes=self.max_payload_bytes)

    def _learn(self, name: str, content_type: str, text: str | None, codec: int) -> _Kind:
        shared = self._shared.get((name, content_type)) or self._learn_shared(name, content_type)
        deflated = self.pass_through and codec == _ZLIB
        own = self._own.get((text, deflated)) or self._learn_own(text, deflated)
        size = _FIXED_BYTES + shared[1] + own[1]
        return name, content_type, text, codec, shared[0], own[0], size

    def _learn_shared(self, name: str, content_type: str) -> _Block:
        if len(self._shared) > _MOST_SHARED:
            self._shared.clear()
        block = self._shared[(name, content_type)] = _block(
            [
                ("ce_specversion", b"1.0"),
                ("ce_type", name.encode()),
                ("content-type", content_type.encode()),
            ]
        )
        return block

    def _learn_own(self, text: str | None, deflated: bool) -> _Block:
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
        if deflated:
            own = _with_deflate(own)
        block = self._own[(text, deflated)] = _block(own)
        return block
