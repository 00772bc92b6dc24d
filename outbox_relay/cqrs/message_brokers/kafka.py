"""`KafkaMessageBroker`: the documents' envelope, straight to Kafka."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from outbox_relay.cqrs.adapters.kafka import KafkaProducer
from outbox_relay.cqrs.message_brokers.protocol import Message
from outbox_relay.errors import InvalidTopic

if TYPE_CHECKING:
    from outbox_relay.relay.ports import MessageBroker as RelayBroker


class KafkaMessageBroker:
    """
    Sends each message to its topic, or to all topics of the producer if it names none.

    * producer: see `outbox_relay.cqrs.adapters.kafka.kafka_producer_factory`
    * log_level: of aiokafka's own log
    """

    def __init__(self, producer: KafkaProducer, log_level: str = "ERROR") -> None:
        self._producer = producer
        logging.getLogger("aiokafka").setLevel(log_level)

    async def send_message(self, message: Message) -> None:
        """See `MessageBroker`. Raises InvalidTopic if nobody says where it goes."""
        topics = (message.topic,) if message.topic else self._producer.topics
        if not topics:
            raise InvalidTopic(
                f"event {message.message_name!r} ({message.message_id}): it has no topic, and the "
                "producer has none either: kafka_producer_factory(dsn, topics=[...])"
            )
        value = message.to_json()
        for topic in topics:
            await self._producer.produce(topic, value, message.key_bytes())

    @property
    def publish_deadline_seconds(self) -> float:
        """When the relay's batch without an answer counts as unknown."""
        return self._producer.options.publish_deadline_seconds

    def relay_broker(self) -> RelayBroker:
        """The same Kafka, as the relay publishes to it."""
        from outbox_relay.brokers.kafka import KafkaBroker  # noqa: PLC0415

        return KafkaBroker(self._producer.options)

    async def close(self) -> None:
        """Let go of the connections."""
        await self._producer.close()
