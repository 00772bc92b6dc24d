"""
Faults of brokers, settings, files and the wake, each with the code that it has to be said by.
"""

from __future__ import annotations

from outbox_relay.config import Config
from outbox_relay.doctor.examine import Seen
from outbox_relay.doctor.facts import (
    AmqpFacts,
    ConfigurationFacts,
    FileFacts,
    JsonlFacts,
    KafkaFacts,
    RedisFacts,
    TopicFacts,
    TopicUse,
    Unreachable,
    WakeFacts,
)
from tests.unit.doctor_facts import (
    config,
    database,
    kafka,
    rows,
    seen,
    topic,
)

OF_BROKERS: list[tuple[str, Config, Seen]] = [
    (
        "broker-unreachable",
        config(),
        seen(broker=KafkaFacts(unreachable=Unreachable(kind="away", what="w", mend="m"))),
    ),
    (
        "broker-login-refused",
        config(),
        seen(broker=RedisFacts(unreachable=Unreachable(kind="login", what="w", mend="m"))),
    ),
    ("topics-made-by-themselves", config(), seen(broker=kafka(auto_create=True))),
    ("topic-missing", config(), seen(broker=kafka(TopicFacts(topic="orders", exists=False)))),
    ("topic-unauthorised", config(), seen(broker=kafka(topic(may_write=False)))),
    ("topic-unauthorised", config(), seen(broker=kafka(topic(may_describe=False)))),
    ("topic-without-leader", config(), seen(broker=kafka(topic(leaderless=(1,))))),
    ("topic-not-enough-replicas", config(), seen(broker=kafka(topic(in_sync=(3, 1))))),
    (
        "topic-not-enough-replicas",
        config(),
        seen(broker=kafka(topic({"min.insync.replicas": "4"}))),
    ),
    (
        "topic-one-replica",
        config(),
        seen(broker=kafka(topic({"min.insync.replicas": "1"}, replicas=(1,), in_sync=(1,)))),
    ),
    ("topic-min-isr", config(), seen(broker=kafka(topic({"min.insync.replicas": "1"})))),
    (
        "topic-unclean-election",
        config(),
        seen(broker=kafka(topic({"unclean.leader.election.enable": "true"}))),
    ),
    (
        "topic-compacted-unkeyed",
        config(),
        seen(
            broker=kafka(topic({"cleanup.policy": "compact,delete"})),
            database=database(rows=rows(topics=(TopicUse(topic="orders", unkeyed=1),))),
        ),
    ),
    ("topic-record-limit", config(), seen(broker=kafka(topic({"max.message.bytes": "1000"})))),
    (
        "topic-old-refused",
        config(),
        seen(broker=kafka(topic({"message.timestamp.before.max.ms": "3600000"}))),
    ),
    (
        "topic-append-time",
        config(),
        seen(broker=kafka(topic({"message.timestamp.type": "LogAppendTime"}))),
    ),
    (
        "topic-one-partition",
        config(relay__max_active_relays="2"),
        seen(broker=kafka(topic(replicas=(3,), in_sync=(3,)))),
    ),
    ("exchange-missing", config(), seen(broker=AmqpFacts(exchanges={"x": False, "y": True}))),
    ("queue-missing", config(), seen(broker=AmqpFacts(queues={"q": False}))),
    ("broker-only-reads", config(), seen(broker=RedisFacts(role="slave"))),
    (
        "stream-not-durable",
        config(broker__kind="redis_streams", redis__url="redis://localhost"),
        seen(broker=RedisFacts(role="master", has_log=False)),
    ),
    (
        "stream-evicted",
        config(broker__kind="redis_streams", redis__url="redis://localhost"),
        seen(broker=RedisFacts(has_log=True, policy="allkeys-lru", max_memory=1)),
    ),
    (
        "replicas-too-few",
        config(
            broker__kind="redis_streams", redis__url="redis://localhost", redis__wait_replicas="1"
        ),
        seen(broker=RedisFacts(has_log=False, replicas=0)),
    ),
    (
        "file-not-writable",
        config(broker__kind="jsonl"),
        seen(broker=JsonlFacts(problem="full")),
    ),
    (
        "file-not-synced",
        config(broker__kind="jsonl", jsonl__path="/tmp/e.jsonl", jsonl__fsync="false"),
        seen(broker=JsonlFacts()),
    ),
]


OF_SETTINGS: list[tuple[str, Config, Seen]] = [
    ("unsafe-publishing", config(kafka__idempotent="false"), seen()),
    ("no-order", config("mysql", database__layout="python-cqrs"), seen(database=None)),
    (
        "password-in-clear",
        config(broker__kind="amqp", amqp__url="amqp://a:b@rabbit/"),
        seen(broker=AmqpFacts()),
    ),
    (
        "password-in-clear",
        config(
            kafka__security_protocol="SASL_PLAINTEXT",
            kafka__sasl_mechanism="PLAIN",
            kafka__sasl_username="u",
            kafka__sasl_password="p",
        ),
        seen(),
    ),
    (
        "secret-unreadable",
        config(),
        seen(
            files=ConfigurationFacts(
                files=(FileFacts(setting="s", path="/p", is_secret=True, mode=None, problem="p"),)
            )
        ),
    ),
    (
        "secret-open",
        config(),
        seen(
            files=ConfigurationFacts(
                files=(FileFacts(setting="s", path="/p", is_secret=True, mode=0o644),)
            )
        ),
    ),
    (
        "secret-open",
        config(),
        seen(
            files=ConfigurationFacts(
                config_path="/c", config_mode=0o644, secrets_in_config=("the password of x",)
            )
        ),
    ),
    (
        "certificate-expiring",
        config(),
        seen(
            files=ConfigurationFacts(
                files=(
                    FileFacts(
                        setting="s", path="/p", is_secret=False, mode=0o644, not_after_days=-1
                    ),
                )
            )
        ),
    ),
    *(
        (code, config(), seen(wake=(WakeFacts(address="unix:/s", state=state),)))
        for state, code in (
            ("missing", "wake-socket-missing"),
            ("refused", "wake-socket-refused"),
            ("nobody", "wake-nobody-listens"),
        )
    ),
    (
        "wake-hint-lost",
        config(),
        seen(wake=(WakeFacts(address="unix:/s", state="taken", counted=False),)),
    ),
]
