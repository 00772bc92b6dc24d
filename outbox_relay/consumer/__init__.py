"""
Consuming: records are decoded whatever their envelope, and a handler's effect happens once.

`Inbox` and `ConsumedRecord` need nothing but SQLAlchemy. `EventConsumer` runs over a `KafkaSource` or
an `AmqpSource`; names are loaded when they are first used, so that nobody pays for the other one.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

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
    "amqp": ("AmqpSource",),
    "consumer": ("EventConsumer",),
    "decoding": ("decode",),
    "deliveries": ("read_record",),
    "inbox": ("Inbox",),
    "kafka": ("KafkaSource",),
    "metrics": ("ConsumerMetrics",),
    "record": ("ConsumedRecord", "Delivery", "Envelope"),
    "retries": ("Retries",),
    "source": ("Outcome",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
