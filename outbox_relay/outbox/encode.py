"""From an event to the row that holds it. Pure: no clock but the event's id, no I/O."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass
from functools import lru_cache
from re import compile as pattern
from typing import Any, ClassVar, Final, NamedTuple, Protocol, TypeAlias
from uuid import UUID

from pydantic import BaseModel
from pydantic_core import to_json

from outbox_relay.compression import Compressor
from outbox_relay.errors import (
    EventTooLarge,
    InvalidHeader,
    InvalidKey,
    InvalidName,
    InvalidTopic,
    MissingKey,
    NotSerializable,
    WriteError,
)
from outbox_relay.events import (
    RELAY_HEADERS,
    UNSET,
    Description,
    DomainEvent,
    ECSTEvent,
    Event,
    NotificationEvent,
    OutboxedEvent,
    OutgoingEvent,
    SelfDescribing,
    Unset,
    uuid7,
)
from outbox_relay.outbox.trace import TRACEPARENT, current_trace
from outbox_relay.schema import (
    MAX_KEY_BYTES,
    MAX_NAME_CHARS,
    MAX_PAYLOAD_BYTES,
    MAX_TOPIC_CHARS,
    Codec,
)

MAX_HEADERS_BYTES: Final = 60_000
MAX_CONTENT_TYPE_CHARS: Final = 255
JSON: Final = "application/json"
_WITHOUT_FIELDS: Final = (Event, OutgoingEvent, NotificationEvent, ECSTEvent)


class Dataclass(Protocol):
    """Any instance of a dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


Payload: TypeAlias = (
    BaseModel | Dataclass | SelfDescribing | dict[str, Any] | list[Any] | str | bytes | None
)
Key: TypeAlias = bytes | str | int | UUID | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a call says about its events. Whatever it leaves out, the event's class says."""

    name: str | Unset = UNSET
    topic: str | None = None
    key: Key | Unset = UNSET
    headers: Mapping[str, str] | None = None
    content_type: str | None = None

    def over(self, described: Description) -> Said:
        """The same, filled up with what the event says of itself."""
        return Said(
            name=described.name if self.name is UNSET else self.name,
            topic=described.topic if self.topic is None else self.topic,
            key=described.key if self.key is UNSET else self.key,
            headers=self.headers,
            content_type=self.content_type,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoder:
    """
    Turns events into outboxed events. `headers` are those of every event, `ce_source` too;
    `default_topic` is that of events without one; with `trace` they keep the span that is active.
    """

    headers: Mapping[str, str]
    headers_json: str | None
    compressor: Compressor | None
    compress_above_bytes: int
    max_event_bytes: int
    default_topic: str | None = None
    trace: bool = True

    def encode(self, event: Payload, said: Said) -> OutboxedEvent:
        """
        The row of *event*.

        Raises a WriteError that names the event. Never returns a row that the table, the relay or
        Kafka would refuse for its form.
        """
        if isinstance(event, SelfDescribing):
            described = event.describe()
            event_id, event, said = described.event_id, described.payload, said.over(described)
        else:
            event_id = event.event_id if isinstance(event, Event) else uuid7()
        name = said.name if said.name is not UNSET else getattr(type(event), "event_name", None)
        try:
            return self._encode(event, event_id, name, said)
        except WriteError as error:
            # Every refusal names its event: a command handler writes several.
            label = EventLabel(name or type(event).__name__, event_id)
            raise type(error)(f"{label}: {error}") from error.__cause__

    def _encode(
        self, event: Payload, event_id: UUID, name: str | None, said: Said
    ) -> OutboxedEvent:
        _refuse_unfit_event(event)
        checked_name = _checked_name(name)
        topic = said.topic or getattr(type(event), "event_topic", None) or self.default_topic
        topic = _checked_topic(topic, said)
        key = _key(event, said)
        content, default_type = _content(event)
        if content is None and key is None:
            raise MissingKey("None is a tombstone, which deletes a key: say which, key=...")
        headers = self._headers(said.headers)
        size = len(content or b"") + len(key or b"") + len((headers or "").encode())
        if size > self.max_event_bytes:
            raise EventTooLarge(
                f"{size:,} bytes of payload, key and headers; max_event_bytes is "
                f"{self.max_event_bytes:,}: carry a reference instead of the content"
            )
        payload, codec = self._stored(content)
        return OutboxedEvent(
            event_id=event_id,
            event_name=checked_name,
            topic=topic,
            key=key,
            headers=headers,
            content_type=_checked_content_type(said.content_type or default_type),
            payload=payload,
            codec=codec,
        )

    def _headers(self, own: Mapping[str, str] | None) -> str | None:
        traced = current_trace() if self.trace else None
        if not own and traced is None:
            return self.headers_json
        headers = {**self.headers, **checked_headers(own or {})}
        if traced is not None and not any(name.lower() == TRACEPARENT for name in headers):
            # A tracestate of another trace would be worth nothing beside our traceparent.
            headers = {**headers, **traced}
        return headers_json(headers)

    def _stored(self, content: bytes | None) -> tuple[bytes, int]:
        if content is None:
            return b"", int(Codec.TOMBSTONE)
        stored, codec = content, int(Codec.RAW)
        if self.compressor is not None and len(content) > self.compress_above_bytes:
            compressed = self.compressor.compress(content)
            if len(compressed) < len(content):
                stored, codec = compressed, int(self.compressor.codec)
        if len(stored) > MAX_PAYLOAD_BYTES:
            raise EventTooLarge(f"{len(stored):,} bytes; the table holds {MAX_PAYLOAD_BYTES:,}")
        return stored, codec


class EventLabel(NamedTuple):
    """How errors name an event. Only written out if there is one: text of an id takes its time."""

    name: str
    event_id: UUID

    def __str__(self) -> str:
        return f"event {self.name!r} ({self.event_id})"


def checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """*headers*, once each is known to be text and not the relay's. Raises InvalidHeader."""
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str) or not name:
            raise InvalidHeader(f"header {name!r}: name and value must be text")
        if name.lower() in RELAY_HEADERS:
            raise InvalidHeader(f"header {name!r} is written by the relay: choose another name")
    return dict(headers)


