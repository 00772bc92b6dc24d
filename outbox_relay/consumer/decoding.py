"""
From a delivery to a record: which envelope it is, and what it says. Pure.

The headers decide first (CloudEvents 1.0, Kafka protocol binding: binary mode by ``ce_specversion``,
structured mode by ``content-type``); a value without them is looked at: each known envelope is a JSON
object that tells itself by its members. What a broken record holds never becomes text of an error.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from outbox_relay.compression import UnreadablePayload, inflate
from outbox_relay.consumer.record import (
    ConsumedRecord,
    Delivery,
    Envelope,
    identity,
    instant_of,
    unreadable,
)

MAX_BYTES: Final = 16 * 1024 * 1024
"""How large a compressed payload may become."""

_STRUCTURED: Final = "application/cloudevents+json"
_BATCHED: Final = "application/cloudevents-batch"
_ENVELOPE_FIELDS: Final = frozenset(
    {"event_id", "event_timestamp", "event_name", "event_topic", "event_type", "topic"}
)
_MAX_SEQUENCE: Final = 2**63 - 1


def decode(delivery: Delivery, *, max_bytes: int = MAX_BYTES) -> ConsumedRecord:
    """
    The record that *delivery* carries.

    A value in no known envelope gives a record without name and id. Raises UnreadableRecord, which
    names topic, partition and offset, if the bytes are not what the headers or the envelope say, or
    inflate to more than *max_bytes*.
    """
    try:
        return _decode(delivery, max_bytes)
    except (UnreadablePayload, UnicodeDecodeError) as error:
        text = str(error) if isinstance(error, UnreadablePayload) else "a header is not UTF-8"
        raise unreadable(delivery, text) from None


def _decode(delivery: Delivery, max_bytes: int) -> ConsumedRecord:
    content_type = _text(delivery, "content-type") or "application/json"
    kind = content_type.partition(";")[0].strip().lower()
    if kind.startswith(_BATCHED):
        raise unreadable(delivery, "a batch of CloudEvents is not read: send one event a record")
    plain = ConsumedRecord(
        delivery=delivery,
        envelope=Envelope.NONE,
        content_type=content_type,
        content=_uncompressed(delivery, max_bytes),
        sequence=_sequence(delivery),
        replay_of=_text(delivery, "replay-of"),
        requeued_at=instant_of(_text(delivery, "requeued-at")),
        source=_text(delivery, "ce_source") or "",
    )
    if kind == _STRUCTURED:
        return _structured(plain, _object(plain, must=True))
    if "ce_specversion" in delivery.header or "ce_id" in delivery.header:
        return _binary(plain)
    members = _object(plain)
    if members is not None:
        for shape in (_structured_if_it_is, _documents, _python_cqrs, _python_cqrs_camel):
            record = shape(plain, members)
            if record is not None:
                return record
    return _bare(plain)


def _binary(plain: ConsumedRecord) -> ConsumedRecord:
    delivery = plain.delivery
    return replace(
        plain,
        envelope=Envelope.CLOUDEVENTS_BINARY,
        event_id=_id(plain, _text(delivery, "ce_id"), plain.source),
        event_name=_text(delivery, "ce_type"),
        time=instant_of(_text(delivery, "ce_time")),
    )


def _structured_if_it_is(plain: ConsumedRecord, members: dict[str, Any]) -> ConsumedRecord | None:
    if not {"specversion", "id", "type", "source"} <= members.keys():
        return None
    return _structured(plain, members)


def _structured(plain: ConsumedRecord, members: dict[str, Any] | None) -> ConsumedRecord:
    assert members is not None
    source = _string(plain, members, "source") or ""
    # A payload that is null is not a tombstone, which has no data at all.
    content = b"null" if members.get("data", ...) is None else None
    if isinstance(members.get("data_base64"), str):
        try:
            content = base64.b64decode(members["data_base64"], validate=True)
        except ValueError:
            raise unreadable(plain.delivery, "its data_base64 is not base64") from None
    return replace(
        plain,
        envelope=Envelope.CLOUDEVENTS_STRUCTURED,
        event_id=_id(plain, _string(plain, members, "id"), source),
        event_name=_string(plain, members, "type"),
        source=source,
        time=instant_of(members.get("time")),
        content_type=_string(plain, members, "datacontenttype") or "application/json",
        content=content,
        parsed=members.get("data") if content is None else None,
    )


def _documents(plain: ConsumedRecord, members: dict[str, Any]) -> ConsumedRecord | None:
    if not {"message_name", "message_id", "payload"} <= members.keys():
        return None
    inner = members["payload"] if isinstance(members["payload"], dict) else {}
    payload: Any = inner.get("payload") if "payload" in inner else members["payload"]
    if payload is inner:
        payload = {name: value for name, value in inner.items() if name not in _ENVELOPE_FIELDS}
    return _enveloped(
        plain,
        Envelope.DOCUMENTS,
        name=_string(plain, members, "message_name"),
        event_id=_string(plain, members, "message_id") or _string(plain, inner, "event_id"),
        time=inner.get("event_timestamp"),
        payload=payload,
    )


def _python_cqrs(plain: ConsumedRecord, members: dict[str, Any]) -> ConsumedRecord | None:
    if not {"event_name", "event_id", "payload"} <= members.keys():
        return None
    return _enveloped(
        plain,
        Envelope.PYTHON_CQRS,
        name=_string(plain, members, "event_name"),
        event_id=_string(plain, members, "event_id"),
        time=members.get("event_timestamp"),
        payload=members["payload"],
    )


def _python_cqrs_camel(plain: ConsumedRecord, members: dict[str, Any]) -> ConsumedRecord | None:
    if not {"eventName", "eventId", "payload"} <= members.keys():
        return None
    return _enveloped(
        plain,
        Envelope.PYTHON_CQRS_CAMEL,
        name=_string(plain, members, "eventName"),
        event_id=_string(plain, members, "eventId"),
        time=members.get("eventTimestamp"),
        payload=members["payload"],
    )


def _bare(plain: ConsumedRecord) -> ConsumedRecord:
    """No envelope: what AMQP's properties say, or the two headers of python-cqrs' typed codecs."""
    delivery = plain.delivery
    headers_name = _text(delivery, "event_name")
    return replace(
        plain,
        envelope=Envelope.PYTHON_CQRS if headers_name else Envelope.NONE,
        event_id=_id(plain, delivery.message_id or _text(delivery, "message_id"), plain.source),
        event_name=delivery.message_type or headers_name,
    )


def _enveloped(
    plain: ConsumedRecord,
    envelope: Envelope,
    *,
    name: str | None,
    event_id: str | None,
    time: object,
    payload: Any,
) -> ConsumedRecord:
    return replace(
        plain,
        envelope=envelope,
        event_id=_id(plain, event_id, plain.source),
        event_name=name,
        time=instant_of(time),
        content_type="application/json",
        # An empty payload is not a tombstone.
        content=b"null" if payload is None else None,
        parsed=payload,
    )


def _id(plain: ConsumedRecord, text: str | None, source: str) -> Any:
    return identity(text, source) if text else None


def _object(plain: ConsumedRecord, *, must: bool = False) -> dict[str, Any] | None:
    """The value as a JSON object; None if it is none, which is an error only if it *must* be one."""
    value = plain.content
    if value is not None and (must or value.lstrip()[:1] == b"{"):
        try:
            members = json.loads(value)
        except (ValueError, RecursionError):
            members = None
        if isinstance(members, dict):
            return members
    if must:
        raise unreadable(plain.delivery, f"it says {_STRUCTURED}, and is not a JSON object")
    return None


def _string(plain: ConsumedRecord, members: Mapping[str, Any], name: str) -> str | None:
    value = members.get(name)
    if value is None or isinstance(value, str):
        return value
    raise unreadable(plain.delivery, f"{name} is not text in its envelope")


def _sequence(delivery: Delivery) -> int | None:
    text = _text(delivery, "outbox-seq")
    if text is None:
        return None
    if text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= _MAX_SEQUENCE:
        return int(text)
    raise unreadable(delivery, "its header outbox-seq is not a number")


def _uncompressed(delivery: Delivery, max_bytes: int) -> bytes | None:
    value = delivery.value
    if value is None:
        return None
    encodings = (_text(delivery, "content-encoding") or "").split(",")
    for encoding in (part.strip().lower() for part in reversed(encodings)):
        match encoding:
            case "deflate":
                value = inflate(value, max_bytes=max_bytes)
            case "gzip" | "x-gzip":
                value = _gunzip(value, max_bytes)
            case "" | "identity":
                continue
            case _:
                raise unreadable(
                    delivery, "its content-encoding is none of deflate, gzip and identity"
                )
    return value


def _gunzip(value: bytes, max_bytes: int) -> bytes:
    stream = zlib.decompressobj(wbits=31)
    try:
        content = stream.decompress(value, max_bytes + 1)
    except zlib.error as error:
        raise UnreadablePayload("the payload is not a gzip stream") from error
    if len(content) > max_bytes:
        raise UnreadablePayload(f"the payload inflates to more than {max_bytes} bytes")
    if not stream.eof or stream.unused_data:
        raise UnreadablePayload("the payload's gzip stream is truncated, or followed by bytes")
    return content


def _text(delivery: Delivery, name: str) -> str | None:
    value = delivery.header.get(name)
    return None if value is None else value.decode()
