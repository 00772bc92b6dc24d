"""
Requests, responses and events as dataclasses, for those who write them so.

    @dataclass(frozen=True, kw_only=True)
    class UserJoined(NotificationEvent, topic="meetings", key="meeting_id"):
        meeting_id: int
        user_id: int

Maps, handlers, mediators and the outbox take them like any other.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, ClassVar
from uuid import UUID

from outbox_relay.errors import MissingKey
from outbox_relay.events import Description, SelfDescribing, uuid7
from outbox_relay.outbox.encode import EventLabel


@dataclass(frozen=True, kw_only=True)
class Request:
    """A command or a query."""


@dataclass(frozen=True, kw_only=True)
class Response:
    """The answer to a request."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened."""


@dataclass(frozen=True, kw_only=True)
class DomainEvent(Event):
    """Handled inside the application's own process; never outboxed."""


@dataclass(frozen=True, kw_only=True)
class _OutgoingEvent(Event, SelfDescribing):
    """
    Class arguments, inherited and each of them optional:

    * name: what consumers dispatch on; default: the class's name
    * topic: where it goes; default: the outbox's `default_topic`
    * key: the field whose value is the Kafka key, by which order holds; default: no key
    """

    event_type: ClassVar[str]
    event_name: ClassVar[str]
    event_topic: ClassVar[str | None] = None
    event_key: ClassVar[str | None] = None

    event_id: UUID = field(default_factory=uuid7)
    event_timestamp: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __init_subclass__(
        cls, *, name: str | None = None, topic: str | None = None, key: str | None = None
    ) -> None:
        super().__init_subclass__()
        # A dataclass with slots is made a second time, from what the first one has.
        if name is not None or "event_name" not in vars(cls):
            cls.event_name = name or cls.__name__
        if topic is not None:
            cls.event_topic = topic
        if key is not None:
            cls.event_key = key

    def describe(self) -> Description:
        """What the outbox writes: the fields of its own classes, under its id, name, topic, key."""
        return Description(
            event_id=self.event_id,
            name=self.event_name,
            payload={name: getattr(self, name) for name in _own_fields(type(self))},
            topic=self.event_topic,
            key=None if self.event_key is None else self._key(self.event_key),
        )

    def _key(self, field: str) -> Any:
        key = getattr(self, field, None)
        if key is None:
            label = EventLabel(self.event_name, self.event_id)
            if field not in (names := _own_fields(type(self))):
                raise MissingKey(f"{label}: its key {field!r} is none of its fields: {names}")
            # An id that the database has not given yet: unkeyed, the event would lose its order.
            raise MissingKey(f"{label}: its key {field!r} is None: flush before you make the event")
        return key

    def envelope_payload(self) -> dict[str, Any]:
        """What the documents' envelope carries as its payload: all fields."""
        return {one.name: getattr(self, one.name) for one in fields(self)}


@dataclass(frozen=True, kw_only=True)
class NotificationEvent(_OutgoingEvent):
    """Says that something happened and what it happened to; whoever wants more asks."""

    event_type: ClassVar[str] = "notification_event"


@dataclass(frozen=True, kw_only=True)
class ECSTEvent(_OutgoingEvent):
    """Event-carried state transfer: carries the whole state, so that nobody has to ask."""

    event_type: ClassVar[str] = "ecst_event"


@lru_cache(maxsize=1024)
def _own_fields(kind: type[_OutgoingEvent]) -> tuple[str, ...]:
    shared = {one.name for one in fields(_OutgoingEvent)}
    return tuple(one.name for one in fields(kind) if one.name not in shared)
