"""
The relay, from the installed wheel, on each broker but Kafka: SQLite in front, a server that is killed.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from outbox_relay import NotificationEvent, Outbox
from tests.acceptance.relays import RelayProcess, wait_until_relayed
from tests.services.database import Database
from tests.services.rabbitmq import RabbitMQ
from tests.services.redis import Redis
from tests.services.wheel import InstalledWheel

KEYS = 20
EVENTS = 600
"""In three parts: before the server is killed, while it is away, after its restart."""


class VersionRaised(NotificationEvent, name="aggregate.version_raised", key="aggregate"):
    """An aggregate has a new version."""

    aggregate: str
    version: int


def write(database: Database, topic: str, first: int, last: int) -> None:
    """Events first to last - 1, in transactions of ten; every fifth of them rolls back."""
    engine = sa.create_engine(database.sync_url)
    outbox = Outbox(source="/acceptance")
    for start in range(first, last, 10):
        for keeps in (False, True) if start % 50 == 0 else (True,):
            with engine.connect() as connection:
                events = [
                    VersionRaised(aggregate=f"a{n % KEYS}", version=n // KEYS)
                    for n in range(start, start + 10)
                ]
                outbox.add(connection, *events, topic=topic)
                if keeps:
                    connection.commit()
    engine.dispose()


@dataclass
class Stage:
    """A relay in front of one broker."""

    database: Database
    relay: RelayProcess
    topic: str
    config: Path


@pytest.fixture
def make_stage(
    installed_wheel: InstalledWheel,
    sqlite_database: Database,
    topic_name: str,
    tmp_path: Path,
) -> Iterator[Callable[[dict[str, dict[str, Any]]], Stage]]:
    """Makes the stage for a broker's settings, with the tables built."""
    made: list[RelayProcess] = []

    def make(sections: dict[str, dict[str, Any]]) -> Stage:
        common = {
            "database": {"url": sqlite_database.async_url},
            "relay": {"backoff_max_seconds": 1.0, "lease_seconds": 6.0},
            "http": {"port": 0},
        }
        lines = []
        for section, options in {**common, **sections}.items():
            lines.append(f"[{section}]")
            lines += [f"{key} = {json.dumps(value)}" for key, value in options.items()]
        config = tmp_path / "config.toml"
        config.write_text("\n".join(lines) + "\n")
        migrate = [installed_wheel.command, "migrate", "--config", str(config)]
        subprocess.run(migrate, check=True, cwd=tmp_path)
        relay = RelayProcess(str(installed_wheel.command), config)
        made.append(relay)
        return Stage(sqlite_database, relay, topic_name, config)

    yield make
    for relay in made:
        relay.end()


DEADLINE = {"publish_deadline_seconds": 2.0}
SHORT = {**DEADLINE, "request_timeout_seconds": 1.0}


