"""
Redis Pub/Sub through redis-py: a topic is a channel.

At least once up to Redis, at most once behind it: the ack says that Redis handed the message to who was
subscribed at that moment. Nobody else ever gets it, and a subscriber whose connection breaks loses what
was on its way. `min_receivers` keeps events back while nobody is there, no more than that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from outbox_relay.brokers.cloudevents import structured
from outbox_relay.brokers.options import RedisOptions
from outbox_relay.brokers.redis_client import Command, RedisClient
from outbox_relay.brokers.redis_errors import TooFewReceivers, outcome_of
from outbox_relay.brokers.redis_streams import check, refusal, transaction
from outbox_relay.errors import BrokerUnavailable
from outbox_relay.relay.outcomes import Acked, Fault, Outcome, Rejected, RejectReason, Unknown
from outbox_relay.relay.ports import Observer, Record
from outbox_relay.relay.watching import Silent

PROBE = ("PING",)


class RedisPubSubBroker:
    """The `MessageBroker` port over Redis Pub/Sub."""

    def __init__(self, options: RedisOptions, *, observer: Observer | None = None) -> None:
        self._options = options
        self._client = RedisClient(options, observer or Silent())

    def known_partitions(self, topic: str) -> int | None:
        """See MessageBroker. A channel is there as soon as it is named."""
        return 1

    async def partitions(self, topic: str) -> int:
        """See MessageBroker."""
        return 1

    async def publish(self, topic: str, partition: int, records: Sequence[Record]) -> Outcome:
        """See MessageBroker."""
        refused = refusal(records, self._options.max_record_bytes)
        if refused is not None:
            return refused
        channel = self._options.channel.replace("{topic}", topic)
        try:
            commands: list[Command] = [("PUBLISH", channel, self._message(r)) for r in records]
        except (TypeError, ValueError) as error:
            return Rejected(reason=RejectReason.UNREADABLE, detail=type(error).__name__)
        try:
            async with asyncio.timeout(self._options.publish_deadline_seconds):
                receivers = check(await self._client.place(topic).ask(transaction(commands)))
                self._check_receivers(channel, receivers)
        except TimeoutError:
            detail = f"no answer within {self._options.publish_deadline_seconds} s"
            return Unknown(fault=Fault.PARTITION, detail=detail)
        except BrokerUnavailable as error:
            return Unknown(fault=Fault.BROKER, detail=str(error))
        except Exception as error:  # noqa: BLE001 - whatever redis-py raises, nothing is given up
            self._client.count(error)
            return outcome_of(error)
        return Acked()

    def _message(self, record: Record) -> bytes:
        if self._options.format == "payload":
            return record.value or b""
        return structured(record)

    def _check_receivers(self, channel: str, receivers: Sequence[int]) -> None:
        # Nobody can subscribe in the middle of the transaction: all have the same number.
        if min(receivers) < self._options.min_receivers:
            raise TooFewReceivers(
                f"{min(receivers)} of {self._options.min_receivers} subscribers of channel "
                f"{channel} are there"
            )

    async def probe(self) -> bool:
        """See MessageBroker."""
        return await self._client.answers(PROBE)

    async def close(self, *, timeout_seconds: float) -> None:
        """See MessageBroker."""
        await self._client.close(timeout_seconds)