def headers_json(headers: Mapping[str, str]) -> str | None:
    """What the table stores for *headers*, which are checked. Raises InvalidHeader."""
    if not headers:
        return None
    text = json.dumps(headers, ensure_ascii=False, separators=(",", ":"))
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidHeader(f"a header is not valid Unicode ({error})") from error
    if size > MAX_HEADERS_BYTES:
        raise InvalidHeader(f"headers of {size:,} bytes; {MAX_HEADERS_BYTES:,} fit")
    return text


def _refuse_unfit_event(event: Payload) -> None:
    if isinstance(event, DomainEvent):
        raise WriteError(
            "a DomainEvent is handled in process and never outboxed: "
            "make a NotificationEvent or an ECSTEvent of it"
        )
    if type(event) in _WITHOUT_FIELDS:
        # pydantic has dropped what it was called with: an empty payload would go out.
        raise WriteError(
            f"{type(event).__name__} itself has no fields: make a class of it that has the event's "
            'fields, or pass a dict and say name="..."'
        )


@lru_cache(maxsize=1024)
def _name_problem(name: str) -> str | None:
    if not name.strip():
        return "the event's name is empty"
    if len(name) > MAX_NAME_CHARS:
        return f"the event's name has {len(name)} characters; {MAX_NAME_CHARS} fit"
    return _unicode_problem(name)


def _unicode_problem(text: str) -> str | None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"not valid Unicode ({error})"
    return None


def _checked_name(name: str | None) -> str:
    if not isinstance(name, str):
        raise InvalidName(
            'the event has no name: say name="..." in the call, or use an event class'
        )
    problem = _name_problem(name)
    if problem is not None:
        raise InvalidName(problem)
    return name


_TOPIC: Final = pattern(r"[a-zA-Z0-9._-]+")


@lru_cache(maxsize=1024)
def _topic_problem(topic: str) -> str | None:
    if len(topic) > MAX_TOPIC_CHARS:
        return f"topic {topic[:20]!r}... has {len(topic)} characters; Kafka takes {MAX_TOPIC_CHARS}"
    if topic in (".", "..") or not _TOPIC.fullmatch(topic):
        return f"Kafka takes no topic {topic!r}: use a-z A-Z 0-9 . _ -, but not . or .. alone"
    return None