def check(found: list[tuple[str, int, int]]) -> int:
    """
    Each committed event is there, first occurrences in order per key. How many came twice.

    *found* is (aggregate, version, row id), in the order of arrival.
    """
    first = list(dict.fromkeys(found))
    versions: dict[str, list[int]] = {}
    for aggregate, version, _ in first:
        versions.setdefault(aggregate, []).append(version)

    assert versions == {f"a{k}": list(range(EVENTS // KEYS)) for k in range(KEYS)}
    return len(found) - len(first)


def run_with_a_kill(stage: Stage, service: RabbitMQ | Redis) -> None:
    """Write in three parts; the server is killed after the first and back before the last."""
    part = EVENTS // 3
    stage.relay.start()
    write(stage.database, stage.topic, 0, part)
    service.write_declarations()
    service.kill()
    write(stage.database, stage.topic, part, 2 * part)
    service.start()
    write(stage.database, stage.topic, 2 * part, EVENTS)
    wait_until_relayed(stage.database)
    stage.relay.stop()


def parsed(body: bytes, seq: Any) -> tuple[str, int, int]:
    content = json.loads(body)
    return content["aggregate"], content["version"], int(seq)


def test_rabbitmq_killed_in_the_middle_loses_and_inverts_nothing(
    make_stage: Callable[..., Stage], rabbitmq: RabbitMQ, topic_name: str
) -> None:
    """
    I1, I2, I4, I8. Through a topic exchange into one durable queue.
    """
    rabbitmq.declare_exchange(f"{topic_name}-exchange")
    rabbitmq.declare_queue(topic_name, exchange=f"{topic_name}-exchange", routing_key="#")
    stage = make_stage(
        {
            "broker": {"kind": "amqp"},
            "amqp": {"url": rabbitmq.url, "exchange": f"{topic_name}-exchange", **SHORT},
        }
    )

    run_with_a_kill(stage, rabbitmq)

    messages = rabbitmq.messages(topic_name)
    twice = check([parsed(m.body, m.headers["outbox-seq"]) for m in messages])
    assert twice <= EVENTS
    assert {(m.routing_key, m.delivery_mode) for m in messages} == {(topic_name, 2)}


def test_redis_streams_killed_in_the_middle_lose_and_invert_nothing(
    make_stage: Callable[..., Stage], redis: Redis, topic_name: str
) -> None:
    """
    I1, I2, I4, I8.
    """
    stage = make_stage({"broker": {"kind": "redis_streams"}, "redis": {"url": redis.url, **SHORT}})

    run_with_a_kill(stage, redis)

    entries = [entry.fields for entry in redis.entries(topic_name)]
    check([parsed(f[b"outbox-value"], f[b"outbox-seq"]) for f in entries])


def test_redis_pubsub_publishes_while_somebody_listens(
    make_stage: Callable[..., Stage], redis: Redis, topic_name: str
) -> None:
    """
    I4. With min_receivers nothing is published before a subscriber is there, and all of it then.
    """
    stage = make_stage(
        {
            "broker": {"kind": "redis_pubsub"},
            "redis": {"url": redis.url, "min_receivers": 1, **SHORT},
        }
    )
    write(stage.database, stage.topic, 0, EVENTS)
    stage.relay.start()
    deadline = time.monotonic() + 60
    while not stage.relay.logged("topic_paused") and time.monotonic() < deadline:
        time.sleep(0.1)
    with redis.client() as client, client.pubsub(ignore_subscribe_messages=True) as subscriber:
        subscriber.subscribe(topic_name)
        found = []
        while len({event["outboxseq"] for event in found}) < EVENTS:
            assert time.monotonic() < deadline
            message = subscriber.get_message(timeout=1)
            if message is not None:
                found.append(json.loads(message["data"]))
    wait_until_relayed(stage.database)
    stage.relay.stop()

    check([(e["data"]["aggregate"], e["data"]["version"], int(e["outboxseq"])) for e in found])


def test_a_file_has_whole_lines_only_whatever_ends_the_relay(
    make_stage: Callable[..., Stage], tmp_path: Path
) -> None:
    """
    I1, I2, I4. The relay is killed twice; a torn line is gone after the next start.
    """
    path = tmp_path / "events.jsonl"
    stage = make_stage({"broker": {"kind": "jsonl"}, "jsonl": {"path": str(path), **DEADLINE}})
    part = EVENTS // 3
    for start in range(0, EVENTS, part):
        stage.relay.start()
        write(stage.database, stage.topic, start, start + part)
        stage.relay.kill()
        with path.open("ab") as file:
            file.write(b'{"topic":"torn')
    stage.relay.start()
    wait_until_relayed(stage.database)
    stage.relay.stop()

    whole = path.read_bytes().removesuffix(b'{"topic":"torn').splitlines()
    lines = [json.loads(line) for line in whole]
    check(
        [
            (
                line["value"]["aggregate"],
                line["value"]["version"],
                int(line["headers"]["outbox-seq"]),
            )
            for line in lines
        ]
    )


def test_standard_output_has_the_events_and_nothing_else(
    make_stage: Callable[..., Stage], installed_wheel: InstalledWheel
) -> None:
    """
    `outbox-relay run | consumer`: logs go to standard error.
    """
    stage = make_stage({"broker": {"kind": "jsonl"}, "jsonl": DEADLINE})
    write(stage.database, stage.topic, 0, EVENTS)

    done = subprocess.run(
        [installed_wheel.command, "run", "--until-empty", "--config", str(stage.config)],
        capture_output=True,
        timeout=60,
        check=True,
    )

    lines = [json.loads(line) for line in done.stdout.splitlines()]
    check(
        [
            (
                line["value"]["aggregate"],
                line["value"]["version"],
                int(line["headers"]["outbox-seq"]),
            )
            for line in lines
        ]
    )
