"""
One aiokafka producer, made so that a partition in trouble holds up no other.

aiokafka has one produce request under way for each broker, with a batch of each partition, and
sleeps its retry backoff while the broker counts as busy: one topic that answers NOT_ENOUGH_REPLICAS
takes a healthy one from 0.4 to 101 ms. Here

* a batch that is to be repeated waits by itself, and the next request goes at once;
* a request without an answer for `SLOW_SECONDS` keeps its connection, and the next one takes another: a
  broker answers one after the other on each. The partitions of a slow request go alone, each on a
  connection of its own, until they are answered in time;
* an answer that refuses a batch for now, and says that nothing was stored, is repeated for
  `REPEAT_SECONDS` only: it is known long before the deadline, by its name;
* a batch that may be stored is repeated until the deadline: the broker drops the second copy only from
  the producer that sent the first;
* a batch whose deadline has passed is taken back, so that it is not stored long after its repetition;
* a broker that throttles is sent nothing: batches for it that were never sent are taken back, and `Throttled`.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections import defaultdict
from collections.abc import Coroutine, Mapping, Sequence
from itertools import count
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.client import ConnectionGroup
from aiokafka.errors import KafkaError, LeaderNotAvailableError
from aiokafka.producer.message_accumulator import MessageBatch
from aiokafka.producer.sender import SendProduceReqHandler
from aiokafka.structs import TopicPartition

from outbox_relay.brokers.kafka_errors import PartitionGone, is_stored_nowhere
from outbox_relay.brokers.kafka_throttle import FIRST_VERSION, Throttled, Throttles
from outbox_relay.brokers.options import KafkaOptions
from outbox_relay.brokers.record_batch import RecordBatch

MOST_BATCH_BYTES = 64 * 1024 * 1024
METADATA_AGE_MS = 60_000
REPEAT_SECONDS = 1.0
SLOW_SECONDS = 0.25
MOST_CONNECTIONS = 8
"""To each broker, and only while partitions are slow."""


class GivenUp(KafkaError):  # type: ignore[misc]
    """Nobody waits for the batch any more."""


class _Produce(SendProduceReqHandler):  # type: ignore[misc]
    """A produce request on a connection of its own choice; what must be repeated is in `again`."""

    def __init__(
        self, client: Client, batches: Mapping[TopicPartition, MessageBatch], group: object
    ) -> None:
        super().__init__(client.sender, batches)
        self._owner = client
        self._group = group
        self.again: list[MessageBatch] = self._to_reenqueue

    async def do(self, node_id: int) -> None:
        try:
            request = self.create_request()
            response = await self._client.send(node_id, request, group=self._group)
            if response.throttle_time_ms > 0 and response.API_VERSION >= FIRST_VERSION:
                self._owner.throttled(node_id, response.throttle_time_ms, self._group)
            self.handle_response(response)
        except KafkaError as error:
            if error.invalid_metadata:
                self._client.force_metadata_update()
            for batch in self._batches.values():
                if self._can_retry(error, batch):
                    self.again.append(batch)
                else:
                    batch.failure(exception=error)
        except Exception as error:  # noqa: BLE001 - it would end the task that sends everything
            for batch in self._batches.values():
                batch.failure(exception=error)

    def _can_retry(self, error: KafkaError, batch: MessageBatch) -> bool:
        repeats = super()._can_retry(error, batch) and not batch.future.done()
        return repeats and self._owner.may_repeat(error, batch)


class _Trouble:
    """What was answered to the batch of a partition so far."""

    def __init__(self, error: KafkaError, now: float) -> None:
        self.error = error
        self.since = now
        self.may_be_stored = False


class Client:
    """A producer, how many batches it has under way, and which partitions it cannot serve any more."""

    def __init__(
        self, options: KafkaOptions, login: Mapping[str, Any], throttles: Throttles
    ) -> None:
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
        self.sender = self.producer._sender
        self.sender._send_produce_req = self._send
        self._queues = self.producer._message_accumulator
        self._throttles = throttles
        self._long_throttle_seconds = options.request_timeout_seconds / 2
        throttles.listeners.add(self._hold)
        self._later: set[asyncio.Task[None]] = set()
        self._slow: set[TopicPartition] = set()
        self._busy: defaultdict[int, set[int]] = defaultdict(set)
        self._places = defaultdict[int, asyncio.Semaphore](
            lambda: asyncio.Semaphore(MOST_CONNECTIONS)
        )
        self._troubles: dict[TopicPartition, _Trouble] = {}
        self.burnt: set[TopicPartition] = set()
        """Their numbers in this producer are not what the broker waits for."""
        self.under_way = 0
        self.idle = asyncio.Event()
        self.idle.set()

    @property
    def has_ended(self) -> bool:
        """Whether nothing would be sent any more."""
        task = self.sender.sender_task
        return task is not None and task.done()

    # One batch

    async def publish(self, tp: TopicPartition, batch: RecordBatch) -> None:
        """
        Wait for the ack of *batch*. Raises what the broker or aiokafka says; `Throttled` if nothing of it
        is stored, and its broker is not to be sent to now.

        Cancel it at the deadline: nothing of the batch is sent from then on.
        """
        self.under_way += 1
        self.idle.clear()
        queued: MessageBatch | None = None
        try:
            await self._find_leader(tp)
            if self._queues._exception is not None:
                raise copy.copy(self._queues._exception)
            leader = self.leader(tp)
            if leader is not None and self._throttles.left(leader):
                raise Throttled(leader)
            queued = self._queues._append_batch(batch, tp)
            await asyncio.shield(queued.future)
        except BaseException:
            if queued is not None and queued.retry_count:
                # It was given numbers.
                self.burnt.add(tp)
            raise
        finally:
            if queued is not None and not queued.future.done():
                self._take_back(queued, GivenUp())
            self.under_way -= 1
            if not self.under_way:
                self.idle.set()

    async def _find_leader(self, tp: TopicPartition) -> None:
        """
        A batch without a leader to go to stays out of the queue: aiokafka would ask for metadata again
        and again, and look at nothing else meanwhile.
        """
        metadata = self.producer.client
        await metadata._wait_on_metadata(tp.topic)
        if tp.partition not in metadata.cluster.partitions_for_topic(tp.topic):
            raise PartitionGone(f"partition {tp.partition} of topic {tp.topic} is not there")
        if self._has_no_leader(tp):
            await metadata.force_metadata_update()
            if self._has_no_leader(tp):
                raise LeaderNotAvailableError

    def _has_no_leader(self, tp: TopicPartition) -> bool:
        return self.leader(tp) in (None, -1)

    def leader(self, tp: TopicPartition) -> int | None:
        """The partition's broker; None or -1 if it has none, as far as is known."""
        found: int | None = self.producer.client.cluster.leader_for_partition(tp)
        return found

    def last_error(self, tp: TopicPartition) -> KafkaError | None:
        """What was last answered to the partition's batch, which is repeated since; then forgotten."""
        trouble = self._troubles.pop(tp, None)
        return trouble.error if trouble else None

    def may_repeat(self, error: KafkaError, batch: MessageBatch) -> bool:
        """Whether to send *batch* once more after *error*."""
        now = asyncio.get_running_loop().time()
        trouble = self._troubles.setdefault(batch.tp, _Trouble(error, now))
        trouble.error = error
        if not is_stored_nowhere(error):
            trouble.may_be_stored = True
        return trouble.may_be_stored or now - trouble.since < REPEAT_SECONDS

    # In the place of `Sender._send_produce_req`

    async def _send(self, node_id: int, batches: Mapping[TopicPartition, MessageBatch]) -> None:
        """Send *batches*. Returns when the broker may be sent to again, perhaps before its answer."""
        well = {tp: batch for tp, batch in batches.items() if tp not in self._slow}
        for tp in batches.keys() - well.keys():
            self._spawn(self._request(node_id, {tp: batches[tp]}))
        if well:
            request = self._spawn(self._request(node_id, well))
            if not self._throttles.left(node_id):
                await asyncio.wait([request], timeout=SLOW_SECONDS)
                if not request.done():
                    self._slow.update(well)
        self.sender._in_flight.remove(node_id)

    async def _request(self, node_id: int, batches: Mapping[TopicPartition, MessageBatch]) -> None:
        clock = asyncio.get_running_loop().time
        async with self._places[node_id]:
            if self._throttles.left(node_id):
                await self._wait_for(node_id, batches)
            started = clock()
            busy = self._busy[node_id]
            connection = next(number for number in count() if number not in busy)
            busy.add(connection)
            try:
                group = (
                    (ConnectionGroup.DEFAULT, connection) if connection else ConnectionGroup.DEFAULT
                )
                # What was taken back while it waited here is not sent.
                wanted = {tp: batch for tp, batch in batches.items() if not batch.future.done()}
                request = _Produce(self, wanted, group)
                if wanted:
                    await request.do(node_id)
            finally:
                busy.discard(connection)
        if clock() - started < SLOW_SECONDS:
            self._slow.difference_update(batches)
        for batch in request.again:
            self._spawn(self._repeat(batch))
        repeated = {batch.tp for batch in request.again}
        for tp in batches.keys() - repeated:
            self._troubles.pop(tp, None)
            self.sender._muted_partitions.discard(tp)
        self._wake()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._later.add(task)
        task.add_done_callback(self._later.discard)
        return task

    def _wake(self) -> None:
        """Let aiokafka look again for what is to be sent."""
        if not self._queues._waiter_future.done():
            self._queues._waiter_future.set_result(None)

    async def _repeat(self, batch: MessageBatch) -> None:
        """Queue *batch* again after the backoff. Its partition is muted until then."""
        while not batch.future.done():
            await asyncio.sleep(self.sender._retry_backoff)
            await self.producer.client._maybe_wait_metadata()
            if not self._has_no_leader(batch.tp):
                break
            trouble = self._troubles.get(batch.tp)
            if trouble is not None and not self.may_repeat(trouble.error, batch):
                # Such as a topic that was deleted.
                batch.failure(exception=trouble.error)
            self.producer.client.force_metadata_update()
        self.sender._muted_partitions.discard(batch.tp)
        self._give_back(batch)
        if not batch.future.done():
            self._queues.reenqueue(batch)
            self._wake()

    # Brokers that throttle

    def throttled(self, node_id: int, milliseconds: int, group: object) -> None:
        """The broker said so, on the connection of *group*."""
        if self._throttles.begin(node_id, milliseconds) > self._long_throttle_seconds:
            # A request for metadata would lie there too, and a broker that is well seem to be away.
            connection = self.producer.client._conns.pop((node_id, group), None)
            if connection is not None:
                connection.close()

    def _hold(self, node_id: int) -> None:
        """Take back what waits for the broker and has no numbers yet."""
        for tp, queue in list(self._queues._batches.items()):
            if self.leader(tp) == node_id:
                for batch in [batch for batch in queue if not batch.retry_count]:
                    self._take_back(batch, Throttled(node_id))

    async def _wait_for(self, node_id: int, batches: Mapping[TopicPartition, MessageBatch]) -> None:
        """Wait until the broker may be sent to. What was never sent is `Throttled` until then."""
        unsent = batches.keys() - self._troubles.keys()
        now = asyncio.get_running_loop().time()
        self._troubles.update({tp: _Trouble(Throttled(node_id), now) for tp in unsent})
        await self._throttles.over(node_id)
        for tp in unsent:
            self._troubles.pop(tp, None)

    def _give_back(self, batch: MessageBatch) -> None:
        """End *batch*, which is to be repeated, if it is stored nowhere and its broker throttles."""
        trouble = self._troubles.get(batch.tp)
        leader = self.leader(batch.tp)
        if trouble is None or trouble.may_be_stored or leader is None:
            return
        if self._throttles.left(leader):
            del self._troubles[batch.tp]
            batch.failure(Throttled(leader))

    # Taking back

    def _take_back(self, batch: MessageBatch, why: KafkaError) -> None:
        """Send *batch* no more. What is on its way to the broker cannot be stopped."""
        queue = self._queues._batches.get(batch.tp)
        if queue and batch in queue:
            queue.remove(batch)
            if not queue:
                del self._queues._batches[batch.tp]
            if batch.retry_count:
                # Where aiokafka looks for it when its future is done.
                self._queues._pending_batches.add(batch)
        if not batch._drain_waiter.done():
            batch._drain_waiter.set_result(None)
        batch.failure(why)
        batch.future.exception()

    async def close(self, timeout_seconds: float) -> None:
        """Let go within the time given: ``stop()`` alone may never return."""
        self._throttles.listeners.discard(self._hold)
        sender = self.sender.sender_task
        tasks = [*self._later, *([sender] if sender is not None else [])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_seconds / 2)
        if sender is not None and sender.done() and not sender.cancelled():
            sender.exception()
        self.producer._closed = True
        with contextlib.suppress(TimeoutError, KafkaError, OSError):
            async with asyncio.timeout(timeout_seconds / 2):
                await self.producer.client.close()


def topics_of(client: Client) -> Sequence[str]:
    """The topics that the client knows, and that are there."""
    metadata = client.producer.client
    return [t for t in metadata._topics if metadata.cluster.partitions_for_topic(t)]
