"""
AMQP as a source, over aio-pika: a queue, acknowledged by hand, in the order in which it delivers.

Messages are prefetched and handled one after the other; each is acked after its handler has returned.
One that is repeated waits here, unacked, so that those behind it stay behind. What was not acked when
the connection is lost is delivered again by the broker: hence the inbox.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from typing import Any, Final

import aio_pika
from aio_pika.abc import (
    AbstractChannel,
    AbstractConnection,
    AbstractExchange,
    AbstractIncomingMessage,
    AbstractQueue,
)
from aio_pika.exceptions import AMQPError

from outbox_relay.consumer.processor import log
from outbox_relay.consumer.record import Delivery
from outbox_relay.consumer.retries import Retries
from outbox_relay.consumer.source import Process
from outbox_relay.consumer.waiting import CANCEL_SECONDS, bounded, wait_until

_CLOSE_SECONDS: Final = 5.0
_OPEN_SECONDS: Final = 15.0
_PUBLISH_SECONDS: Final = 30.0
_LOOK_SECONDS: Final = 15.0
_RECONNECT: Final = Retries(initial_seconds=0.5, max_seconds=30.0)
_ERRORS: Final = (AMQPError, RuntimeError, EOFError, OSError, TimeoutError)
"""What aio-pika raises on a connection that is gone: RuntimeError where it was closed before."""


class AmqpSource:
    """
    One *queue*, which exists already, with its bindings.

    * dead_letter_exchange, dead_letter_routing_key: where messages go that are given up; the key is
      the message's own by default. Published with a confirm and `mandatory`: one that no queue takes
      is held, and so is every message if neither is given. "" with a key is the queue of that name
    * prefetch: how many messages the broker sends ahead. They wait unacked: keep it so low that none
      waits longer than the broker's consumer_timeout (30 minutes)
    * client: for `aio_pika.connect`: ssl_context, heartbeat, timeout (15 s by default), …
    """

    def __init__(
        self,
        queue: str,
        *,
        url: str,
        dead_letter_exchange: str | None = None,
        dead_letter_routing_key: str | None = None,
        prefetch: int = 50,
        client: Mapping[str, Any] | None = None,
    ) -> None:
        if not queue or prefetch < 1:
            raise ValueError(
                f"queue = {queue!r} must have a name, prefetch = {prefetch} at least 1"
            )
        if dead_letter_exchange == "" and dead_letter_routing_key in (None, queue):
            raise ValueError("dead_letter_exchange = '' needs the name of another queue as its key")
        self.queue = queue
        self.dead_letter_exchange = dead_letter_exchange
        self.dead_letter_routing_key = dead_letter_routing_key
        self.prefetch = prefetch
        self._url = url
        self._client = dict(client or {})
        self._channel: AbstractChannel | None = None
        self._exchange: AbstractExchange | None = None

    @property
    def can_dead_letter(self) -> bool:
        """Whether there is an exchange for them."""
        return self.dead_letter_exchange is not None

    async def run(self, process: Process, stopping: asyncio.Event, stop_seconds: float) -> None:
        """Consume until *stopping* is set, over as many connections as it takes."""
        failures = 0
        while not stopping.is_set():
            session = _Session(self, process, stopping, stop_seconds)
            try:
                await session.run()
            except _ERRORS as error:
                failures = 0 if session.was_open else failures + 1
                seconds = _RECONNECT.delay_seconds(failures, random.random())  # noqa: S311
                log.warning(
                    "amqp_unavailable",
                    error=type(error).__name__,
                    again_in_seconds=round(seconds, 1),
                )
                await wait_until(stopping, seconds)

    async def dead_letter(self, delivery: Delivery, headers: list[tuple[str, bytes]]) -> None:
        """Publish to the exchange, durable and confirmed. Raises AMQPError if no queue takes it."""
        assert self.dead_letter_exchange is not None
        if self._channel is None:
            raise ConnectionError("the connection is lost")
        async with asyncio.timeout(_PUBLISH_SECONDS):
            if self._exchange is None:
                self._exchange = await self._find_exchange(self._channel)
            message = aio_pika.Message(
                delivery.value or b"",
                # Headers that came as properties go back where they were.
                headers={
                    name: _value(value)
                    for name, value in headers
                    if name not in ("content-type", "content-encoding")
                },
                content_type=_text(delivery, "content-type"),
                content_encoding=_text(delivery, "content-encoding"),
                message_id=delivery.message_id,
                type=delivery.message_type,
                timestamp=delivery.timestamp,
                delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            )
            await self._exchange.publish(
                message, self.dead_letter_routing_key or delivery.topic, mandatory=True
            )

    async def open(self) -> tuple[AbstractConnection, AbstractChannel, AbstractQueue]:
        """A connection, a channel of it and the queue. Raises what aio-pika does, or TimeoutError."""
        async with asyncio.timeout(self._client.get("timeout") or _OPEN_SECONDS):
            connection = await aio_pika.connect(self._url, **self._client)
            try:
                channel = await connection.channel(on_return_raises=True)
                await channel.set_qos(prefetch_count=self.prefetch)
                queue = await channel.get_queue(self.queue)
            except BaseException:
                await bounded(connection.close(), _CLOSE_SECONDS)
                raise
        self._channel, self._exchange = channel, None
        return connection, channel, queue

    def closed(self) -> None:
        """The channel is gone."""
        self._channel = self._exchange = None

    async def _find_exchange(self, channel: AbstractChannel) -> AbstractExchange:
        if self.dead_letter_exchange == "":
            return channel.default_exchange
        return await channel.get_exchange(self.dead_letter_exchange or "", ensure=True)


class _Session:
    """The life of one connection."""

    def __init__(
        self, source: AmqpSource, process: Process, stopping: asyncio.Event, stop_seconds: float
    ) -> None:
        self._source = source
        self._process = process
        self._stopping = stopping
        self._stop_seconds = stop_seconds
        self._ending = asyncio.Event()
        self._waiting: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
        self._is_handling = False
        self._worker: asyncio.Future[None] | None = None
        self._connection: AbstractConnection | None = None
        self._dismissed = asyncio.Event()
        self.was_open = False

    async def run(self) -> None:
        """Consume until stopped. Raises one of _ERRORS when the connection is lost."""
        consuming = asyncio.ensure_future(self._consume())
        stopped: asyncio.Future[Any] = asyncio.ensure_future(self._stopping.wait())
        try:
            # Apart from it, so that no answer of the broker's is waited for once `stopped` is set.
            await asyncio.wait({consuming, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if consuming.done():
                _result(consuming)
        except asyncio.CancelledError:
            self._stop_seconds = 0.0
            raise
        finally:
            stopped.cancel()
            if self._worker is not None:
                await self._end(self._worker)
            self._source.closed()
            consuming.cancel()
            await asyncio.wait({consuming}, timeout=CANCEL_SECONDS)
            if self._connection is not None:
                await bounded(self._connection.close(), _CLOSE_SECONDS)

    async def _consume(self) -> None:
        """Open, and consume until the worker, the channel or the consumer ends."""
        self._connection, channel, queue = await self._source.open()
        self.was_open = True
        self._worker = worker = asyncio.ensure_future(self._work())
        ends = {
            worker,
            asyncio.ensure_future(channel.closed()),
            asyncio.ensure_future(self._dismissed.wait()),
        }
        underlay = await channel.get_underlay_channel()
        underlay.on_consumer_cancel_callbacks.add(self._dismiss)
        try:
            await queue.consume(self._waiting.put)
            while not any(end.done() for end in ends):
                await asyncio.wait(ends, timeout=_LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                # A server that does not say so when a queue is deleted says it now.
                if not any(end.done() for end in ends):
                    await channel.get_queue(self._source.queue)
        finally:
            for end in ends - {worker}:
                end.cancel()
        if worker.done():
            _result(worker)
        raise ConnectionError("the broker ended the consumer")

    def _dismiss(self, _: object) -> None:
        # The queue was deleted, or moved: it may be there again at once, and would hear nothing of it.
        self._dismissed.set()

    async def _work(self) -> None:
        while not self._ending.is_set():
            message = await self._waiting.get()
            self._is_handling = True
            outcome = await self._process(message, self._ending)
            if outcome is None:
                return
            # Only now: an ack before the handler's commit would lose the effect with the process.
            await message.ack()
            self._is_handling = False

    async def _end(self, worker: asyncio.Future[Any]) -> None:
        # What is not acked, prefetched or in work, is the broker's again once the channel is closed.
        self._ending.set()
        if not self._is_handling:
            worker.cancel()
        await asyncio.wait({worker}, timeout=self._stop_seconds)
        if not worker.done():
            log.warning("handler_cancelled", topic=self._source.queue)
            worker.cancel()
            await asyncio.wait({worker}, timeout=CANCEL_SECONDS)
        if worker.done() and not worker.cancelled():
            worker.exception()  # told already, or of no interest any more


def _result(done: asyncio.Future[None]) -> None:
    """Raise what ended it. aiormq cancels what waits on a connection that it gives up."""
    if done.cancelled():
        raise ConnectionError("the connection is lost")
    done.result()


def _value(value: bytes) -> str | bytearray:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return bytearray(value)  # which travels as bytes, such as a key that is no text


def _text(delivery: Delivery, name: str) -> str | None:
    value = delivery.header.get(name)
    return None if value is None else value.decode(errors="backslashreplace")
