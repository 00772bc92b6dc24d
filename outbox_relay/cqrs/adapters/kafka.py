"""`KafkaProducer`: sends one message at a time, and says when the brokers have it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Literal

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError, KafkaError

from outbox_relay.brokers.options import KafkaOptions
from outbox_relay.brokers.security import Login
from outbox_relay.errors import BrokerUnavailable, ConfigError, PublishError

SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
SaslMechanism = Literal["none", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]


class KafkaProducer:
    """
    A producer of aiokafka with ``acks=all``, idempotent. Connects with the first message, and anew
    after a failure.

    * topics: where messages go that name no topic; each of them to all of these
    """

    def __init__(self, options: KafkaOptions, topics: Sequence[str] = ()) -> None:
        problems = options.problems()
        if problems:
            raise ConfigError(problems)
        self.options = options
        self.topics = tuple(topics)
        self._login = Login(options)
        self._producer: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()

    async def produce(self, topic: str, value: bytes, key: bytes | None = None) -> None:
        """
        Send *value* to *topic*, and return when all replicas in sync have it.

        Raises BrokerUnavailable if no broker answers in time, PublishError if they refuse it. After
        either nobody can say whether the message is there.
        """
        try:
            async with asyncio.timeout(self.options.publish_deadline_seconds):
                producer = await self._started()
                await producer.send_and_wait(topic, value, key=key)
        except (TimeoutError, KafkaConnectionError) as error:
            await self.close()
            raise BrokerUnavailable(
                f"kafka at {self.options.bootstrap_servers} did not confirm a message to {topic} "
                f"within {self.options.publish_deadline_seconds:g} s"
            ) from error
        except KafkaError as error:
            await self.close()
            raise PublishError(f"kafka refuses a message to {topic}: {error}") from error

    async def close(self) -> None:
        """Let go of the connections. The next message connects again."""
        producer, self._producer = self._producer, None
        if producer is None:
            return
        # aiokafka waits for what is under way, which may be for ever.
        stopping = asyncio.ensure_future(producer.stop())
        await asyncio.wait([stopping], timeout=self.options.request_timeout_seconds)
        stopping.cancel()

    async def _started(self) -> AIOKafkaProducer:
        async with self._starting:
            if self._producer is None:
                producer = AIOKafkaProducer(**self._arguments())
                try:
                    await producer.start()
                except BaseException:
                    await asyncio.shield(asyncio.ensure_future(producer.stop()))
                    raise
                self._producer = producer
            return self._producer

    def _arguments(self) -> dict[str, Any]:
        options = self.options
        return {
            "bootstrap_servers": [one.strip() for one in options.bootstrap_servers.split(",")],
            "client_id": options.client_id,
            "acks": "all",
            "enable_idempotence": options.idempotent,
            "max_request_size": options.max_request_bytes,
            "request_timeout_ms": int(options.request_timeout_seconds * 1000),
            **self._login.arguments(),
        }


def kafka_producer_factory(
    dsn: str,
    topics: Sequence[str] = (),
    *,
    security_protocol: SecurityProtocol = "PLAINTEXT",
    sasl_mechanism: SaslMechanism = "none",
    user: str = "",
    password: str = "",
    ssl_ca_file: str = "",
) -> KafkaProducer:
    """
    A producer for the brokers *dsn*: host:port, separated by commas.

    * topics: where messages go that name no topic
    * the others: see `[kafka]`; ``KafkaProducer(KafkaOptions(...))`` takes all of its settings

    Raises ConfigError.
    """
    options = KafkaOptions(
        bootstrap_servers=dsn,
        security_protocol=security_protocol,
        sasl_mechanism=sasl_mechanism,
        sasl_username=user,
        sasl_password=password,
        ssl_ca_file=ssl_ca_file,
    )
    return KafkaProducer(options, topics)
