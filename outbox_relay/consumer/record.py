"""
What a consumer gets: a delivery as the broker hands it over, and the record that was read from it.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from functools import cached_property
from typing import Any, Final

from outbox_relay.errors import UnreadableRecord

_NAMESPACE: Final = uuid.UUID("8b1f4d3a-6f0e-5c55-9d0c-2a7a0e0f5b11")


class Envelope(StrEnum):
    """How the event was wrapped on the wire."""

    CLOUDEVENTS_BINARY = "cloudevents_binary"
    """Attributes in headers, the payload as the value: what this relay writes."""

    CLOUDEVENTS_STRUCTURED = "cloudevents_structured"
    """One JSON object with the attributes and `data`."""

    DOCUMENTS = "documents"
    """`message_type`, `message_name`, `message_id`, `payload`: python-cqrs 0.x and diator."""

    PYTHON_CQRS = "python_cqrs"
    """`event_name`, `event_id`, `payload`: python-cqrs 1.0 to 4.x, and pydantic events of 5.x."""

    PYTHON_CQRS_CAMEL = "python_cqrs_camel"
    """`eventName`, `eventId`, `payload`: the events that python-cqrs 5.x makes by default."""

    NONE = "none"
    """Nothing that is known."""


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """
    One delivery, as it came. A broker without partitions leaves `partition` and `offset` None.

    `message_id` and `message_type` are properties of AMQP.
    """

    topic: str
    partition: int | None = None
    offset: int | None = None
    key: bytes | None = field(default=None, repr=False)
    value: bytes | None = field(default=None, repr=False)
    headers: tuple[tuple[str, bytes], ...] = field(default=(), repr=False)
    timestamp: datetime | None = None
    message_id: str | None = None
    message_type: str | None = None

    @property
    def place(self) -> str:
        """Where it stands, for errors and logs: ``orders[2]@1754``."""
        where = "" if self.partition is None else f"[{self.partition}]@{self.offset}"
        return f"{self.topic}{where}"

    @cached_property
    def header(self) -> Mapping[str, bytes]:
        """The headers by name; of several with one name, the first."""
        return dict(reversed(self.headers))


@dataclass(frozen=True, kw_only=True)
class ConsumedRecord:
    """
    An event as it was consumed, whatever its envelope.

    * event_id: identity of the occurrence, the same in each delivery; None if nothing says it.
      An id that is no UUID becomes one: derived from it and its source.
    * time: when it happened, by its envelope; None where that names no zone
    * sequence: `outbox-seq`, the row's id in its outbox
    * replay_of, requeued_at: why it comes late, where the relay said so
    """

    delivery: Delivery
    envelope: Envelope
    event_id: uuid.UUID | None = None
    event_name: str | None = None
    source: str = ""
    time: datetime | None = None
    sequence: int | None = None
    replay_of: str | None = None
    requeued_at: datetime | None = None
    content_type: str = "application/json"
    content: bytes | None = field(default=None, repr=False)
    """The payload's bytes, where the envelope carries bytes."""

    parsed: Any = field(default=None, repr=False)
    """The payload, where the envelope is JSON and carries it inside."""

    @property
    def topic(self) -> str:
        """The Kafka topic; on AMQP the routing key."""
        return self.delivery.topic

    @property
    def partition(self) -> int | None:
        """The Kafka partition."""
        return self.delivery.partition

    @property
    def offset(self) -> int | None:
        """The Kafka offset."""
        return self.delivery.offset

    @property
    def key(self) -> bytes | None:
        """The key, within which order holds."""
        return self.delivery.key

    @property
    def headers(self) -> Mapping[str, bytes]:
        """All headers as they came."""
        return self.delivery.header

    @property
    def place(self) -> str:
        """Where it stands, for errors and logs."""
        return self.delivery.place

    @property
    def is_tombstone(self) -> bool:
        """Whether it carries no value: Kafka's null."""
        return self.content is None and self.parsed is None

    @cached_property
    def data(self) -> bytes | None:
        """The payload's bytes, without its envelope; None for a tombstone."""
        if self.parsed is None:
            return self.content
        return json.dumps(self.parsed, ensure_ascii=False, separators=(",", ":")).encode(
            errors="surrogatepass"
        )

    @cached_property
    def payload(self) -> Any:
        """
        The payload: parsed if it is JSON, else its bytes; None for a tombstone.

        Raises UnreadableRecord if it says that it is JSON, and is not.
        """
        if self.parsed is not None or self.content is None or not is_json(self.content_type):
            return self.content if self.parsed is None else self.parsed
        try:
            return json.loads(self.content)
        except (ValueError, RecursionError) as error:
            raise unreadable(self.delivery, f"its payload is not JSON: {_kind(error)}") from None


def unreadable(delivery: Delivery, why: str) -> UnreadableRecord:
    """The error that names the place of *delivery*, and nothing that it holds."""
    return UnreadableRecord(f"{delivery.place}: {why}")


def identity(text: str, source: str) -> uuid.UUID:
    """
    The id *text* as a UUID. One that is none is unique within its *source* only (CloudEvents 1.0).

    >>> identity("00112233445566778899aabbccddeeff", "")
    UUID('00112233-4455-6677-8899-aabbccddeeff')
    """
    try:
        return uuid.UUID(text)
    except ValueError:
        # JSON may hold half a character, which has no UTF-8.
        name = f"{source}\0{text}".encode(errors="backslashreplace").decode()
        return uuid.uuid5(_NAMESPACE, name)


def instant_of(text: object) -> datetime | None:
    """*text* as an instant in UTC; None if it is none, or names no zone."""
    try:
        at = datetime.fromisoformat(text) if isinstance(text, str) else None
        return at.astimezone(UTC) if at is not None and at.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def is_json(content_type: str) -> bool:
    """Whether a payload of this media type is JSON."""
    kind = content_type.partition(";")[0].strip().lower()
    return kind in ("application/json", "text/json") or kind.endswith("+json")


def _kind(error: BaseException) -> str:
    # Never the text: it may quote the payload.
    return getattr(error, "msg", None) or type(error).__name__
