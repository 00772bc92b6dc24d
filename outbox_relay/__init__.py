"""
Transactional outbox: events written in your database transaction reach Kafka, at least once.

An application needs `Outbox` and an event class; the relay beside it does the rest. Names are
loaded when they are first used: importing this package loads neither Kafka nor HTTP code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from outbox_relay._version import __version__
from outbox_relay.lazy_names import lazy_names

if TYPE_CHECKING:
    from outbox_relay.compression import Compressor, ZlibCompressor
    from outbox_relay.consumer import ConsumedRecord, EventConsumer, Inbox
    from outbox_relay.errors import (
        AddNotAwaited,
        AutocommitHandle,
        EventTooLarge,
        InvalidHeader,
        InvalidKey,
        InvalidName,
        InvalidTopic,
        MissingKey,
        NotSerializable,
        OutboxRelayError,
        WriteError,
    )
    from outbox_relay.events import (
        UNSET,
        DomainEvent,
        ECSTEvent,
        Event,
        NotificationEvent,
        uuid7,
    )
    from outbox_relay.outbox import Outbox
    from outbox_relay.outbox.repository import SqlAlchemyOutboxedEventRepository
    from outbox_relay.relay.producer import EventProducer

__all__ = [
    "UNSET",
    "AddNotAwaited",
    "AutocommitHandle",
    "Compressor",
    "ConsumedRecord",
    "DomainEvent",
    "ECSTEvent",
    "Event",
    "EventConsumer",
    "EventProducer",
    "EventTooLarge",
    "Inbox",
    "InvalidHeader",
    "InvalidKey",
    "InvalidName",
    "InvalidTopic",
    "MissingKey",
    "NotSerializable",
    "NotificationEvent",
    "Outbox",
    "OutboxRelayError",
    "SqlAlchemyOutboxedEventRepository",
    "WriteError",
    "ZlibCompressor",
    "__version__",
    "uuid7",
]

_HOMES = {
    "outbox_relay.compression": ("Compressor", "ZlibCompressor"),
    "outbox_relay.consumer": ("ConsumedRecord", "EventConsumer", "Inbox"),
    "outbox_relay.errors": (
        "AddNotAwaited",
        "AutocommitHandle",
        "EventTooLarge",
        "InvalidHeader",
        "InvalidKey",
        "InvalidName",
        "InvalidTopic",
        "MissingKey",
        "NotSerializable",
        "OutboxRelayError",
        "WriteError",
    ),
    "outbox_relay.events": (
        "UNSET",
        "DomainEvent",
        "ECSTEvent",
        "Event",
        "NotificationEvent",
        "uuid7",
    ),
    "outbox_relay.outbox": ("Outbox",),
    "outbox_relay.outbox.repository": ("SqlAlchemyOutboxedEventRepository",),
    "outbox_relay.relay.producer": ("EventProducer",),
}

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(__name__, _HOMES)
