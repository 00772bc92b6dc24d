"""
The choice among the brokers, and the settings of each.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import outbox_relay.brokers.amqp_options
import outbox_relay.brokers.redis_options
from outbox_relay.brokers.amqp import AmqpBroker
from outbox_relay.brokers.jsonl import JsonlBroker
from outbox_relay.brokers.kafka import KafkaBroker
from outbox_relay.brokers.options import AmqpOptions, RedisOptions
from outbox_relay.brokers.redis_pubsub import RedisPubSubBroker
from outbox_relay.brokers.redis_streams import RedisStreamsBroker
from outbox_relay.config import Config, load_config
from outbox_relay.errors import ConfigError
from outbox_relay.testing import Watcher
from outbox_relay.wiring import build_broker

DATABASE = {"database.url": "mysql+asyncmy://ob@db/shop"}
AMQP = {"broker.kind": "amqp", "amqp.url": "amqp://ob:geheim@rabbit:5672/shop"}
REDIS = {"broker.kind": "redis_streams", "redis.url": "redis://:geheim@redis:6379/0"}
JSONL = {"broker.kind": "jsonl"}


def load(*settings: dict[str, str]) -> Config:
    flags: dict[str, str] = dict(DATABASE)
    for some in settings:
        flags |= some
    return load_config(None, {}, flags)


def problems(*settings: dict[str, str]) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        load(*settings)
    return [
        line.removeprefix("flag: ").removeprefix("configuration: ")
        for line in raised.value.problems
    ]


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"kafka.bootstrap_servers": "kafka:9092"}, KafkaBroker),
        (AMQP, AmqpBroker),
        (REDIS, RedisStreamsBroker),
        ({**REDIS, "broker.kind": "redis_pubsub"}, RedisPubSubBroker),
        (JSONL, JsonlBroker),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
async def test_the_broker_that_is_chosen_is_built(
    settings: dict[str, str], kind: type[Any]
) -> None:
    """
    Kafka where nothing is said. Only what the chosen one needs is required.
    """
    broker = build_broker(load(settings), Watcher())

    assert isinstance(broker, kind)
    await broker.close(timeout_seconds=1)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "kafka.bootstrap_servers is required, such as localhost:9092"),
        (
            {"broker.kind": "amqp"},
            "amqp.url is required, such as amqp://relay@localhost/",
        ),
        (
            {"broker.kind": "redis_pubsub"},
            "redis.url is required, such as redis://localhost:6379/0",
        ),
        (
            {"broker.kind": "nats"},
            'broker.kind = "nats" must be one of kafka, amqp, redis_streams, redis_pubsub, jsonl',
        ),
        (
            {**AMQP, "amqp.url": "amqp://ob:ge@heim@rabbit/"},
            "amqp.url is not a URL: use amqp://relay@localhost/, with special characters of the "
            "password written as %40 and the like",
        ),
        (
            {**AMQP, "amqp.url": "http://geheim@rabbit/"},
            "amqp.url must begin with amqp://, amqps://",
        ),
        (
            {**AMQP, "amqp.url": "amqp:///"},
            "amqp.url names no host: use amqp://relay@localhost/",
        ),
        (
            {**REDIS, "redis.url": "redis://redis/0?retry_on_timeout=1"},
            "redis.url has parameters after ? or #: remove them, [redis] has settings",
        ),
        (
            {**AMQP, "amqp.password_file": __file__},
            "amqp.password_file and a password in amqp.url are two: keep one",
        ),
        (
            {**AMQP, "amqp.url": "amqp://rabbit/", "amqp.password_file": __file__},
            "amqp.password_file needs a user in amqp.url, such as amqp://relay@localhost/",
        ),
        (
            {**AMQP, "amqp.ssl_ca_file": __file__},
            "amqp.ssl_ca_file needs amqp.url to begin with amqps://",
        ),
        (
            {**REDIS, "redis.url": "rediss://redis/0", "redis.ssl_key_file": __file__},
            "redis.ssl_key_file needs redis.ssl_cert_file",
        ),
        (
            {**AMQP, "amqp.exchange": "{key}"},
            'amqp.exchange = "{key}" may name {topic} only',
        ),
        (
            {**AMQP, "amqp.routing_key": "{tpoic}"},
            'amqp.routing_key = "{tpoic}" may name {topic}, {event}, {key} only',
        ),
        (
            {**AMQP, "amqp.routing_key": ""},
            "amqp.routing_key is required without amqp.exchange: it names the queue",
        ),
        ({**REDIS, "redis.stream": ""}, 'redis.stream is required, such as "{topic}"'),
        (
            {**REDIS, "redis.wait_replicas": "-1"},
            "redis.wait_replicas = -1 must not be negative",
        ),
        (
            {**REDIS, "redis.request_timeout_seconds": "10"},
            "redis.request_timeout_seconds = 10.0 must be less than "
            "redis.publish_deadline_seconds = 10.0",
        ),
        (
            {**REDIS, "redis.password_file": "/nowhere", "redis.url": "redis://redis/0"},
            "redis.password_file = /nowhere: there is no such file: create it, or correct the setting",
        ),
        ({**JSONL, "jsonl.path": ""}, "jsonl.path is required: a file, or - for standard output"),
        ({**JSONL, "jsonl.path": "/"}, "jsonl.path = / is a folder: name a file"),
        (
            {**JSONL, "jsonl.path": "/nowhere/events"},
            "jsonl.path = /nowhere/events: its folder is not there: create it",
        ),
        (
            {**JSONL, "jsonl.publish_deadline_seconds": "0"},
            "jsonl.publish_deadline_seconds = 0.0 must be greater than 0",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_is_wrong_is_said(settings: dict[str, str], expected: str) -> None:
    """
    One line, by the key; nothing of a URL that may hold a password.
    """
    found = problems(settings)

    assert found == [expected]
    assert "geheim" not in str(found)


def test_a_time_that_is_none_is_said() -> None:
    """
    As for Kafka.
    """
    found = problems(AMQP, {"amqp.max_record_bytes": "0"})

    assert "amqp.max_record_bytes = 0 must be greater than 0" in found


def test_everything_that_is_wrong_is_said_at_once() -> None:
    """
    Over sections, and without a word of those of the other brokers.
    """
    found = problems(
        REDIS,
        {
            "redis.channel": "",
            "redis.min_receivers": "-1",
            "relay.lease_seconds": "9",
            "kafka.request_timeout_seconds": "99",
        },
    )

    assert found == [
        'redis.channel is required, such as "{topic}"',
        "redis.min_receivers = -1 must not be negative",
        "relay.lease_seconds = 9.0 must be greater than redis.publish_deadline_seconds = 10.0, else "
        "two relays publish the same event",
    ]


def test_the_section_of_another_broker_waits_for_its_day() -> None:
    """
    Its keys and types are looked at, its rules only where it is chosen.
    """
    elsewhere = {"amqp.exchange": "{wrong}", "amqp.ssl_ca_file": "/nowhere", "redis.stream": ""}

    assert load(JSONL, elsewhere).amqp.exchange == "{wrong}"
    assert problems(JSONL, {"amqp.publish_deadline_seconds": "soon"}) == [
        'amqp.publish_deadline_seconds = "soon" must be a number'
    ]
    assert problems(JSONL, {"amqp.exchagne": "x"}) == [
        "flag: amqp.exchagne is not a setting (did you mean amqp.exchange?)".removeprefix("flag: ")
    ]


def test_the_deadline_is_that_of_the_broker_that_is_chosen() -> None:
    """
    The lease must be longer than this one, and than no other.
    """
    loaded = load(JSONL, {"jsonl.publish_deadline_seconds": "3", "relay.lease_seconds": "5"})

    assert loaded.publish_deadline_seconds == 3.0


@pytest.mark.parametrize("key", ["amqp.url", "redis.url"])
def test_the_password_of_a_url_is_shown_nowhere(key: str) -> None:
    """
    I11. In no text form of the settings.
    """
    loaded = load(AMQP, REDIS)
    shown = {name: value for name, value, _ in loaded.settings()}

    assert ":***@" in shown[key]
    assert "geheim" not in f"{loaded!r} {loaded.amqp!r} {loaded.redis!r}"


def test_a_missing_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    By the name of the extra.
    """
    for module in (outbox_relay.brokers.amqp_options, outbox_relay.brokers.redis_options):
        monkeypatch.setattr(module, "find_spec", lambda name: None)

    assert AmqpOptions(url="amqp://a/").problems() == [
        "broker.kind = amqp needs the package aio-pika: pip install 'outbox-relay[amqp]'"
    ]
    assert RedisOptions(url="redis://a/").problems() == [
        "broker.kind = redis_streams or redis_pubsub needs the package redis: "
        "pip install 'outbox-relay[redis]'"
    ]


def test_the_environment_chooses_too(tmp_path: Path) -> None:
    """
    One file with all sections, and a variable for where it runs.
    """
    path = tmp_path / "config.toml"
    path.write_text(
        '[database]\nurl = "mysql+asyncmy://ob@db/shop"\n'
        '[kafka]\nbootstrap_servers = "kafka:9092"\n[jsonl]\npath = "-"\n'
    )

    loaded = load_config(path, {"OUTBOX_RELAY_BROKER__KIND": "jsonl"})

    assert loaded.broker.section == "jsonl"
