"""Findings about Kafka: the brokers, and each topic that the outbox uses."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Final

from outbox_relay.brokers.options import KafkaOptions
from outbox_relay.config import Config
from outbox_relay.doctor.catalogue import found
from outbox_relay.doctor.facts import KafkaFacts, RowsFacts, TopicFacts, TopicUse, Unreachable
from outbox_relay.doctor.findings import Command, Finding, Severity, shell, toml

LONGEST_OUTAGE_MS: Final = 7 * 86_400 * 1000
"""Events may be so old when they are published, at least."""

GOOD_REPLICAS: Final = 3
NAMED_PARTITIONS: Final = 5


def of_broker_unreachable(facts: Unreachable) -> Finding:
    """Why nothing of the broker could be looked at, whichever kind it is."""
    code = "broker-login-refused" if facts.kind in ("login", "tls") else "broker-unreachable"
    return found(code, facts.what, facts.mend)


def of_kafka(facts: KafkaFacts, config: Config, rows: RowsFacts | None) -> list[Finding]:
    """What keeps events from getting there, or from staying there."""
    if facts.unreachable is not None:
        return [of_broker_unreachable(facts.unreachable)]
    found_: list[Finding] = []
    if facts.auto_create:
        found_.append(
            found(
                "topics-made-by-themselves",
                "the brokers have auto.create.topics.enable = true",
                "Write auto.create.topics.enable=false into server.properties of each broker, and "
                "restart them one by one. The relay itself makes no topic.",
            )
        )
    uses = {use.topic: use for use in rows.topics} if rows is not None else {}
    oldest = (rows.oldest_pending_seconds or 0) if rows is not None else 0
    for topic in facts.topics:
        use = uses.get(topic.topic, TopicUse(topic=topic.topic))
        found_ += _topic(topic, use, facts, config, oldest_seconds=oldest)
    return found_


def _topic(
    topic: TopicFacts, use: TopicUse, facts: KafkaFacts, config: Config, *, oldest_seconds: float
) -> list[Finding]:
    if not topic.may_describe:
        return [_unauthorised(topic, config.kafka, "may not see")]
    if not topic.exists:
        return [_missing(topic, facts, config.kafka)]
    found_ = [*_leaders(topic)]
    if topic.may_write is False:
        found_.append(_unauthorised(topic, config.kafka, "may not write to"))
    if topic.configs is not None:
        found_ += [
            *_replicas(topic, facts, config.kafka),
            *_records(topic, topic.configs, use, config),
            *_times(topic, topic.configs, config.kafka, oldest_seconds),
        ]
    if topic.partitions == 1 and config.relay.max_active_relays > 1:
        found_.append(
            found(
                "topic-one-partition",
                f"topic {topic.topic} has one partition; relay.max_active_relays is "
                f"{config.relay.max_active_relays}",
                "Add partitions; let consumers catch up first, since keys move.",
                _topics(config.kafka, "--alter", topic.topic, "--partitions 6"),
            )
        )
    return found_


def _missing(topic: TopicFacts, facts: KafkaFacts, options: KafkaOptions) -> Finding:
    copies = max(1, min(GOOD_REPLICAS, facts.brokers))
    more = f"--partitions 6 --replication-factor {copies}"
    if copies == GOOD_REPLICAS:
        more += " --config min.insync.replicas=2"
    return found(
        "topic-missing",
        f"topic {topic.topic} does not exist",
        "Create it, with as many partitions as its consumers need; or correct the events.",
        _topics(options, "--create", topic.topic, more),
    )


def _unauthorised(topic: TopicFacts, options: KafkaOptions, what: str) -> Finding:
    user = options.sasl_username or "RELAY"
    servers = shlex.quote(options.bootstrap_servers)
    return found(
        "topic-unauthorised",
        f"the relay ({user}) {what} topic {topic.topic}",
        "Grant it Write and Describe (add --command-config for the administrator's log-in).",
        shell(
            f"kafka-acls.sh --bootstrap-server {servers} --add "
            f"--allow-principal {shlex.quote(f'User:{user}')} --operation Write --operation Describe "
            f"--topic {shlex.quote(topic.topic)}"
        ),
    )


def _leaders(topic: TopicFacts) -> Iterator[Finding]:
    if topic.leaderless:
        some = ", ".join(str(number) for number in topic.leaderless[:NAMED_PARTITIONS])
        more = " and others" if len(topic.leaderless) > NAMED_PARTITIONS else ""
        lead = "has no leader: number" if len(topic.leaderless) == 1 else "have no leader: numbers"
        yield found(
            "topic-without-leader",
            f"topic {topic.topic}: {len(topic.leaderless)} of {topic.partitions} partitions {lead} "
            f"{some}{more}",
            _start(topic),
        )


def _start(topic: TopicFacts) -> str:
    """Which brokers are to come back."""
    some = ", ".join(str(number) for number in topic.away[:NAMED_PARTITIONS])
    match len(topic.away):
        case 0:
            return "Start the broker that is away, or wait until it has caught up."
        case 1:
            return f"Start broker {some}, which holds replicas and is away."
    return f"Start brokers {some}, which hold replicas and are away."


def _replicas(topic: TopicFacts, facts: KafkaFacts, options: KafkaOptions) -> Iterator[Finding]:
    configs = topic.configs or {}
    copies = min(topic.replicas, default=0)
    needed = int(configs.get("min.insync.replicas", "1"))
    in_sync = min((n for n in topic.in_sync if n), default=0)
    if needed > 1 and in_sync < needed and not topic.leaderless:
        too_many = needed > copies
        yield found(
            "topic-not-enough-replicas",
            f"topic {topic.topic} needs {needed} replicas in sync (min.insync.replicas); it has "
            f"{in_sync} of {copies}",
            f"It can never have so many: lower the setting to {max(1, copies - 1)}, or add replicas."
            if too_many
            else _start(topic),
            _config(options, topic.topic, {"min.insync.replicas": str(max(1, copies - 1))})
            if too_many
            else (),
        )
    if copies == 1:
        alone = facts.brokers == 1
        yield found(
            "topic-one-replica",
            f"topic {topic.topic} has one replica{'; there is one broker' if alone else ''}",
            "Add brokers, and give the topic three replicas (kafka-reassign-partitions.sh) with "
            "min.insync.replicas = 2.",
            severity=Severity.NOTE if alone else None,
        )
    elif needed < 2 <= copies:
        yield found(
            "topic-min-isr",
            f"topic {topic.topic} has {copies} replicas and min.insync.replicas = {needed}",
            "Let acks=all mean two brokers at least."
            + (" With two replicas each outage stops it: better have three." if copies < 3 else ""),
            _config(options, topic.topic, {"min.insync.replicas": "2"}),
        )
    if configs.get("unclean.leader.election.enable") == "true":
        yield found(
            "topic-unclean-election",
            f"topic {topic.topic} has unclean.leader.election.enable = true",
            "Let only replicas in sync lead.",
            _config(options, topic.topic, {"unclean.leader.election.enable": "false"}),
        )


def _records(
    topic: TopicFacts, configs: Mapping[str, str], use: TopicUse, config: Config
) -> Iterator[Finding]:
    if use.unkeyed and "compact" in configs.get("cleanup.policy", ""):
        yield found(
            "topic-compacted-unkeyed",
            f"topic {topic.topic} is compacted, and {use.unkeyed:,} of its events have no key",
            "Give these events a key; or let the topic delete by age instead. Rows that are dead "
            "letters by then are requeued.",
            _config(config.kafka, topic.topic, {"cleanup.policy": "delete"}),
        )
    limit, ours = int(configs.get("max.message.bytes", "0")), config.kafka.max_request_bytes
    if 0 < limit < ours:
        yield found(
            "topic-record-limit",
            f"topic {topic.topic} has max.message.bytes = {limit}; kafka.max_request_bytes = {ours}",
            "Raise the topic's limit, or lower ours, so that such an event is refused at once.",
            (
                *_config(config.kafka, topic.topic, {"max.message.bytes": str(ours)}),
                *toml("[kafka]", f"max_request_bytes = {limit}"),
            ),
        )


def _times(
    topic: TopicFacts, configs: Mapping[str, str], options: KafkaOptions, oldest_seconds: float
) -> Iterator[Finding]:
    if configs.get("message.timestamp.type") == "LogAppendTime":
        yield found(
            "topic-append-time",
            f"topic {topic.topic} has message.timestamp.type = LogAppendTime",
            "Let records keep the time of their events.",
            _config(options, topic.topic, {"message.timestamp.type": "CreateTime"}),
        )
        return
    for name in ("message.timestamp.before.max.ms", "message.timestamp.difference.max.ms"):
        limit = int(configs.get(name, "-1"))
        if 0 <= limit < max(LONGEST_OUTAGE_MS, 1000 * oldest_seconds):
            refused = 1000 * oldest_seconds > limit
            yield found(
                "topic-old-refused",
                f"topic {topic.topic} has {name} = {limit}"
                + (f"; the oldest event is {oldest_seconds:,.0f} s old" if refused else ""),
                "Let it take records however old they are.",
                _config(options, topic.topic, {name: str(2**63 - 1)}),
                severity=None if refused else Severity.WARNING,
            )


def _topics(options: KafkaOptions, verb: str, topic: str, more: str) -> tuple[Command, ...]:
    servers = shlex.quote(options.bootstrap_servers)
    return shell(
        f"kafka-topics.sh --bootstrap-server {servers} {verb} --topic {shlex.quote(topic)} {more}"
    )


def _config(options: KafkaOptions, topic: str, settings: Mapping[str, str]) -> tuple[Command, ...]:
    servers = shlex.quote(options.bootstrap_servers)
    added = ",".join(f"{name}={value}" for name, value in settings.items())
    return shell(
        f"kafka-configs.sh --bootstrap-server {servers} --alter --entity-type topics "
        f"--entity-name {shlex.quote(topic)} --add-config {added}"
    )
