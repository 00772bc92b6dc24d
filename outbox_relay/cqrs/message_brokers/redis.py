"""`RedisMessageBroker`: the documents' envelope, straight to Redis Pub/Sub."""

from __future__ import annotations

from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from outbox_relay.cqrs.message_brokers.protocol import Message
from outbox_relay.errors import BrokerUnavailable

CHANNEL_PREFIX: Final = "python_diator_channel"
"""What subscribers of diator listen to: ``PSUBSCRIBE python_diator_channel:*``."""


class RedisMessageBroker:
    """
    Publishes each message to the channel that is its topic; one without a topic to the channel
    *channel_prefix*:*message id*.

    Pub/Sub keeps nothing: whoever is not subscribed at that moment never gets it.
    """

    def __init__(self, client: Redis, *, channel_prefix: str = CHANNEL_PREFIX) -> None:
        self._client: Any = client
        self._prefix = channel_prefix

    async def send_message(self, message: Message) -> None:
        """See `MessageBroker`. Raises BrokerUnavailable if Redis does not take it."""
        channel = message.topic or f"{self._prefix}:{message.message_id}"
        try:
            await self._client.publish(channel, message.to_json())
        except (RedisError, OSError) as error:
            raise BrokerUnavailable(
                f"Redis did not take event {message.message_name!r} ({message.message_id}): {error}"
            ) from error
