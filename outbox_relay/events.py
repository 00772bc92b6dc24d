"""
Events: facts in the past tense, as the application writes them.

A class says once where its events go; a call may override it::

    class OrderPlaced(NotificationEvent, name="order.placed", topic="orders", key="order_id"):
        order_id: int
        total: Decimal
"""

from __future__ import annotations

import secrets
import threading
import time
import uuid
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar, Final, Protocol, Self

from pydantic import BaseModel, ConfigDict, PrivateAttr

from outbox_relay.errors import WrongEvent

RELAY_HEADERS: Final = frozenset(
    {
        "ce_id",
        "ce_specversion",
        "ce_time",
        "ce_type",
        "content-type",
        "outbox-key",
        "outbox-seq",
        "outbox-tombstone",
        "outbox-value",
        "replay-of",
        "requeued-at",
    }
)
"""Header names that the relay writes itself. `ce_source` is the writer's to say."""


class Unset(Enum):
    """Nothing was said, which is not the same as None."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET


class Event(BaseModel):
    """
    Something that happened. Immutable; its fields are its payload.

    `event_id` is a UUID v7, made with the event and not part of the payload.
    """

    model_config = ConfigDict(frozen=True)

    _event_id: uuid.UUID = PrivateAttr(default_factory=lambda: uuid7())  # noqa: PLW0108 - it is defined below

    @property
    def event_id(self) -> uuid.UUID:
        """Identity of this occurrence: the same however often it is delivered."""
        return self._event_id


class DomainEvent(Event):
    """Handled inside the application's own process; never outboxed."""


class OutgoingEvent(Event):
    """
    What may leave the process. Class arguments, inherited and each of them optional:

    * name: what consumers dispatch on; default: the class's name
    * topic: the Kafka topic
    * key: the field whose value is the Kafka key; None for events without one
    """

    event_name: ClassVar[str]
    event_topic: ClassVar[str | None] = None
    event_key: ClassVar[str | None | Unset] = UNSET

    def __init_subclass__(cls, **kwargs: Any) -> None:
        # The class arguments are read below, once pydantic knows the fields.
        super().__init_subclass__()

    @classmethod
    def __pydantic_init_subclass__(
        cls,
        *,
        name: str | None = None,
        topic: str | None = None,
        key: str | None | Unset = UNSET,
        **kwargs: Any,
    ) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        cls.event_name = name or cls.__name__
        if topic is not None:
            cls.event_topic = topic
        if key is not UNSET:
            cls.event_key = key
        if isinstance(cls.event_key, str) and cls.event_key not in cls.model_fields:
            raise TypeError(
                f"{cls.__name__}: key={cls.event_key!r} is not a field of the event "
                f"(fields: {', '.join(cls.model_fields) or 'none'})"
            )

    @classmethod
    def from_record(cls, record: EventRecord) -> Self:
        """
        The event that *record* carries, with the `event_id` that it was written with.

        Raises WrongEvent if the record carries an event of another name or a tombstone, and
        pydantic's ValidationError if its payload does not fit the class.
        """
        if record.event_name not in (None, cls.event_name):
            raise WrongEvent(f"{record.place}: it is {record.event_name!r}, not {cls.event_name!r}")
        if record.data is None:
            raise WrongEvent(f"{record.place}: a tombstone has no fields for {cls.__name__}")
        event = cls.model_validate_json(record.data)
        if record.event_id is not None:
            event._event_id = record.event_id
        return event


class EventRecord(Protocol):
    """An event as it was consumed, such as `outbox_relay.consumer.ConsumedRecord`."""

    @property
    def event_name(self) -> str | None: ...
    @property
    def event_id(self) -> uuid.UUID | None: ...
    @property
    def data(self) -> bytes | None:
        """The payload's bytes; None for a tombstone."""

    @property
    def place(self) -> str:
        """Where it stands, for errors."""


class NotificationEvent(OutgoingEvent):
    """Says that something happened and what it happened to; whoever wants more asks."""


class ECSTEvent(OutgoingEvent):
    """Event-carried state transfer: carries the whole state, so that nobody has to ask."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What an event says of itself. A call may override it; a topic may be left to the outbox."""

    event_id: uuid.UUID
    name: str
    payload: Any
    topic: str | None = None
    key: bytes | str | int | uuid.UUID | None = None


class SelfDescribing(ABC):
    """An event whose instances, not its class, say name, topic, key and payload."""

    @abstractmethod
    def describe(self) -> Description:
        """What the outbox writes of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxedEvent:
    """
    An event as a row holds it, before it has an id. Made by the write side, checked.

    `key` and `payload` are as stored: `codec` says how to read the payload. `headers` is a JSON
    object of strings, or None.
    """

    event_id: uuid.UUID
    event_name: str
    topic: str
    key: bytes | None
    headers: str | None
    content_type: str
    payload: bytes
    codec: int

    def values(self) -> dict[str, Any]:
        """The row, by column name."""
        return {column: getattr(self, column) for column in self.__slots__}


@dataclass(slots=True)
class _Uuid7Clock:
    """RFC 9562, section 6.2, method 2: a random start each millisecond, counted up within it."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    milliseconds: int = 0
    tail: int = 0

    def next(self) -> tuple[int, int]:
        with self.lock:
            now = time.time_ns() // 1_000_000
            if now > self.milliseconds:
                # One bit stays free, so that counting up cannot overflow into the next millisecond.
                self.milliseconds, self.tail = now, secrets.randbits(73)
            else:
                self.tail += 1 + secrets.randbits(32)
            return self.milliseconds, self.tail


_clock = _Uuid7Clock()


def uuid7() -> uuid.UUID:
    """A UUID v7 (RFC 9562): sorts by time, strictly so within this process."""
    milliseconds, tail = _clock.next()
    value = (milliseconds & (1 << 48) - 1) << 80
    value |= 0x7 << 76 | (tail >> 62) << 64
    value |= 0b10 << 62 | tail & (1 << 62) - 1
    return uuid.UUID(int=value)
