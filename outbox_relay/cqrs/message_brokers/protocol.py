"""The documents' port of a message broker, and the envelope that goes through it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from outbox_relay.errors import NotSerializable
from outbox_relay.events import ECSTEvent, OutgoingEvent, SelfDescribing
from outbox_relay.outbox.encode import strict_json


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """
    The envelope: JSON of message_type, message_name, message_id and payload.

    * topic: where it goes; None: where the broker was told to send such messages
    * key: as the outbox would write it; only Kafka has keys
    """

    message_type: str
    message_name: str
    message_id: UUID
    payload: Any
    topic: str | None = None
    key: bytes | str | int | UUID | None = None

    def key_bytes(self) -> bytes | None:
        """The key as the outbox encodes it."""
        if self.key is None or isinstance(self.key, bytes):
            return self.key
        return str(self.key).encode()

    def to_json(self) -> bytes:
        """The bytes on the wire. Raises NotSerializable."""
        envelope = {
            "message_type": self.message_type,
            "message_name": self.message_name,
            "message_id": self.message_id,
            "payload": self.payload,
        }
        try:
            return strict_json(envelope)
        except Exception as error:
            raise NotSerializable(
                f"event {self.message_name!r} ({self.message_id}): its payload cannot become JSON "
                f"({error})"
            ) from error


class MessageBroker(Protocol):
    """Takes messages, one at a time."""

    async def send_message(self, message: Message) -> None:
        """
        Hand *message* over, and return when the broker has it.

        Raises a PublishError if it does not.
        """


def message_of(event: Any) -> Message:
    """*event*, of whichever form, in its envelope."""
    if isinstance(event, SelfDescribing):
        described = event.describe()
        return Message(
            message_type=getattr(event, "event_type", "notification_event"),
            message_name=described.name,
            message_id=described.event_id,
            payload=getattr(event, "envelope_payload", lambda: described.payload)(),
            topic=described.topic,
            key=described.key,
        )
    if not isinstance(event, OutgoingEvent):
        raise TypeError(f"a {type(event).__name__} does not leave the process")
    key = event.event_key
    return Message(
        message_type="ecst_event" if isinstance(event, ECSTEvent) else "notification_event",
        message_name=event.event_name,
        message_id=event.event_id,
        payload={"event_id": event.event_id, **event.model_dump(mode="json")},
        topic=event.event_topic,
        key=getattr(event, key) if isinstance(key, str) else None,
    )
