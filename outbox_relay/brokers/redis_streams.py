"""
Redis Streams through redis-py: a topic is a stream, a record an entry, a batch one MULTI … EXEC.

The server takes the batch as a whole or not at all, so no record can overtake an earlier one of its key.
What an ack is worth is the server's setting: with ``appendfsync everysec`` a crash of its machine takes
the last second with it, and a failover what no replica has, unless `wait_replicas` asks for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from outbox_relay.brokers.options import RedisOptions
from outbox_relay.brokers.redis_client import CLIENT_ERRORS, Command, RedisClient
from outbox_relay.brokers.redis_errors import TooFewReplicas, detail_of, known, outcome_of
from outbox_relay.brokers.stored import Stored
from outbox_relay.errors import BrokerUnavailable, TopicUnavailable
from outbox_relay.relay.known import Meaning
from outbox_relay.relay.outcomes import Acked, Fault, Outcome, Rejected, RejectReason, Unknown
from outbox_relay.relay.ports import Observer, Record
from outbox_relay.relay.watching import Silent

# Refused for every reason for which an entry would be, and writes none: the stream must exist.
PROBE = ("XADD", "outbox-relay-probe", "NOMKSTREAM", "*", "probe", "1")

WAIT_SHARE = 0.8
"""Of the deadline, for the replicas: their number is then known before the deadline has passed."""


class RedisStreamsBroker:
    """The `MessageBroker` port over Redis Streams."""

    def __init__(self, options: RedisOptions, *, observer: Observer | None = None) -> None:
        self._options = options
        self._client = RedisClient(options, observer or Silent())
        self._known: set[str] = set()
        self._stored: dict[str, tuple[int, Stored]] = {}

    def known_partitions(self, topic: str) -> int | None:
        """See MessageBroker."""
        return 1 if topic in self._known else None

    async def partitions(self, topic: str) -> int:
        """See MessageBroker. One; a key that holds something else is no stream."""
        try:
            async with asyncio.timeout(self._options.request_timeout_seconds):
                [kind] = await self._client.place(None).ask([("TYPE", self._stream(topic))])
        except CLIENT_ERRORS as error:
            raise BrokerUnavailable(f"{self._client.server}: {detail_of(error)}") from error
        if isinstance(kind, BaseException):
            row = known(kind)
            if row is None or row.meaning is not Meaning.PAUSE_TOPIC:
                raise BrokerUnavailable(f"{self._client.server}: {detail_of(kind)}") from kind
            # It may write there all the same: publishing tells.
        elif kind not in (b"stream", b"none"):
            raise TopicUnavailable(
                f"topic {topic}: the key {self._stream(topic)} holds a {kind.decode()}: "
                "correct redis.stream, or remove it"
            )
        self._known.add(topic)
        return 1

    def _stream(self, topic: str) -> str:
        return self._options.stream.replace("{topic}", topic)

    async def publish(self, topic: str, partition: int, records: Sequence[Record]) -> Outcome:
        """See MessageBroker."""
        refused = refusal(records, self._options.max_record_bytes)
        if refused is not None:
            return refused
        try:
            async with asyncio.timeout(self._options.publish_deadline_seconds):
                await self._publish(topic, records)
        except TimeoutError:
            detail = f"no answer within {self._options.publish_deadline_seconds} s"
            return Unknown(fault=Fault.PARTITION, detail=detail)
        except BrokerUnavailable as error:
            return Unknown(fault=Fault.BROKER, detail=str(error))
        except Exception as error:  # noqa: BLE001 - whatever redis-py raises, nothing is given up
            self._client.count(error)
            outcome = outcome_of(error)
            if isinstance(outcome, Unknown) and outcome.fault is Fault.TOPIC:
                self._known.discard(topic)
            return outcome
        return Acked()

    async def _publish(self, topic: str, records: Sequence[Record]) -> None:
        place = self._client.place(topic)
        number, stored = self._stored.get(topic, (0, None))
        if stored is None or number != place.number:
            stored = Stored(asyncio.get_running_loop().time)
            number = place.number
        rest = stored.without(records)
        commands: list[Command] = transaction([self._entry(topic, r) for r in rest])
        if self._options.wait_replicas:
            milliseconds = int(self._options.publish_deadline_seconds * WAIT_SHARE * 1000)
            commands.append(("WAIT", self._options.wait_replicas, milliseconds))
        answers = await place.ask(commands)
        if not self._options.wait_replicas:
            check(answers)
            return
        replicas = answers.pop()
        if rest:
            check(answers)
        if len(rest) < len(records) and place.number != number:
            # WAIT is about what its own connection wrote, and this one wrote the rest alone.
            self._stored.pop(topic, None)
            raise TooFewReplicas("the connection was lost before the replicas had it")
        self._stored[topic] = (place.number, stored)
        stored.add(rest)
        if isinstance(replicas, BaseException):
            raise replicas
        if replicas < self._options.wait_replicas:
            raise TooFewReplicas(f"{replicas} of {self._options.wait_replicas} replicas have it")
        stored.settle(records)

    def _entry(self, topic: str, record: Record) -> Command:
        trim: tuple[str | int, ...] = ()
        if self._options.max_stream_length:
            trim = ("MAXLEN", "~", self._options.max_stream_length)
        fields: list[bytes | str] = [part for header in record.headers for part in header]
        if record.key is not None:
            fields += ["outbox-key", record.key]
        if record.value is not None:
            fields += ["outbox-value", record.value]
        return ("XADD", self._stream(topic), *trim, "*", *fields)

    async def probe(self) -> bool:
        """See MessageBroker. A server that refuses every write, for want of memory, does not."""
        return await self._client.answers(PROBE)

    async def close(self, *, timeout_seconds: float) -> None:
        """See MessageBroker."""
        await self._client.close(timeout_seconds)


def transaction(commands: Sequence[Command]) -> list[Command]:
    """*commands* as one step of the server; nothing of none."""
    return [("MULTI",), *commands, ("EXEC",)] if commands else []


def check(answers: Sequence[Any]) -> Any:
    """
    What the commands of a `transaction` returned. Raises the first error that the server answered.

    An error of one that was queued says more than the EXECABORT at the end.
    """
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    results = answers[-1]
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


def refusal(records: Sequence[Record], limit: int) -> Rejected | None:
    """What the server need not be asked about."""
    for record in records:
        size = len(record.value or b"")
        if size > limit:
            return Rejected(
                reason=RejectReason.TOO_LARGE,
                detail=f"{size} bytes are more than redis.max_record_bytes = {limit}",
            )
    return None
