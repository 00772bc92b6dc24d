"""
Kafka, looked at with requests for metadata and configurations alone: nothing is written, no topic made.

aiokafka's request for metadata does not ask what we may do; the version of the protocol that does is
spelt out here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any, Final

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import IncompatibleBrokerVersion, KafkaError
from aiokafka.protocol.admin import DescribeConfigsRequest
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Boolean, Int16, Int32, Schema, String

from outbox_relay.brokers.kafka_errors import refusal_of
from outbox_relay.brokers.options import KafkaOptions
from outbox_relay.brokers.security import LOGIN_ERRORS, Login
from outbox_relay.brokers.topics import is_topic_name
from outbox_relay.doctor.facts import KafkaFacts, TopicFacts, Unreachable
from outbox_relay.doctor.findings import Area, Skipped
from outbox_relay.doctor.look.reach import reach
from outbox_relay.errors import CredentialsError

CONFIGS: Final = (
    "cleanup.policy",
    "max.message.bytes",
    "message.timestamp.before.max.ms",
    "message.timestamp.difference.max.ms",
    "message.timestamp.type",
    "min.insync.replicas",
    "unclean.leader.election.enable",
)
_OF_TOPIC, _OF_BROKER = 2, 4
_UNAUTHORISED: Final = 29
_UNKNOWN_OPERATIONS: Final = -(2**31)
_WRITE: Final = 4
CLOSE_SECONDS: Final = 1.0


class _MetadataResponse(Response):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 8
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            Array(
                ("node_id", Int32),
                ("host", String("utf-8")),
                ("port", Int32),
                ("rack", String("utf-8")),
            ),
        ),
        ("cluster_id", String("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            Array(
                ("error_code", Int16),
                ("topic", String("utf-8")),
                ("is_internal", Boolean),
                (
                    "partitions",
                    Array(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", Array(Int32)),
                        ("isr", Array(Int32)),
                        ("offline_replicas", Array(Int32)),
                    ),
                ),
                ("operations", Int32),
            ),
        ),
        ("cluster_operations", Int32),
    )


class _MetadataStruct(RequestStruct):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 8
    RESPONSE_TYPE = _MetadataResponse
    SCHEMA = Schema(
        ("topics", Array(String("utf-8"))),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_operations", Boolean),
        ("include_topic_operations", Boolean),
    )


class _Metadata(Request[_MetadataStruct]):  # type: ignore[misc]
    """Never lets the broker make a topic."""

    API_KEY = 3

    def __init__(self, topics: list[str]) -> None:
        self._topics = topics

    def build(self, request_struct_class: type[_MetadataStruct]) -> _MetadataStruct:
        return request_struct_class(self._topics, False, False, True)


KAFKA_PORT: Final = 9092


class KafkaLook:
    """One client. Call `close` in the end."""

    def __init__(self, options: KafkaOptions) -> None:
        self._options = options
        self._client: Any = None
        self.skipped: list[Skipped] = []

    async def connect(self) -> Unreachable | None:
        """Why no broker lets us in, if so. Raises ConfigError as the relay would."""
        login = Login(self._options)
        try:
            arguments = login.arguments()
        except CredentialsError as error:
            return Unreachable(kind="login", what=str(error), mend="Correct what it names.")
        client = AIOKafkaClient(
            bootstrap_servers=self._options.bootstrap_servers,
            client_id=f"{self._options.client_id}-doctor",
            request_timeout_ms=int(self._options.request_timeout_seconds * 1000),
            **arguments,
        )
        try:
            async with asyncio.timeout(self._options.request_timeout_seconds):
                await client.bootstrap()
        except LOGIN_ERRORS as error:
            await _let_go(client)
            refused = await login.refusal(arguments) or refusal_of(error)
            if refused is not None:
                return Unreachable(kind="login", what=refused, mend="Correct what it names.")
            servers = self._options.bootstrap_servers
            return Unreachable(
                kind="away",
                what=f"kafka does not answer ({type(error).__name__}). "
                f"{await reach(servers, port=KAFKA_PORT)}",
                mend="Start it, or correct kafka.bootstrap_servers and kafka.security_protocol. If it ends "
                "again, its own log says why: a full disk ends a broker.",
            )
        self._client = client
        return None

    async def look(self, topics: Collection[str]) -> KafkaFacts:
        """The brokers, and *topics*."""
        named = sorted(topic for topic in topics if is_topic_name(topic))
        answer = await self._ask(_Metadata(named))
        configs = await self._configs([item[1] for item in answer.topics if item[0] == 0])
        found = [_topic(item, configs.get(item[1])) for item in answer.topics]
        found += [TopicFacts(topic=t, exists=False) for t in topics if not is_topic_name(t)]
        return KafkaFacts(
            brokers=len(answer.brokers),
            auto_create=await self._auto_create(answer.brokers[0][0]),
            topics=tuple(found),
        )

    async def _ask(self, request: Any, node: int | None = None) -> Any:
        async with asyncio.timeout(self._options.request_timeout_seconds):
            node = self._client.get_random_node() if node is None else node
            return await self._client.send(node, request)

    async def _configs(self, topics: list[str]) -> dict[str, Mapping[str, str]]:
        if not topics:
            return {}
        asked = [(_OF_TOPIC, topic, list(CONFIGS)) for topic in topics]
        try:
            answer = await self._ask(DescribeConfigsRequest(asked))
        except (KafkaError, OSError, TimeoutError, NotImplementedError) as error:
            self._skip("the settings of topics", _lacking(error))
            return {}
        refused = [item[3] for item in answer.resources if item[0] == _UNAUTHORISED]
        if refused:
            self._skip(f"the settings of {', '.join(refused)}", "DescribeConfigs on the topics")
        return {
            item[3]: {entry[0]: entry[1] for entry in item[4] if entry[1] is not None}
            for item in answer.resources
            if item[0] == 0
        }

    async def _auto_create(self, node: int) -> bool | None:
        asked = [(_OF_BROKER, str(node), ["auto.create.topics.enable"])]
        try:
            answer = await self._ask(DescribeConfigsRequest(asked), node)
        except (KafkaError, OSError, TimeoutError, NotImplementedError) as error:
            self._skip("the brokers' settings", _lacking(error))
            return None
        ((code, _, _, _, entries),) = answer.resources
        if code:
            self._skip("the brokers' settings", "DescribeConfigs on the cluster")
            return None
        return any(entry[1] == "true" for entry in entries)

    def _skip(self, what: str, needs: str) -> None:
        self.skipped.append(Skipped(area=Area.BROKER, what=what, needs=needs))

    async def close(self) -> None:
        """Let go within a moment."""
        if self._client is not None:
            await _let_go(self._client)


async def _let_go(client: Any) -> None:
    with suppress(KafkaError, OSError, TimeoutError):
        async with asyncio.timeout(CLOSE_SECONDS):
            await client.close()


def _lacking(error: Exception) -> str:
    """
    What a look at settings needs that ended with *error*.

    >>> _lacking(IncompatibleBrokerVersion()), _lacking(TimeoutError())
    ('brokers that know the request DescribeConfigs', 'an answer of the brokers (TimeoutError)')
    """
    if isinstance(error, IncompatibleBrokerVersion):
        return "brokers that know the request DescribeConfigs"
    return f"an answer of the brokers ({type(error).__name__})"


def _topic(item: Any, configs: Mapping[str, str] | None) -> TopicFacts:
    error, topic, _, partitions, operations = item
    if error == _UNAUTHORISED:
        return TopicFacts(topic=topic, exists=True, may_describe=False)
    return TopicFacts(
        topic=topic,
        exists=bool(partitions),
        may_write=None if operations == _UNKNOWN_OPERATIONS else bool(operations >> _WRITE & 1),
        replicas=tuple(len(part[4]) for part in partitions),
        in_sync=tuple(len(part[5]) for part in partitions),
        leaderless=tuple(sorted(part[1] for part in partitions if part[2] < 0)),
        away=tuple(sorted({broker for part in partitions for broker in part[6]})),
        configs=configs,
    )
