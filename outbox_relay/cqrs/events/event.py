"""
Events in the documents' form: an instance says its name, topic and payload.

`DomainEvent` and `Event` are those of `outbox_relay.events`, whose fields are the payload; so are
its `NotificationEvent` and `ECSTEvent`, the form to prefer in new code. Handlers may return either.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar
from uuid import UUID

from pydantic import AliasChoices, ConfigDict, Field

from outbox_relay.cqrs import dataclass_models
from outbox_relay.events import (
    Description,
    DomainEvent,
    Event,
    OutgoingEvent,
    SelfDescribing,
)

Payload = TypeVar("Payload")


class _NamedEvent(Event, SelfDescribing, Generic[Payload]):
    """
    * event_name: what consumers dispatch on
    * payload: a dict, or a model of its own: ``NotificationEvent[RoomClosed]``
    * event_topic, or topic: where it goes; None: the outbox's `default_topic`
    * event_key: the Kafka key, by which order holds; None: no key, so no order
    * event_id, event_timestamp: made with the event; the outbox keeps the id, and its row has a
      time of its own
    """

    model_config = ConfigDict(populate_by_name=True)

    event_type: ClassVar[str]

    event_name: str
    event_topic: str | None = Field(
        default=None, validation_alias=AliasChoices("event_topic", "topic")
    )
    event_key: bytes | str | int | UUID | None = None
    event_timestamp: datetime = Field(default_factory=lambda: datetime.now(UTC))
    payload: Payload

    def __init__(self, *, event_id: UUID | str | None = None, **fields: Any) -> None:
        super().__init__(**fields)
        if event_id is not None:
            self._event_id = event_id if isinstance(event_id, UUID) else UUID(event_id)

    @property
    def topic(self) -> str | None:
        """`event_topic`, by its other name."""
        return self.event_topic

    def describe(self) -> Description:
        """What the outbox writes: the payload, under the event's own id, name, topic and key."""
        return Description(
            event_id=self.event_id,
            name=self.event_name,
            payload=self.payload,
            topic=self.event_topic,
            key=self.event_key,
        )

    def envelope_payload(self) -> dict[str, Any]:
        """What the documents' envelope carries as its payload."""
        return {
            "event_id": self.event_id,
            "event_timestamp": self.event_timestamp,
            "event_name": self.event_name,
            "payload": self.payload,
        }


class NotificationEvent(_NamedEvent[Payload], Generic[Payload]):
    """Says that something happened and what it happened to; whoever wants more asks."""

    event_type = "notification_event"


class ECSTEvent(_NamedEvent[Payload], Generic[Payload]):
    """Event-carried state transfer: carries the whole state, so that nobody has to ask."""

    event_type = "ecst_event"


AnyEvent: TypeAlias = Event | SelfDescribing
"""What a handler may return in its `events`."""


def is_event(event: object) -> bool:
    """Whether *event* says of itself that it is one: somebody may handle it here, or nobody."""
    return isinstance(event, (Event, dataclass_models.Event, SelfDescribing))


def leaves_the_process(event: object) -> bool:
    """Whether *event* is for others: a notification or ECST event, of whichever form."""
    return leaves_the_process_class(type(event))


def leaves_the_process_class(kind: type) -> bool:
    """Whether events of this class are for others."""
    return issubclass(kind, _OUTGOING)


_OUTGOING = (OutgoingEvent, SelfDescribing)


__all__ = [
    "AnyEvent",
    "DomainEvent",
    "ECSTEvent",
    "Event",
    "NotificationEvent",
    "is_event",
    "leaves_the_process",
    "leaves_the_process_class",
]
