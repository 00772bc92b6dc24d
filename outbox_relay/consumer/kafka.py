"""
Kafka as a source, over aiokafka: a worker for each assigned partition, offsets committed afterwards.

Each worker fetches its own partition, handles one record after the other, and remembers the offset
behind the last one that came to an end; these offsets are committed every `commit_seconds`, before
partitions go to another consumer, and at the end. A slow handler holds up its own partition only, and
never the group's polling: heartbeats and rebalances go on while it works.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CorruptRecordException, KafkaError
from aiokafka.structs import OffsetAndMetadata

from outbox_relay.consumer.processor import log
from outbox_relay.consumer.record import Delivery
from outbox_relay.consumer.retries import Retries
from outbox_relay.consumer.source import Process
from outbox_relay.consumer.waiting import CANCEL_SECONDS, bounded, wait_until

_NEVER_MILLISECONDS: Final = 2**31 - 1
_FETCH_MILLISECONDS: Final = 1000
_COMMIT_SECONDS: Final = 5.0
_CLOSE_SECONDS: Final = 2.5
_PUBLISH_SECONDS: Final = 30.0
_MAX_REQUEST_BYTES: Final = 64 * 1024 * 1024
_RECONNECT: Final = Retries(initial_seconds=0.5, max_seconds=30.0)


class KafkaSource:
    """
    The *topics* of a Kafka cluster, shared with the other consumers of *group*.

    * dead_letter_topic: where records go that are given up; without it they are held
    * auto_offset_reset: where a new group begins: "earliest" loses nothing
    * commit_seconds: how often offsets are committed; what was handled since comes twice after a crash
    * rebalance_seconds: how long a handler may go on when its partition goes to another consumer; then
      it is cancelled. Below `rebalance_timeout_ms` (30,000 by default), or the consumer loses its place
    * client: for aiokafka's consumer and its producer of dead letters: security_protocol, ssl_context,
      sasl_mechanism, client_id, …
    * fetch: for its consumer alone: session_timeout_ms, fetch_max_bytes, …
    """

    def __init__(
        self,
        *topics: str,
        bootstrap_servers: str | list[str],
        group: str,
        dead_letter_topic: str | None = None,
        auto_offset_reset: str = "earliest",
        commit_seconds: float = 1.0,
        rebalance_seconds: float = 20.0,
        client: Mapping[str, Any] | None = None,
        fetch: Mapping[str, Any] | None = None,
    ) -> None:
        if not topics or not group:
            raise ValueError('name what to consume, and who does: KafkaSource("orders", group="…")')
        if dead_letter_topic in topics:
            raise ValueError(
                f"dead_letter_topic = {dead_letter_topic!r} is consumed: it would loop"
            )
        self.topics = topics
        self.group = group
        self.dead_letter_topic = dead_letter_topic
        self.commit_seconds = commit_seconds
        self.rebalance_seconds = rebalance_seconds
        self._client = {**(client or {}), "bootstrap_servers": bootstrap_servers}
        self._fetch = {
            "isolation_level": "read_committed",
            **(fetch or {}),
            "group_id": group,
            "auto_offset_reset": auto_offset_reset,
            "enable_auto_commit": False,
            # Handlers do not hold up the polling, so none of them can be too slow for the group.
            "max_poll_interval_ms": _NEVER_MILLISECONDS,
        }
        self._producer: AIOKafkaProducer | None = None
        self._producing = asyncio.Lock()

    @property
    def can_dead_letter(self) -> bool:
        """Whether there is a topic for them."""
        return self.dead_letter_topic is not None

    async def run(self, process: Process, stopping: asyncio.Event, stop_seconds: float) -> None:
        """Consume until *stopping* is set, with as many clients one after the other as it takes."""
        failures = 0
        try:
            while not stopping.is_set():
                session = _Session(self, process, stopping, stop_seconds)
                try:
                    await session.run()
                    failures = 0
                except (KafkaError, OSError, TimeoutError) as error:
                    failures = 0 if session.was_assigned else failures + 1
                    seconds = _RECONNECT.delay_seconds(failures, random.random())  # noqa: S311
                    log.warning(
                        "kafka_unavailable",
                        error=type(error).__name__,
                        detail=str(error),
                        again_in_seconds=round(seconds, 1),
                    )
                    await wait_until(stopping, seconds)
        finally:
            await self._drop_producer()

    async def dead_letter(self, delivery: Delivery, headers: list[tuple[str, bytes]]) -> None:
        """Publish to the dead letter topic with acks=all. Raises KafkaError or TimeoutError."""
        assert self.dead_letter_topic is not None
        async with self._producing:
            try:
                async with asyncio.timeout(_PUBLISH_SECONDS):
                    if self._producer is None:
                        self._producer = AIOKafkaProducer(
                            **self._client, acks="all", max_request_size=_MAX_REQUEST_BYTES
                        )
                        await self._producer.start()
                    await self._producer.send_and_wait(
                        self.dead_letter_topic, delivery.value, delivery.key, headers=headers
                    )
            except BaseException:
                # After an unknown outcome a client may wait for ever: the next one is a new one.
                await self._drop_producer()
                raise

    def new_client(self) -> AIOKafkaConsumer:
        """A client of the group, not started."""
        return AIOKafkaConsumer(**self._client, **self._fetch)

    async def _drop_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await bounded(producer.stop(), _CLOSE_SECONDS)


class _Session(ConsumerRebalanceListener):  # type: ignore[misc]
    """The life of one client, from its start to its end or its failure."""

    def __init__(
        self, source: KafkaSource, process: Process, stopping: asyncio.Event, stop_seconds: float
    ) -> None:
        self._source = source
        self._process = process
        self._stopping = stopping
        self._stop_seconds = stop_seconds
        self._client = source.new_client()
        self._workers: dict[TopicPartition, _Worker] = {}
        self._committing = asyncio.Lock()
        self._is_closing = False
        self.was_assigned = False
        self.failed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Consume until stopped. Raises KafkaError if the client is of no use any more."""
        stopped: asyncio.Future[Any] = asyncio.ensure_future(self._stopping.wait())
        watching = asyncio.ensure_future(self._watch())
        started = committing = asyncio.ensure_future(self._start())
        try:
            await asyncio.wait({stopped, started}, return_when=asyncio.FIRST_COMPLETED)
            if not started.done():
                return
            started.result()
            while not (stopped.done() or self.failed.done()):
                ends = {stopped, self.failed}
                await asyncio.wait(
                    ends,
                    timeout=self._source.commit_seconds,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                committing = asyncio.ensure_future(self._commit())
                await asyncio.wait({committing, *ends}, return_when=asyncio.FIRST_COMPLETED)
                if committing.done() and not committing.cancelled():
                    committing.result()
            if self.failed.done():
                self.failed.result()
        except asyncio.CancelledError:
            self._stop_seconds = 0.0
            raise
        finally:
            for task in (stopped, watching, started, committing, self.failed):
                task.cancel()
            await self._close()

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """They go to another consumer: what is in work ends, and is committed, before they do."""
        await self._end(revoked, self._source.rebalance_seconds)
        if revoked:
            log.info("partitions_revoked", partitions=len(revoked))

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Begin to consume them, from what was committed."""
        self.was_assigned = True
        if self._is_closing:
            return  # nobody would end them
        for partition in assigned:
            self._workers[partition] = _Worker(self._client, partition, self._process, self)
        log.info("partitions_assigned", partitions=len(assigned))

    def fail(self, error: BaseException) -> None:
        """A worker or the group cannot go on: a new client is needed."""
        if not self.failed.done():
            self.failed.set_exception(error)

    async def _start(self) -> None:
        await self._client.start()
        self._client.subscribe(topics=[*self._source.topics], listener=self)

    async def _watch(self) -> None:
        # What goes wrong in the group (no right to it, say) is told to whoever waits for partitions;
        # without any, no worker waits.
        try:
            while True:
                await self._client._subscription.wait_for_assignment()
        except KafkaError as error:
            self.fail(error)

    async def _end(self, partitions: Collection[TopicPartition], seconds: float) -> None:
        ending = [self._workers[which] for which in partitions if which in self._workers]
        await asyncio.gather(*(worker.end(seconds) for worker in ending))
        await self._commit()
        for which in partitions:
            self._workers.pop(which, None)

    async def _commit(self) -> None:
        async with self._committing:
            done = {
                which: worker.done_offset
                for which, worker in self._workers.items()
                if worker.done_offset != worker.committed_offset
            }
            if not done:
                return
            offsets = {which: OffsetAndMetadata(offset, "") for which, offset in done.items()}
            try:
                async with asyncio.timeout(_COMMIT_SECONDS):
                    await self._client.commit(offsets)
            except (KafkaError, TimeoutError) as error:
                # Tried again with the next ones. If the partitions have gone, it never succeeds, and
                # whoever has them now begins behind the last commit: at least once.
                log.warning("commit_failed", error=type(error).__name__)
                return
            for which, offset in done.items():
                if which in self._workers:
                    self._workers[which].committed_offset = offset

    async def _close(self) -> None:
        self._is_closing = True
        await self._end(list(self._workers), self._stop_seconds)
        await bounded(self._client.stop(), _CLOSE_SECONDS)


class _Worker:
    """Handles the records of one partition, one after the other, until it is told to end."""

    def __init__(
        self,
        client: AIOKafkaConsumer,
        partition: TopicPartition,
        process: Process,
        session: _Session,
    ) -> None:
        self._client = client
        self._partition = partition
        self._process = process
        self._session = session
        self._ending = asyncio.Event()
        self._is_handling = False
        self._most: int | None = None
        self.done_offset: int | None = None
        self.committed_offset: int | None = None
        self._task = asyncio.ensure_future(self._run())

    async def end(self, seconds: float) -> None:
        """Take no more; what is in work has *seconds* to end and is cancelled then."""
        self._ending.set()
        if not self._is_handling:
            self._task.cancel()
        await asyncio.wait({self._task}, timeout=seconds)
        if not self._task.done():
            log.warning("handler_cancelled", topic=self._partition.topic)
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=CANCEL_SECONDS)

    async def _run(self) -> None:
        try:
            while not self._ending.is_set():
                for message in await self._fetch():
                    if not await self._handle(message):
                        return
        except Exception as error:  # noqa: BLE001 - the session decides what it means
            if not self._ending.is_set():
                self._session.fail(error)

    async def _fetch(self) -> Sequence[Any]:
        """
        The next records.

        Where the client cannot read one (a header's name that is not UTF-8, a wrong checksum) those
        before it come one by one; then the partition waits in front of it, and no other one does.
        """
        try:
            found = await self._client.getmany(
                self._partition, timeout_ms=_FETCH_MILLISECONDS, max_records=self._most
            )
        except (ValueError, CorruptRecordException) as error:
            if self._most == 1:
                place = f"{self._partition.topic}[{self._partition.partition}]"
                log.warning("partition_held", place=place, error=type(error).__name__)
                with self._process.holding():
                    await wait_until(self._ending, _RECONNECT.max_seconds)
            self._most = 1
            return ()
        records: Sequence[Any] = found.get(self._partition, ())
        return records

    async def _handle(self, message: Any) -> bool:
        self._is_handling = True
        outcome = await self._process(message, self._ending)
        self._is_handling = False
        if outcome is None or asyncio.current_task().cancelling():  # type: ignore[union-attr]
            # Cancelled, and the handler went on all the same: the partition may be another's by now.
            return False
        # Behind the record, and only now: the other way round a crash would lose it.
        self.done_offset = message.offset + 1
        return not self._ending.is_set()
