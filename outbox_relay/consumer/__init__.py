"""
Consuming: records are decoded whatever their envelope, and a handler's effect happens once.

`Inbox` and `ConsumedRecord` need nothing but SQLAlchemy; `EventConsumer` runs over Kafka or AMQP.
"""

from __future__ import annotations

from outbox_relay.consumer.decoding import decode
from outbox_relay.consumer.deliveries import read_record
from outbox_relay.consumer.inbox import Inbox
from outbox_relay.consumer.record import ConsumedRecord, Delivery, Envelope

__all__ = ["ConsumedRecord", "Delivery", "Envelope", "Inbox", "decode", "read_record"]