def _checked_topic(topic: str | None, said: Said) -> str:
    if said.topic == "":
        raise InvalidTopic("the topic is empty")
    if not isinstance(topic, str):
        raise InvalidTopic(
            'the event has no topic: say topic="..." on its class or in the call, or '
            'Outbox(default_topic="...") for all events without one'
        )
    problem = _topic_problem(topic)
    if problem is not None:
        raise InvalidTopic(problem)
    return topic


@lru_cache(maxsize=1024)
def _checked_content_type(content_type: str) -> str:
    fits = 0 < len(content_type) <= MAX_CONTENT_TYPE_CHARS
    if not fits or not content_type.isascii() or not content_type.isprintable():
        raise InvalidHeader(
            f"content_type {content_type[:40]!r} must be 1 to {MAX_CONTENT_TYPE_CHARS} "
            "printable ASCII characters"
        )
    return content_type


def _key(event: Payload, said: Said) -> bytes | None:
    if said.key is not UNSET:
        return None if said.key is None else _key_bytes(said.key)
    field = getattr(type(event), "event_key", UNSET) if isinstance(event, OutgoingEvent) else UNSET
    if field is UNSET:
        raise MissingKey("nobody said whether it has a key: say key=..., or key=None for none")
    if field is None:
        return None
    value = getattr(event, str(field))
    if value is None:
        # An id that the database has not given yet: unkeyed, the event would lose its order.
        raise MissingKey(
            f"its key {field!r} is None: flush before you make the event, "
            "or say key=None for an event without a key"
        )
    return _key_bytes(value)


def _key_bytes(value: object) -> bytes:
    if isinstance(value, bytes):
        key = value
    elif isinstance(value, str):
        try:
            key = str.encode(value)
        except UnicodeEncodeError as error:
            raise InvalidKey(f"its key is not valid Unicode ({error})") from error
    elif isinstance(value, int) and not isinstance(value, bool):
        key = _decimal(value)
    elif isinstance(value, UUID):
        key = str(value).encode()
    else:
        raise InvalidKey(
            f"its key is a {type(value).__name__}: give bytes, str, int or UUID, "
            "which every writer encodes alike"
        )
    if len(key) > MAX_KEY_BYTES:
        raise InvalidKey(f"its key has {len(key):,} bytes; {MAX_KEY_BYTES:,} fit")
    return key


def _decimal(value: int) -> bytes:
    try:
        return b"%d" % value
    except ValueError as error:
        raise InvalidKey(f"its key is an int too long to write out ({error})") from error


def _content(event: Payload) -> tuple[bytes | None, str]:
    """The bytes of the value, None for a tombstone, and their default content type."""
    if isinstance(event, str):
        try:
            return str.encode(event), "text/plain; charset=utf-8"
        except UnicodeEncodeError as error:
            raise NotSerializable(f"the text is not valid Unicode ({error})") from error
    if isinstance(event, bytes):
        return event, "application/octet-stream"
    if event is None:
        return None, JSON
    try:
        return _json(event), JSON
    except NotSerializable:
        raise
    except Exception as error:
        # A field's own serializer may raise anything.
        raise NotSerializable(f"its payload cannot become JSON ({error})") from error


def _json(event: object) -> bytes:
    if isinstance(event, BaseModel):
        return event.model_dump_json().encode()
    if isinstance(event, list | tuple) and any(isinstance(item, Event) for item in event):
        raise NotSerializable(
            "a list of events is no event: pass them one by one, add(..., *events)"
        )
    if isinstance(event, dict | list | tuple) or _is_dataclass_instance(event):
        return strict_json(event)
    raise NotSerializable(
        f"a {type(event).__name__} is no payload: give an event, a pydantic model, a dataclass, "
        "dict, list, str or bytes, or None for a tombstone"
    )


def _is_dataclass_instance(event: object) -> bool:
    return is_dataclass(event) and not isinstance(event, type)


def strict_json(value: object) -> bytes:
    """*value* as JSON. Raises NotSerializable for NaN and Infinity, and whatever its own parts raise."""
    text = to_json(value, inf_nan_mode="constants")
    suspicious = b"NaN" in text or b"Infinity" in text
    # Not JSON, though Python's own parser takes it: consumers in other languages would choke.
    if suspicious and text != to_json(value, inf_nan_mode="null"):
        raise NotSerializable("its payload holds NaN or Infinity, which JSON does not have")
    return text
