"""`AMQPMessageBroker`: the documents' envelope, straight to RabbitMQ."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange
from aio_pika.exceptions import DeliveryError

from outbox_relay.brokers.amqp_client import CONNECTION_ERRORS, cancelled_by_itself, closed
from outbox_relay.brokers.amqp_errors import detail_of
from outbox_relay.cqrs.message_brokers.protocol import Message
from outbox_relay.errors import BrokerUnavailable, PublishError

if TYPE_CHECKING:
    from outbox_relay.relay.ports import MessageBroker as RelayBroker

TIMEOUT_SECONDS: Final = 10.0
CLOSE_SECONDS: Final = 1.0


class AMQPMessageBroker:
    """
    Publishes to the direct exchange *exchange_name*, from where messages reach the queue
    *queue_name*: both durable, made with the first message if they are not there. Messages are
    persistent, mandatory and confirmed.

    * dsn: amqp://user:password@host/vhost
    """

    def __init__(self, dsn: str, queue_name: str, exchange_name: str) -> None:
        self._dsn = dsn
        self._queue_name = queue_name
        self._exchange_name = exchange_name
        self._connection: AbstractConnection | None = None
        self._channel: AbstractChannel | None = None
        self._exchange: AbstractExchange | None = None
        self._connecting = asyncio.Lock()

    async def send_message(self, message: Message) -> None:
        """
        See `MessageBroker`. Returns when the server has confirmed it.

        Raises PublishError if the server refuses it or no queue takes it, BrokerUnavailable if the
        server does not answer.
        """
        sent = aio_pika.Message(
            message.to_json(),
            content_type="application/json",
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            message_id=str(message.message_id),
            type=message.message_name,
        )
        event = f"event {message.message_name!r} ({message.message_id})"
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                exchange = await self._connected()
                with cancelled_by_itself():
                    await exchange.publish(sent, self._queue_name, mandatory=True)
        except DeliveryError as error:
            # Not from it: its text, of a message that came back, holds the payload.
            raise PublishError(f"{event}: RabbitMQ refuses it: {detail_of(error)}") from None
        except CONNECTION_ERRORS as error:
            await self.close()
            raise BrokerUnavailable(
                f"RabbitMQ did not confirm {event}: {detail_of(error)}"
            ) from error

    async def declare(self) -> None:
        """Make exchange and queue now, which a relay asks for: it makes none."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await self._connected()

    async def _connected(self) -> AbstractExchange:
        async with self._connecting:
            if self._exchange is None or self._channel is None or self._channel.is_closed:
                await self.close()
                self._connection = await aio_pika.connect(self._dsn)
                with cancelled_by_itself():
                    # Without on_return_raises what no queue takes would count as sent.
                    self._channel = await self._connection.channel(on_return_raises=True)
                    self._exchange = await self._declared(self._channel)
            return self._exchange

    async def _declared(self, channel: AbstractChannel) -> AbstractExchange:
        exchange = await channel.declare_exchange(self._exchange_name, durable=True)
        queue = await channel.declare_queue(self._queue_name, durable=True)
        await queue.bind(exchange, routing_key=self._queue_name)
        return exchange

    def relay_broker(self) -> RelayBroker:
        """The same exchange, as the relay publishes to it: with the queue's name as routing key."""
        from outbox_relay.brokers.amqp import AmqpBroker  # noqa: PLC0415
        from outbox_relay.brokers.options import AmqpOptions  # noqa: PLC0415

        return AmqpBroker(
            AmqpOptions(url=self._dsn, exchange=self._exchange_name, routing_key=self._queue_name)
        )

    async def close(self) -> None:
        """Let go of the connection. The next message connects again."""
        connection, self._connection, self._exchange = self._connection, None, None
        if connection is not None:
            await closed(connection, CLOSE_SECONDS)
