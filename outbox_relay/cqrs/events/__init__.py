"""Events, their handlers, and where they go."""

from outbox_relay.cqrs.events.event import DomainEvent, ECSTEvent, Event, NotificationEvent
from outbox_relay.cqrs.events.event_emitter import EventEmitter
from outbox_relay.cqrs.events.event_handler import EventHandler
from outbox_relay.cqrs.events.map import EventMap

__all__ = [
    "DomainEvent",
    "ECSTEvent",
    "Event",
    "EventEmitter",
    "EventHandler",
    "EventMap",
    "NotificationEvent",
]
