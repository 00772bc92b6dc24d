"""
Kafka through aiokafka: ``acks=all``, idempotent, one batch per partition at a time.

Three things about aiokafka 0.14 shape this file; each was seen on a live Kafka 4.1.

* Its futures may stay pending for ever while the broker is away, and so may ``stop()``. Every
  deadline is therefore ours, and a producer is closed by cancelling its sender.
* A batch that fails for good uses up sequence numbers that the broker never sees, so everything
  after it on that partition fails with OutOfOrderSequenceNumber until there is a new producer.
* It asks only the brokers that it knows for metadata. A new producer starts from the bootstrap
  servers again, which also finds a cluster whose brokers were all replaced.

Hence the *main* producer serves what is well, and a partition whose last batch was not acked goes to a
*quarantine* producer, which is given up after each failure. What is acked there goes back as soon as the
main producer has been renewed; healthy partitions meanwhile notice nothing.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Sequence
from dataclasses import replace

from aiokafka.structs import TopicPartition

from outbox_relay.brokers.kafka_client import Client, topics_of
from outbox_relay.brokers.kafka_errors import detail_of, outcome_of, refusal_of, unexpected
from outbox_relay.brokers.kafka_throttle import Throttled, Throttles
from outbox_relay.brokers.options import KafkaOptions
from outbox_relay.brokers.record_batch import RecordBatch
from outbox_relay.brokers.security import LOGIN_ERRORS, Login
from outbox_relay.brokers.topics import is_topic_name
from outbox_relay.errors import BrokerUnavailable, CredentialsError, TopicUnavailable
from outbox_relay.relay.outcomes import (
    Acked,
    Fault,
    Outcome,
    Rejected,
    RejectReason,
    Unknown,
    Unsent,
)
from outbox_relay.relay.ports import Observer, Record
from outbox_relay.relay.watching import Silent

METADATA_ATTEMPTS = 3
BATCH_OVERHEAD_BYTES = 61  # record batch header, kafka.apache.org/documentation/#recordbatch
MOST_QUARANTINES = 3
RENEW_SECONDS = 5.0
"""The main producer is renewed no more often: what waits for it goes by quarantine meanwhile."""


class KafkaBroker:
    """The `MessageBroker` port over Kafka."""

    def __init__(self, options: KafkaOptions, *, observer: Observer | None = None) -> None:
        self._options = options
        self._login = Login(options)
        self._observer = observer or Silent()
        self._throttles = Throttles(self._observer)
        self._client: Client | None = None
        self._starting: asyncio.Task[Client] | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._renewed_at = float("-inf")
        self._probing: asyncio.Task[bool] | None = None
        self._retiring: set[asyncio.Task[None]] = set()
        self._sick: set[TopicPartition] = set()
        self._quarantines: list[Client] = []
        self._choosing = asyncio.Lock()

    # Topics

    def known_partitions(self, topic: str) -> int | None:
        """See MessageBroker."""
        if self._client is None:
            return None
        partitions = self._client.producer.client.cluster.partitions_for_topic(topic)
        return len(partitions) if partitions else None

    async def partitions(self, topic: str) -> int:
        """See MessageBroker."""
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
            refused = TopicUnavailable(
                f"topic {topic}: the relay is not authorised: grant it Write and Describe"
            )
            refused.unauthorised = True
            raise refused
        raise TopicUnavailable(f"topic {topic} does not exist: create it, or correct the event")

    # Publishing

    async def publish(self, topic: str, partition: int, records: Sequence[Record]) -> Outcome:
        """See MessageBroker."""
        if len(records) == 1:
            size = records[0].byte_count + BATCH_OVERHEAD_BYTES
            if size > self._options.max_request_bytes:
                return Rejected(
                    reason=RejectReason.TOO_LARGE,
                    detail=f"{size} bytes are more than kafka.max_request_bytes = "
                    f"{self._options.max_request_bytes}",
                )
        tp = TopicPartition(topic, partition)
        if await self._throttles.rest(self._leader(tp)):
            # Even if that is over now: the lease may not be trusted for a whole deadline any more.
            return Unsent()
        try:
            batch = RecordBatch(records, compression=self._options.compression)
        except (TypeError, ValueError, ArithmeticError, struct.error) as error:
            # Nothing was sent, and the same records can never become a batch.
            return Rejected(reason=RejectReason.UNREADABLE, detail=type(error).__name__)
        return await self._publish(tp, batch)

    def _leader(self, tp: TopicPartition) -> int | None:
        return self._client.leader(tp) if self._client is not None else None

    async def _publish(self, tp: TopicPartition, batch: RecordBatch) -> Outcome:
        client: Client | None = None
        try:
            async with asyncio.timeout(self._options.publish_deadline_seconds):
                client = await self._client_for(tp)
                await client.publish(tp, batch)
        except TimeoutError:
            outcome = self._too_late(tp, client)
        except Throttled as error:
            await self._throttles.rest(error.node_id)
            outcome = Unsent()
        except BrokerUnavailable as error:
            return Unknown(fault=Fault.BROKER, detail=str(error))
        except Exception as error:  # noqa: BLE001 - whatever aiokafka raises, nothing is given up
            outcome = outcome_of(error)
            self._count(error)
        else:
            self._heal(tp)
            return Acked()
        if client is not None and not isinstance(outcome, Acked):
            self._failed(client, tp, outcome)
        return outcome

    def _too_late(self, tp: TopicPartition, client: Client | None) -> Outcome:
        """The deadline has passed. If the batch was refused for now until then, that is why."""
        detail = f"no answer within {self._options.publish_deadline_seconds} s"
        error = client.last_error(tp) if client is not None else None
        if error is None:
            return Unknown(fault=Fault.PARTITION, detail=detail)
        if isinstance(error, Throttled):
            return Unsent()
        self._count(error)
        outcome = outcome_of(error)
        said = f"{detail} but {detail_of(error)}"
        if isinstance(outcome, Unknown):
            return replace(outcome, detail=said)
        return Unknown(fault=Fault.PARTITION, detail=said)

    def _count(self, error: BaseException) -> None:
        word = unexpected(error)
        if word is not None:
            self._observer.log("unexpected_error", source="kafka", error=word)

    # Main and quarantine

    async def _client_for(self, tp: TopicPartition) -> Client:
        main = await self._started()
        if main.has_ended:
            self._retire(main, "ended")
            main = await self._started()
        if tp not in self._sick and tp not in main.burnt:
            return main
        if not main.burnt <= self._sick:
            self._renew()
        return await self._quarantine()

    async def _quarantine(self) -> Client:
        """One with nothing under way, if it can be had: the sick ones do not wait for one another."""
        async with self._choosing:
            free = [client for client in self._quarantines if not client.under_way]
            if free:
                return free[0]
            if len(self._quarantines) < MOST_QUARANTINES:
                try:
                    client = await self._start()
                except LOGIN_ERRORS as error:
                    raise BrokerUnavailable(detail_of(error)) from error
                self._quarantines.append(client)
                return client
            return min(self._quarantines, key=lambda client: client.under_way)

    def _failed(self, client: Client, tp: TopicPartition, outcome: Outcome) -> None:
        """What follows for the producers from an outcome but an ack."""
        if isinstance(outcome, Unsent) and tp not in client.burnt:
            return
        if isinstance(outcome, Unknown) and tp not in self._sick:
            self._sick.add(tp)
            self._observer.log(
                "partition_quarantined",
                topic=tp.topic,
                partition=tp.partition,
                error=outcome.detail,
            )
        if client is not self._client:
            self._retire(client, type(outcome).__name__.lower())

    def _heal(self, tp: TopicPartition) -> None:
        if tp in self._sick:
            self._sick.discard(tp)
            self._observer.log("partition_well", topic=tp.topic, partition=tp.partition)

    def _renew(self) -> None:
        """Start another main producer beside the one at work, and change over when it is ready."""
        now = asyncio.get_running_loop().time()
        if self._renewing is None and now - self._renewed_at >= RENEW_SECONDS:
            self._renewed_at = now
            self._renewing = asyncio.create_task(self._change_over())

    async def _change_over(self) -> None:
        old = self._client
        try:
            fresh = await self._start()
            if old is not None:
                async with asyncio.timeout(self._options.request_timeout_seconds):
                    await fresh.producer.client.set_topics(topics_of(old))
        except (*LOGIN_ERRORS, BrokerUnavailable) as error:
            self._observer.log("renewal_failed", error=detail_of(error))
            return
        finally:
            self._renewing = None
        if old is None or self._client is not old:
            await fresh.close(1.0)
            return
        self._retire(old, "healed")
        self._client = fresh
        if not self._sick:
            for client in list(self._quarantines):
                self._retire(client, "healed")

    # The producers' lives

    async def _started(self) -> Client:
        """The main producer. All who need one wait for the same start."""
        if self._client is not None:
            return self._client
        if self._starting is None:
            self._starting = asyncio.create_task(self._start_main())
            self._starting.add_done_callback(self._start_ended)
        try:
            return await asyncio.shield(self._starting)
        except LOGIN_ERRORS as error:
            raise BrokerUnavailable(str(error)) from error

    async def _start_main(self) -> Client:
        client = self._client = await self._start()
        return client

    async def _start(self) -> Client:
        try:
            login = self._login.arguments()
        except CredentialsError as error:
            raise BrokerUnavailable(str(error)) from error
        client = Client(self._options, login, self._throttles)
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
                or refusal_of(error)
                or f"kafka at {self._options.bootstrap_servers} does not answer "
                f"({type(error).__name__}): start it, or correct kafka.bootstrap_servers and "
                "kafka.security_protocol"
            ) from error
        return client

    def _start_ended(self, task: asyncio.Task[Client]) -> None:
        self._starting = None
        if not task.cancelled() and task.exception() is not None:
            self._observer.log("broker_unavailable", error=str(task.exception()))

    def _retire(self, client: Client, reason: str) -> None:
        """Give no more batches to *client*. What it has under way settles first."""
        if client is self._client:
            self._client = None
        elif client in self._quarantines:
            self._quarantines.remove(client)
        else:
            return
        self._observer.log("producer_rebuilt", reason=reason)
        task = asyncio.create_task(self._close_when_idle(client))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    @staticmethod
    async def _close_when_idle(client: Client) -> None:
        await client.idle.wait()
        await client.close(2.0)

    # Health

    async def probe(self) -> bool:
        """See MessageBroker."""
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
            ask = client.producer.client.force_metadata_update
            async with asyncio.timeout(self._options.request_timeout_seconds):
                # Twice: a connection that is left because of a throttle takes a request along.
                answered = await ask() or await ask()
        except (BrokerUnavailable, TimeoutError):
            answered = False
        if not answered:
            # Perhaps every broker they know was replaced: start from the bootstrap servers again.
            for client in [*filter(None, [self._client]), *self._quarantines]:
                self._retire(client, "no_metadata")
            self._sick.clear()
        return bool(answered)

    async def close(self, *, timeout_seconds: float) -> None:
        """See MessageBroker."""
        under_way = (self._starting, self._renewing, self._probing, *self._retiring)
        tasks = [task for task in under_way if task]
        for task in tasks:
            task.cancel()
        clients = [*filter(None, [self._client]), *self._quarantines]
        self._client, self._quarantines = None, []
        await asyncio.gather(*(client.close(timeout_seconds) for client in clients))
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_seconds)
