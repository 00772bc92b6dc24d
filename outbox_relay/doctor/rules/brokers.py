"""Findings about the other brokers: RabbitMQ, Redis, a file of JSON lines."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from outbox_relay.config import Config
from outbox_relay.doctor.catalogue import found
from outbox_relay.doctor.facts import (
    AmqpFacts,
    BrokerFacts,
    JsonlFacts,
    KafkaFacts,
    RedisFacts,
    RowsFacts,
)
from outbox_relay.doctor.findings import Finding, shell, toml
from outbox_relay.doctor.rules.kafka import of_broker_unreachable, of_kafka


def of_broker(facts: BrokerFacts, config: Config, rows: RowsFacts | None) -> list[Finding]:
    """What keeps events from getting to the broker, or from staying there."""
    match facts:
        case KafkaFacts():
            return of_kafka(facts, config, rows)
        case AmqpFacts():
            return of_amqp(facts)
        case RedisFacts():
            return of_redis(facts, config)
        case JsonlFacts():
            return of_jsonl(facts, config)


def of_amqp(facts: AmqpFacts) -> list[Finding]:
    """Exchanges and queues that events go to."""
    if facts.unreachable is not None:
        return [of_broker_unreachable(facts.unreachable)]
    return [
        *(
            found(
                "exchange-missing",
                f"there is no exchange {name}",
                "Declare it and bind queues to it, or correct amqp.exchange.",
                shell(
                    f"rabbitmqadmin declare exchange name={shlex.quote(name)} type=topic durable=true"
                ),
            )
            for name, is_there in facts.exchanges.items()
            if not is_there
        ),
        *(
            found(
                "queue-missing",
                f"there is no queue {name}, which events of that topic go to",
                "Declare it, or correct amqp.routing_key.",
                shell(f"rabbitmqadmin declare queue name={shlex.quote(name)} durable=true"),
            )
            for name, is_there in facts.queues.items()
            if not is_there
        ),
    ]


def of_redis(facts: RedisFacts, config: Config) -> list[Finding]:
    """Whether a stream keeps what it has acked."""
    if facts.unreachable is not None:
        return [of_broker_unreachable(facts.unreachable)]
    return [
        *_role(facts),
        *(_streams(facts, config) if config.broker.kind == "redis_streams" else ()),
    ]


def _role(facts: RedisFacts) -> Iterator[Finding]:
    if facts.role is not None and facts.role != "master":
        yield found(
            "broker-only-reads",
            f"Redis says that its role is {facts.role}",
            "Name the master in redis.url.",
        )


def _streams(facts: RedisFacts, config: Config) -> Iterator[Finding]:
    wanted = config.redis.wait_replicas
    if facts.replicas is not None and facts.replicas < wanted:
        yield found(
            "replicas-too-few",
            f"redis.wait_replicas = {wanted}, and {facts.replicas} replicas are connected",
            "Connect more replicas, or wait for fewer.",
            toml("[redis]", f"wait_replicas = {facts.replicas}"),
        )
    if facts.has_log is False and wanted == 0:
        yield found(
            "stream-not-durable",
            "Redis writes no log (appendonly no), and redis.wait_replicas is 0",
            "Let it write one (and into redis.conf), or wait for replicas.",
            shell("redis-cli CONFIG SET appendonly yes"),
        )
    if facts.max_memory and facts.policy is not None and facts.policy.startswith("allkeys"):
        yield found(
            "stream-evicted",
            f"maxmemory-policy = {facts.policy} with maxmemory = {facts.max_memory}",
            "Let writes fail instead (and write it into redis.conf): the relay then waits.",
            shell("redis-cli CONFIG SET maxmemory-policy noeviction"),
        )


def of_jsonl(facts: JsonlFacts, config: Config) -> list[Finding]:
    """Whether the file can be written."""
    if facts.problem is None:
        return []
    return [
        found(
            "file-not-writable",
            f"jsonl.path = {config.jsonl.path}: {facts.problem}",
            "Let the relay's user write there, make room, or name another file.",
        )
    ]
