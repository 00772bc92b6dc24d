"""
Topics as an audit reads them, through aiokafka: by offsets, without a group, nothing committed.

Topics are looked up in the list of all, and only then named: to ask a broker for a topic by its name may
create it. Control records of transactions never come here; the position passes them all the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    KafkaError,
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
)
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.structs import TopicPartition

from outbox_relay.brokers.kafka_errors import detail_of
from outbox_relay.brokers.options import KafkaOptions
from outbox_relay.brokers.security import Login
from outbox_relay.errors import AuditError, CredentialsError

FETCH_BYTES: Final = 16 * 1024 * 1024
PARTITION_BYTES: Final = 1024 * 1024
"""Kafka sends one record at least, however large."""

FETCH_MILLISECONDS: Final = 500
MOST_RECORDS: Final = 5000
CLOSE_SECONDS: Final = 5.0
PATIENCE: Final = 5.0
"""How many times request_timeout_seconds an answer may take: nothing waits for it but a person."""

Part = tuple[str, int]


class KafkaAuditedTopics:
    """The audit's topics. Makes spans, batches and its error of what the caller gives."""

    def __init__(
        self,
        options: KafkaOptions,
        *,
        make_span: Callable[[int, int], Any],
        make_batch: Callable[[Part, Sequence[Any], int], Any],
        removed: Callable[[Sequence[Part]], Exception],
    ) -> None:
        self._options = options
        self._login = Login(options)
        self._make_span, self._make_batch, self._removed = make_span, make_batch, removed
        self._consumer: AIOKafkaConsumer | None = None
        self._parts: set[TopicPartition] = set()
        self._left: set[TopicPartition] = set()

    async def start(self) -> None:
        """See AuditedTopics."""
        try:
            login = self._login.arguments()
        except CredentialsError as error:
            raise AuditError(str(error)) from error
        consumer = AIOKafkaConsumer(
            **self._client(login),
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            fetch_max_bytes=FETCH_BYTES,
            max_partition_fetch_bytes=PARTITION_BYTES,
        )
        try:
            with self._errors():
                await consumer.start()
        except AuditError as error:
            await self._stop(consumer)
            refusal = await self._login.refusal(login)
            if refusal is not None:
                raise AuditError(refusal) from error
            raise
        except BaseException:
            await self._stop(consumer)
            raise
        self._consumer = consumer

    def _client(self, login: Mapping[str, Any]) -> dict[str, Any]:
        seconds = PATIENCE * self._options.request_timeout_seconds
        return {
            "bootstrap_servers": [s.strip() for s in self._options.bootstrap_servers.split(",")],
            "client_id": f"{self._options.client_id}-audit",
            "request_timeout_ms": int(seconds * 1000),
            **login,
        }

    @property
    def _started(self) -> AIOKafkaConsumer:
        assert self._consumer is not None, "start() comes first"
        return self._consumer

    async def existing(self, topics: Sequence[str]) -> frozenset[str]:
        """See AuditedTopics."""
        client = self._started._client
        with self._errors():
            listed = frozenset((await client.fetch_all_metadata()).topics())
            unlisted = [topic for topic in topics if topic not in listed]
            if unlisted:
                # Brokers leave out of the list what the user may not see: that is not "missing".
                asked = MetadataRequest(unlisted, allow_auto_topic_creation=False)
                answer = await client.send(client.get_random_node(), asked)
                for entry in answer.topics:
                    if entry[0] == TopicAuthorizationFailedError.errno:
                        raise TopicAuthorizationFailedError(entry[1])
        return listed.intersection(topics)

    async def compacted(self, topics: Sequence[str]) -> Mapping[str, bool]:
        """See AuditedTopics. Asking needs the right DescribeConfigs on the topic."""
        found: dict[str, bool] = {}
        try:
            admin = AIOKafkaAdminClient(**self._client(self._login.arguments()))
            try:
                await admin.start()
                wanted = [ConfigResource(ConfigResourceType.TOPIC, topic) for topic in topics]
                for answer in await admin.describe_configs(wanted):
                    for code, _, _, topic, entries in answer.resources:
                        policies = [entry[1] for entry in entries if entry[0] == "cleanup.policy"]
                        if code == 0 and policies:
                            found[topic] = "compact" in policies[0]
            finally:
                await self._close(admin)
        except (KafkaError, CredentialsError, TimeoutError):
            return found
        return found

    async def spans(self, topics: Sequence[str]) -> Mapping[Part, Any]:
        """See AuditedTopics."""
        consumer = self._started
        with self._errors():
            cluster = await consumer._client.fetch_all_metadata()
            parts = [
                TopicPartition(topic, partition)
                for topic in topics
                for partition in sorted(cluster.partitions_for_topic(topic) or ())
            ]
            if not parts:
                return {}
            lows = await consumer.beginning_offsets(parts)
            highs = await consumer.end_offsets(parts)
        return {(p.topic, p.partition): self._make_span(lows[p], highs[p]) for p in parts}

    async def offsets_at(self, parts: Sequence[Part], instant: int) -> Mapping[Part, int | None]:
        """See AuditedTopics."""
        if not parts:
            return {}
        milliseconds = max(0, instant // 1000)
        with self._errors():
            found = await self._started.offsets_for_times(
                {TopicPartition(*part): milliseconds for part in parts}
            )
        return {
            (tp.topic, tp.partition): at.offset if at is not None else None
            for tp, at in found.items()
        }

    def begin(self, positions: Mapping[Part, int]) -> None:
        """See AuditedTopics."""
        consumer = self._started
        self._parts = {TopicPartition(*part) for part in positions}
        self._left = set()
        if self._parts:
            consumer.assign(list(self._parts))
            for part, offset in positions.items():
                consumer.seek(TopicPartition(*part), offset)

    def leave(self, part: Part) -> None:
        """See AuditedTopics."""
        self._left.add(TopicPartition(*part))
        self._started.pause(TopicPartition(*part))

    async def fetch(self) -> Sequence[Any]:
        """See AuditedTopics."""
        consumer = self._started
        try:
            with self._errors():
                found = await consumer.getmany(
                    timeout_ms=FETCH_MILLISECONDS, max_records=MOST_RECORDS
                )
        except AuditError as error:
            if isinstance(error.__cause__, OffsetOutOfRangeError):
                parts = [(tp.topic, tp.partition) for tp in error.__cause__.args[0]]
                raise self._removed(parts) from error
            raise
        # Behind control records alone nothing comes, and the position says so.
        moved = list(found) or list(self._parts - self._left)
        return [
            self._make_batch(
                (tp.topic, tp.partition), found.get(tp, ()), await consumer.position(tp)
            )
            for tp in moved
        ]

    @contextmanager
    def _errors(self) -> Iterator[None]:
        servers = self._options.bootstrap_servers
        try:
            yield
        except TimeoutError as error:
            raise AuditError(f"kafka at {servers} does not answer in time: is it up?") from error
        except (KafkaError, OSError) as error:
            raise AuditError(
                f"kafka at {servers} does not answer, or refuses ({detail_of(error)}): see that it is "
                "up, and that the user may Describe and Read the topics"
            ) from error

    async def close(self) -> None:
        """See AuditedTopics."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await self._stop(consumer)

    async def _stop(self, consumer: AIOKafkaConsumer) -> None:
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await consumer.stop()
        except (KafkaError, OSError, TimeoutError):
            pass  # nothing was to be committed

    async def _close(self, admin: AIOKafkaAdminClient) -> None:
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await admin.close()
        except (KafkaError, OSError, TimeoutError):
            pass
