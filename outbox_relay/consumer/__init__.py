"""
Consuming: records are decoded whatever their envelope, and a handler's effect happens once.

`Inbox` and `ConsumedRecord` need nothing but SQLAlchemy. `EventConsumer` runs over a `KafkaSource` or
an `AmqpSource`; names are loaded when they are first used, so that nobody pays for the other one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from outbox_relay.lazy_names import lazy_names

if TYPE_CHECKING:
    from outbox_relay.consumer.amqp import AmqpSource
    from outbox_relay.consumer.consumer import EventConsumer
    from outbox_relay.consumer.decoding import decode
    from outbox_relay.consumer.deliveries import read_record
    from outbox_relay.consumer.inbox import Inbox
    from outbox_relay.consumer.kafka import KafkaSource
    from outbox_relay.consumer.metrics import ConsumerMetrics
    from outbox_relay.consumer.record import ConsumedRecord, Delivery, Envelope
    from outbox_relay.consumer.retries import Retries
    from outbox_relay.consumer.source import Outcome

__all__ = [
    "AmqpSource",
    "ConsumedRecord",
    "ConsumerMetrics",
    "Delivery",
    "Envelope",
    "EventConsumer",
    "Inbox",
    "KafkaSource",
    "Outcome",
    "Retries",
    "decode",
    "read_record",
]

_HOMES = {
    "outbox_relay.consumer.amqp": ("AmqpSource",),
    "outbox_relay.consumer.consumer": ("EventConsumer",),
    "outbox_relay.consumer.decoding": ("decode",),
    "outbox_relay.consumer.deliveries": ("read_record",),
    "outbox_relay.consumer.inbox": ("Inbox",),
    "outbox_relay.consumer.kafka": ("KafkaSource",),
    "outbox_relay.consumer.metrics": ("ConsumerMetrics",),
    "outbox_relay.consumer.record": ("ConsumedRecord", "Delivery", "Envelope"),
    "outbox_relay.consumer.retries": ("Retries",),
    "outbox_relay.consumer.source": ("Outcome",),
}

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(__name__, _HOMES)
