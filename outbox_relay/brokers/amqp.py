"""
RabbitMQ, or what else speaks AMQP 0-9-1, through aio-pika: persistent, mandatory, confirmed.

A topic becomes an exchange and a routing key, by the settings; it has one partition and a channel of its
own, so that one with a missing exchange, which closes the channel, holds up no other. A batch is not one
step for the server: it may take a record and refuse the one before it (a queue that is full for a
moment). So two records of one key are never under way together, see `runs`.

A channel that did not answer in time is given up and never used again: its confirms would be taken for
those of the next batch. A connection whose server answers nothing is given up too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

try:
    import aio_pika
    from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange
except ImportError as error:  # pragma: no cover - depends on what is installed
    raise ImportError(
        "publishing to AMQP needs the package aio-pika: pip install 'outbox-relay[amqp]'"
    ) from error

from outbox_relay.brokers.amqp_client import (
    CONNECTION_ERRORS,
    AmqpClient,
    cancelled_by_itself,
    is_blocked,
)
from outbox_relay.brokers.amqp_errors import detail_of, known, outcome_of, unexpected, worst
from outbox_relay.brokers.amqp_message import NEVER_ERRORS, can_travel, message_of
from outbox_relay.brokers.options import AmqpOptions
from outbox_relay.brokers.stored import Stored, runs
from outbox_relay.errors import BrokerUnavailable, TopicUnavailable
from outbox_relay.relay.known import Meaning
from outbox_relay.relay.outcomes import Acked, Fault, Outcome, Rejected, RejectReason, Unknown
from outbox_relay.relay.ports import Observer, Record
from outbox_relay.relay.watching import Silent

MOST_SHORT_BYTES = 255
"""Longest name of an exchange and longest routing key (AMQP 0-9-1, short string)."""

MOST_HEADER_BYTES = 120_000
"""Headers travel in one frame, which has 131,072 bytes unless the server was told otherwise."""

MOST_CHANNELS = 1000
Messages = dict[int, tuple[aio_pika.Message, str]]
"""For each record, by its identity: the message and its routing key."""


class _Line:
    """The way to one topic: its channel."""

    def __init__(self, connection: AbstractConnection, channel: AbstractChannel) -> None:
        self.connection = connection
        self.channel = channel
        self.exchanges: dict[str, AbstractExchange] = {"": channel.default_exchange}
        self.under_way = 0
        self.is_proven = False
        """Whether a message was confirmed on it."""

    async def exchange(self, name: str) -> AbstractExchange:
        """Without asking the server."""
        if name not in self.exchanges:
            self.exchanges[name] = await self.channel.get_exchange(name, ensure=False)
        return self.exchanges[name]


class AmqpBroker:
    """The `MessageBroker` port over AMQP."""

    def __init__(self, options: AmqpOptions, *, observer: Observer | None = None) -> None:
        self._options = options
        self._observer = observer or Silent()
        self._client = AmqpClient(options, self._observer)
        self._probing: asyncio.Task[bool] | None = None
        self._lines: dict[str, _Line] = {}
        self._opening: dict[str, asyncio.Lock] = {}
        self._stored: dict[str, Stored] = {}
        self._known: set[str] = set()

    # Topics

    def known_partitions(self, topic: str) -> int | None:
        """See MessageBroker."""
        return 1 if topic in self._known else None

    async def partitions(self, topic: str) -> int:
        """See MessageBroker. One, if the exchange is there, or the queue where there is no exchange."""
        exchange = self._exchange(topic)
        if len(exchange.encode()) > MOST_SHORT_BYTES:
            raise TopicUnavailable(f"the exchange of topic {topic[:40]!r} has too long a name")
        try:
            async with asyncio.timeout(self._options.request_timeout_seconds):
                connection = await self._client.connected()
                with cancelled_by_itself():
                    await self._look(connection, topic, exchange)
        except TimeoutError as error:
            self._client.give_up("no_metadata")
            raise BrokerUnavailable(f"{self._client.server} does not answer in time") from error
        except CONNECTION_ERRORS as error:
            row = known(error)
            if row is not None and row.meaning is Meaning.PAUSE_TOPIC:
                refused = TopicUnavailable(self._absent(topic, exchange, error))
                refused.unauthorised = row.code == "ChannelAccessRefused"
                raise refused from error
            raise BrokerUnavailable(detail_of(error)) from error
        self._known.add(topic)
        return 1

    async def _look(self, connection: AbstractConnection, topic: str, exchange: str) -> None:
        """Ask on a channel of its own, which the server closes where the answer is no."""
        queue = self._options.routing_key.replace("{topic}", topic)
        if not exchange and "{" in queue:
            return
        channel = connection.channel(publisher_confirms=False)
        try:
            await channel.initialize()
            if exchange:
                await channel.declare_exchange(exchange, passive=True)
            else:
                await channel.declare_queue(queue, passive=True)
        finally:
            self._client.retire(channel)

    def _absent(self, topic: str, exchange: str, error: BaseException) -> str:
        row = known(error)
        if row is not None and row.code == "ChannelNotFoundEntity":
            what = f"exchange {exchange}" if exchange else "queue"
            return f"topic {topic}: its {what} does not exist: declare it, or correct the event"
        return f"topic {topic}: {detail_of(error)}"

    def _exchange(self, topic: str) -> str:
        return self._options.exchange.replace("{topic}", topic)

    def _routing_key(self, topic: str, record: Record) -> str:
        made = self._options.routing_key.replace("{topic}", topic)
        if "{event}" in made:
            made = made.replace("{event}", dict(record.shared.headers)["ce_type"].decode())
        return made.replace("{key}", (record.key or b"").decode(errors="backslashreplace"))

    # Publishing

    async def publish(self, topic: str, partition: int, records: Sequence[Record]) -> Outcome:
        """See MessageBroker."""
        stored = self._stored.setdefault(topic, Stored(asyncio.get_running_loop().time))
        refused = self._refusal(records)
        if refused is not None:
            return refused
        try:
            messages = {id(r): (message_of(r), self._routing_key(topic, r)) for r in records}
            longest = max(len(key.encode()) for _, key in messages.values())
        except (*NEVER_ERRORS, OSError) as error:
            # Nothing was sent, and the same records can never become messages.
            return Rejected(reason=RejectReason.UNREADABLE, detail=type(error).__name__)
        if longest > MOST_SHORT_BYTES:
            detail = f"its routing key has more than {MOST_SHORT_BYTES} bytes"
            return Rejected(reason=RejectReason.INVALID_RECORD, detail=detail)
        return await self._within_the_deadline(topic, records, messages, stored)

    async def _within_the_deadline(
        self,
        topic: str,
        records: Sequence[Record],
        messages: Messages,
        stored: Stored,
    ) -> Outcome:
        try:
            async with asyncio.timeout(self._options.publish_deadline_seconds):
                outcome = await self._publish(topic, stored.without(records), messages, stored)
        except TimeoutError:
            self._give_up(topic, "unknown")
            detail = f"no confirm within {self._options.publish_deadline_seconds} s"
            return Unknown(fault=Fault.PARTITION, detail=detail)
        except BrokerUnavailable as error:
            return Unknown(fault=Fault.BROKER, detail=str(error))
        if isinstance(outcome, Acked):
            stored.settle(records)
        return outcome

    def _refusal(self, records: Sequence[Record]) -> Rejected | None:
        """What the server need not be asked about: it would close the channel, or the connection."""
        limit = self._options.max_record_bytes
        for record in records:
            size = len(record.value or b"")
            if size > limit:
                return Rejected(
                    reason=RejectReason.TOO_LARGE,
                    detail=f"{size} bytes are more than amqp.max_record_bytes = {limit}",
                )
            if record.byte_count - size > MOST_HEADER_BYTES:
                return Rejected(
                    reason=RejectReason.INVALID_RECORD,
                    detail=f"key and headers of more than {MOST_HEADER_BYTES} bytes",
                )
        return None

    async def _publish(
        self,
        topic: str,
        records: Sequence[Record],
        messages: Messages,
        stored: Stored,
    ) -> Outcome:
        line = await self._line(topic)
        line.under_way += 1
        try:
            exchange = await line.exchange(self._exchange(topic))
            for run in self._in_turn(line, records):
                sent = [exchange.publish(*messages[id(r)], mandatory=True) for r in run]
                answers = await asyncio.gather(*sent, return_exceptions=True)
                outcomes = [
                    self._outcome(topic, answer, messages[id(r)][0])
                    for r, answer in zip(run, answers, strict=True)
                ]
                stored.add(r for r, o in zip(run, outcomes, strict=True) if isinstance(o, Acked))
                outcome = worst(outcomes)
                line.is_proven |= isinstance(outcome, Acked)
                if not isinstance(outcome, Acked):
                    if line.channel.is_closed:
                        self._give_up(topic, "ended")
                    return outcome
        except CONNECTION_ERRORS as error:
            if isinstance(error, TimeoutError):
                raise
            self._give_up(topic, "ended")
            return self._outcome(topic, error)
        finally:
            line.under_way -= 1
        return Acked()

    @staticmethod
    def _in_turn(line: _Line, records: Sequence[Record]) -> list[list[Record]]:
        """
        What is sent together. On a new channel the first record goes alone: where the exchange is
        missing the server closes the channel, and what aiormq had written to it besides would make
        the server close the connection, with the batches of all other topics.
        """
        if line.is_proven or not records:
            return runs(records)
        return [[records[0]], *runs(records[1:])]

    def _outcome(
        self, topic: str, answer: object, message: aio_pika.Message | None = None
    ) -> Outcome:
        if not isinstance(answer, BaseException):
            return Acked()
        if isinstance(answer, asyncio.CancelledError):
            # aiormq cancels what waits on a channel that closes.
            return Unknown(fault=Fault.PARTITION, detail="the channel closed")
        if isinstance(answer, NEVER_ERRORS) and message is not None and not can_travel(message):
            return Rejected(reason=RejectReason.UNREADABLE, detail=type(answer).__name__)
        word = unexpected(answer)
        if word is not None:
            self._observer.log("unexpected_error", source="amqp", error=word)
        outcome = outcome_of(answer, unroutable=self._options.unroutable)
        if isinstance(outcome, Unknown) and outcome.fault is Fault.TOPIC:
            self._known.discard(topic)
        return outcome

    # Channels

    async def _line(self, topic: str) -> _Line:
        async with self._opening.setdefault(topic, asyncio.Lock()):
            connection = await self._client.connected()
            line = self._lines.get(topic)
            if line is not None and line.connection is connection and not line.channel.is_closed:
                return line
            self._give_up(topic, "ended")
            self._make_room()
            channel = connection.channel(publisher_confirms=True, on_return_raises=True)
            try:
                with cancelled_by_itself():
                    await channel.initialize()
            except CONNECTION_ERRORS as error:
                if isinstance(error, TimeoutError):
                    raise
                raise BrokerUnavailable(detail_of(error)) from error
            line = self._lines[topic] = _Line(connection, channel)
            return line

    def _make_room(self) -> None:
        if len(self._lines) >= MOST_CHANNELS:
            idle = [topic for topic, line in self._lines.items() if not line.under_way]
            for topic in idle[: MOST_CHANNELS // 10]:
                self._client.retire(self._lines.pop(topic).channel)

    def _give_up(self, topic: str, reason: str) -> None:
        """Never publish on the topic's channel again."""
        line = self._lines.pop(topic, None)
        if line is not None:
            self._observer.log("producer_rebuilt", reason=reason)
            self._client.retire(line.channel)

    # Health

    async def probe(self) -> bool:
        """See MessageBroker. A server that takes nothing in, for want of memory or disk, does not."""
        if self._probing is None:
            self._probing = asyncio.create_task(self._probe())
        try:
            return await asyncio.shield(self._probing)
        finally:
            if self._probing is not None and self._probing.done():
                self._probing = None

    async def _probe(self) -> bool:
        try:
            async with asyncio.timeout(self._options.request_timeout_seconds):
                connection = await self._client.connected()
                if is_blocked(connection):
                    return False
                channel = connection.channel(publisher_confirms=False)
                try:
                    with cancelled_by_itself():
                        await channel.initialize()
                finally:
                    self._client.retire(channel)
        except BrokerUnavailable:
            return False
        except CONNECTION_ERRORS:
            self._client.give_up("no_metadata")
            return False
        return True

    async def close(self, *, timeout_seconds: float) -> None:
        """See MessageBroker."""
        if self._probing is not None:
            self._probing.cancel()
        self._lines.clear()
        await self._client.close(timeout_seconds)
