"""
Kafka through aiokafka: ``acks=all``, idempotent, one batch per partition at a time.

Three things about aiokafka 0.14 shape this file; each was seen on a live Kafka 4.1.

* Its futures may stay pending for ever while the broker is away, and so may ``stop()``. Every
  deadline is therefore ours, and a producer is closed by cancelling its sender.
* A batch that fails for good uses up sequence numbers that the broker never sees, so everything
  after it on that partition fails with OutOfOrderSequenceNumber until there is a new producer.
  After any failure the producer is retired: it takes no new batches, those under way settle.
* It asks only the brokers that it knows for metadata. A new producer starts from the bootstrap
  servers again, which also finds a cluster whose brokers were all replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from outbox_relay.brokers.kafka_errors import outcome_of
from outbox_relay.brokers.options import KafkaOptions
from outbox_relay.brokers.record_batch import RecordBatch
from outbox_relay.brokers.security import LOGIN_ERRORS, Login
from outbox_relay.brokers.topics import is_topic_name
from outbox_relay.errors import BrokerUnavailable, CredentialsError, TopicUnavailable
from outbox_relay.relay.outcomes import Acked, Fault, Outcome, Rejected, RejectReason, Unknown
from outbox_relay.relay.ports import Observer, Record
from outbox_relay.relay.watching import Silent

METADATA_ATTEMPTS = 3
MOST_BATCH_BYTES = 64 * 1024 * 1024
METADATA_AGE_MS = 60_000
BATCH_OVERHEAD_BYTES = 61  # record batch header, kafka.apache.org/documentation/#recordbatch


class _Client:
    """One aiokafka producer and how many batches it has under way."""

    def __init__(self, options: KafkaOptions, login: Mapping[str, Any]) -> None:
        self.producer = AIOKafkaProducer(
            bootstrap_servers=[s.strip() for s in options.bootstrap_servers.split(",")],
            client_id=options.client_id,
            acks="all",
            enable_idempotence=options.idempotent,
            linger_ms=0,
            # Batches are cut to size before they come here; a builder must never refuse a record.
            max_batch_size=max(2 * options.max_request_bytes, MOST_BATCH_BYTES) + 1024,
            max_request_size=max(2 * options.max_request_bytes, MOST_BATCH_BYTES) + 1024,
            request_timeout_ms=int(options.request_timeout_seconds * 1000),
            metadata_max_age_ms=METADATA_AGE_MS,
            compression_type=None if options.compression == "none" else options.compression,
            **login,
        )
        self.under_way = 0
        self.idle = asyncio.Event()
        self.idle.set()

    def begin(self) -> None:
        self.under_way += 1
        self.idle.clear()

    def done(self) -> None:
        self.under_way -= 1
        if not self.under_way:
            self.idle.set()

    async def close(self, timeout_seconds: float) -> None:
        """Let go within the time given: ``stop()`` alone may never return."""
        sender = self.producer._sender.sender_task
        if sender is not None:
            sender.cancel()
            await asyncio.wait([sender], timeout=timeout_seconds / 2)
            if sender.done() and not sender.cancelled():
                sender.exception()
        self.producer._closed = True
        with contextlib.suppress(TimeoutError, KafkaError, OSError):
            async with asyncio.timeout(timeout_seconds / 2):
                await self.producer.client.close()


class KafkaBroker:
    """The `Broker` port over Kafka."""

    def __init__(self, options: KafkaOptions, *, observer: Observer | None = None) -> None:
        self._options = options
        self._login = Login(options)
        self._observer = observer or Silent()
        self._client: _Client | None = None
        self._starting: asyncio.Task[_Client] | None = None
        self._probing: asyncio.Task[bool] | None = None
        self._retiring: set[asyncio.Task[None]] = set()

    # Topics

    def known_partitions(self, topic: str) -> int | None:
        """See Broker."""
        if self._client is None:
            return None
        partitions = self._client.producer.client.cluster.partitions_for_topic(topic)
        return len(partitions) if partitions else None

    async def partitions(self, topic: str) -> int:
        """See Broker."""
        if not is_topic_name(topic):
            # aiokafka would ask for it ever after, and one too long ends each request for metadata.
            raise TopicUnavailable(f"topic {topic[:40]!r} is no name in Kafka: correct the event")
        client = await self._started()
        known = self.known_partitions(topic)
        metadata = client.producer.client
        for attempt in range(METADATA_ATTEMPTS):
            if known is not None:
                return known
            try:
                async with asyncio.timeout(self._options.request_timeout_seconds):
                    answered = await (
                        metadata.add_topic(topic)
                        if attempt == 0
                        else metadata.force_metadata_update()
                    )
            except TimeoutError as error:
                raise BrokerUnavailable("no broker answered with metadata in time") from error
            if not answered and attempt == METADATA_ATTEMPTS - 1:
                raise BrokerUnavailable("no broker answered with metadata")
            known = self.known_partitions(topic)
            if known is None:
                # A topic that was just made shows up a moment later.
                await asyncio.sleep(0.1)
        if topic in metadata.cluster.unauthorized_topics:
            raise TopicUnavailable(
                f"topic {topic}: the relay is not authorised: grant it Write and Describe"
            )
        raise TopicUnavailable(f"topic {topic} does not exist: create it, or correct the event")

    # Publishing

    async def publish(self, topic: str, partition: int, records: Sequence[Record]) -> Outcome:
        """See Broker."""
        if len(records) == 1:
            size = records[0].byte_count + BATCH_OVERHEAD_BYTES
            if size > self._options.max_request_bytes:
                return Rejected(
                    reason=RejectReason.TOO_LARGE,
                    detail=f"{size} bytes are more than kafka.max_request_bytes = "
                    f"{self._options.max_request_bytes}",
                )
        client: _Client | None = None
        try:
            async with asyncio.timeout(self._options.publish_deadline_seconds):
                client = await self._started()
                client.begin()
                await self._deliver(client, topic, partition, records, self._options.compression)
        except TimeoutError:
            outcome: Outcome = Unknown(
                fault=Fault.PARTITION,
                detail=f"no answer within {self._options.publish_deadline_seconds} s",
            )
        except BrokerUnavailable as error:
            return Unknown(fault=Fault.BROKER, detail=str(error))
        except (KafkaError, OSError, AssertionError) as error:
            outcome = outcome_of(error)
        else:
            return Acked()
        finally:
            if client is not None:
                client.done()
        if client is not None:
            self._retire(client, type(outcome).__name__.lower())
        return outcome

    @staticmethod
    async def _deliver(
        client: _Client, topic: str, partition: int, records: Sequence[Record], compression: str
    ) -> None:
        """Publish the records as one batch and wait for the ack."""
        batch = RecordBatch(records, compression=compression)
        await (await client.producer.send_batch(batch, topic, partition=partition))

    # The producer's life

    async def _started(self) -> _Client:
        """A producer that takes batches. All who need one wait for the same start."""
        if self._client is not None:
            return self._client
        if self._starting is None:
            self._starting = asyncio.create_task(self._start())
            self._starting.add_done_callback(self._start_ended)
        try:
            return await asyncio.shield(self._starting)
        except LOGIN_ERRORS as error:
            raise BrokerUnavailable(str(error)) from error

    async def _start(self) -> _Client:
        try:
            login = self._login.arguments()
        except CredentialsError as error:
            raise BrokerUnavailable(str(error)) from error
        client = _Client(self._options, login)
        try:
            async with asyncio.timeout(self._options.request_timeout_seconds):
                await client.producer.start()
        except BaseException as error:
            # An object whose start failed hangs on the first send: it is never used.
            await client.close(1.0)
            if not isinstance(error, LOGIN_ERRORS):
                raise
            raise BrokerUnavailable(
                await self._login.refusal(login)
                or f"kafka at {self._options.bootstrap_servers} does not answer "
                f"({type(error).__name__}): start it, or correct kafka.bootstrap_servers and "
                "kafka.security_protocol"
            ) from error
        self._client = client
        return client

    def _start_ended(self, task: asyncio.Task[_Client]) -> None:
        self._starting = None
        if not task.cancelled() and task.exception() is not None:
            self._observer.log("broker_unavailable", error=str(task.exception()))

    def _retire(self, client: _Client, reason: str) -> None:
        """Give no more batches to *client*. What it has under way settles first."""
        if self._client is not client:
            return
        self._client = None
        self._observer.log("producer_rebuilt", reason=reason)
        task = asyncio.create_task(self._close_when_idle(client))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    @staticmethod
    async def _close_when_idle(client: _Client) -> None:
        await client.idle.wait()
        await client.close(2.0)

    # Health

    async def probe(self) -> bool:
        """See Broker."""
        if self._probing is None:
            self._probing = asyncio.create_task(self._probe())
        try:
            return await asyncio.shield(self._probing)
        finally:
            if self._probing is not None and self._probing.done():
                self._probing = None

    async def _probe(self) -> bool:
        try:
            client = await self._started()
            async with asyncio.timeout(self._options.request_timeout_seconds):
                answered = await client.producer.client.force_metadata_update()
        except (BrokerUnavailable, TimeoutError):
            answered = False
        if not answered and self._client is not None:
            # Perhaps every broker it knows was replaced: start from the bootstrap servers again.
            self._retire(self._client, "no_metadata")
        return bool(answered)

    async def close(self, *, timeout_seconds: float) -> None:
        """See Broker."""
        tasks = [task for task in (self._starting, self._probing, *self._retiring) if task]
        for task in tasks:
            task.cancel()
        if self._client is not None:
            await self._client.close(timeout_seconds)
            self._client = None
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_seconds)
