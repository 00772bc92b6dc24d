"""
`doctor` on real brokers: each planted fault is found, and its own commands mend it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shlex
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from outbox_relay.config import load_config
from outbox_relay.doctor import Area, Findings, examine
from outbox_relay.migrate import migrate
from outbox_relay.store import DatabaseOptions
from tests.integration.doctoring import Site
from tests.services.kafka import LIBRARIES
from tests.services.kafka_cluster import KafkaCluster
from tests.services.secure import PLAIN_PASSWORD, PLAIN_USER, SecureKafka

GOOD = {"min.insync.replicas": "2"}


class Lite(Site):
    """An outbox in a file of SQLite: what a broker's checks need of a database are its topics."""

    def __init__(self, database: Any) -> None:
        self.kind = "sqlite"
        self.is_postgresql = False
        self.database = database
        migrate(DatabaseOptions(url=database.async_url))

    @property
    def url(self) -> str:
        return str(self.database.async_url)

    def take_lease(self) -> None:
        """As a relay at work has it."""
        self.change(
            "UPDATE outbox_lease SET owner = 'pod-1', nonce = 'n', expires_at = '2100-01-01'"
        )

    def change(self, statement: str) -> None:
        """Run it on the file."""
        engine = sa.create_engine(self.database.sync_url, poolclass=sa.NullPool)
        with engine.begin() as connection:
            connection.exec_driver_sql(statement)
        engine.dispose()


@pytest.fixture
def site(sqlite_database: Any) -> Lite:
    return Lite(sqlite_database)


async def look(site: Lite, **settings: str) -> Findings:
    """What is found of the broker."""
    return await examine(site.config(**settings), only=(Area.BROKER,))


def of_cluster(cluster: KafkaCluster) -> dict[str, str]:
    return {"kafka__bootstrap_servers": cluster.bootstrap_servers}


def run_tool(line: str) -> None:
    """A line for one of Kafka's scripts, with the class that the script runs."""
    classes = {
        "kafka-topics.sh": "org.apache.kafka.tools.TopicCommand",
        "kafka-configs.sh": "org.apache.kafka.tools.ConfigCommand",
        "kafka-acls.sh": "org.apache.kafka.tools.AclCommand",
    }
    script, *words = shlex.split(line)
    candidates = [classes[script], f"kafka.admin.{classes[script].rpartition('.')[2]}"]
    for name in candidates:
        java = [
            "java",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-cp",
            f"{LIBRARIES}/*",
            name,
        ]
        done = subprocess.run([*java, *words], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return
    raise AssertionError(f"{line}: {done.stdout}{done.stderr}")


def set_config(line: str) -> None:
    """What a line for kafka-configs.sh does, without a JVM for each."""
    parser = argparse.ArgumentParser(exit_on_error=True)
    for name in ("bootstrap-server", "entity-type", "entity-name", "add-config"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--alter", action="store_true", required=True)
    script, *words = shlex.split(line)
    told = parser.parse_args(words)
    assert (script, told.entity_type) == ("kafka-configs.sh", "topics")
    entries = [
        ConfigEntry(*pair.split("=", 1), incremental_operation=AlterConfigOpType.SET)
        for pair in told.add_config.split(",")
    ]
    resource = ConfigResource(ResourceType.TOPIC, told.entity_name, incremental_configs=entries)
    admin = AdminClient({"bootstrap.servers": told.bootstrap_server})
    for done in admin.incremental_alter_configs([resource]).values():
        done.result(30)


FAULTS: dict[str, Mapping[str, str]] = {
    "topic-min-isr": {"min.insync.replicas": "1"},
    "topic-not-enough-replicas": {"min.insync.replicas": "4"},
    "topic-unclean-election": {"unclean.leader.election.enable": "true"},
    "topic-compacted-unkeyed": {"cleanup.policy": "compact"},
    "topic-record-limit": {"max.message.bytes": "100000"},
    "topic-old-refused": {"message.timestamp.before.max.ms": "1000"},
    "topic-append-time": {"message.timestamp.type": "LogAppendTime"},
}


async def test_a_topics_settings_are_found_wrong_and_mended(
    kafka_cluster: KafkaCluster, topic_name: str, site: Lite
) -> None:
    """
    Each topic has one fault and says it alone; after its printed command nothing is found.
    """
    topics = {code: f"{topic_name}.{code}" for code in FAULTS}
    for code, topic in topics.items():
        kafka_cluster.create_topic(topic, config=GOOD | FAULTS[code])
        site.write(topic=topic, key=None if code == "topic-compacted-unkeyed" else "k")
    found = await look(site, **of_cluster(kafka_cluster))
    by_topic = {
        code: {item.code for item in found.findings if f"topic {topic} " in item.what}
        for code, topic in topics.items()
    }
    lines = [c.text for item in found.findings for c in item.commands if c.kind == "shell"]
    await asyncio.to_thread(run_tool, lines[0])
    for line in lines[1:]:
        await asyncio.to_thread(set_config, line)
    after = await until_well(lambda: look(site, **of_cluster(kafka_cluster)))

    assert by_topic == {code: {code} for code in FAULTS}
    assert len(found.findings) == len(FAULTS)
    assert after.findings == ()


async def until_well(ask: Callable[[], Any]) -> Findings:
    """Brokers hear of a change a moment later."""
    until = time.monotonic() + 15
    found: Findings = await ask()
    while found.findings and time.monotonic() < until:
        found = await ask()
    return found


async def test_a_topic_that_is_missing_or_has_one_replica(
    kafka_cluster: KafkaCluster, topic_name: str, site: Lite
) -> None:
    """
    The topic of a pending row is not made by looking, but by what is printed.
    """
    alone = f"{topic_name}.alone"
    kafka_cluster.create_topic(alone, replication=1)
    site.write(topic=topic_name)
    missing = await look(site, **of_cluster(kafka_cluster))
    again = await look(site, **of_cluster(kafka_cluster))
    (line,) = [command.text for item in missing.findings for command in item.commands]
    await asyncio.to_thread(run_tool, line)
    mended = await until_well(lambda: look(site, **of_cluster(kafka_cluster)))
    site.write(topic=alone)
    one = await look(site, **of_cluster(kafka_cluster))
    partitions = await look(site, relay__max_active_relays="2", **of_cluster(kafka_cluster))

    assert missing.codes == again.codes == {"topic-missing"}
    assert mended.findings == ()
    assert one.codes == {"topic-one-replica"}
    assert partitions.codes == {"topic-one-replica", "topic-one-partition"}


async def test_a_partition_that_nobody_leads(
    kafka_cluster: KafkaCluster, topic_name: str, site: Lite
) -> None:
    """
    The only broker that has it is away; another one answers.
    """
    kafka_cluster.create_topic(topic_name, replication=[[3]])
    site.write(topic=topic_name)
    kafka_cluster.brokers[2].kill()
    until = time.monotonic() + 30
    found = await look(site, **of_cluster(kafka_cluster))
    while "topic-without-leader" not in found.codes and time.monotonic() < until:
        found = await look(site, **of_cluster(kafka_cluster))

    assert "topic-without-leader" in found.codes


async def test_who_may_not_write_and_who_may_not_log_in(
    secure_kafka: SecureKafka, topic_name: str, site: Lite
) -> None:
    """
    Without the right to write, with a wrong password, and to a port that speaks TLS.
    """
    user = f"u-{topic_name}"
    secure_kafka.set_scram_password("somebody", "else")
    secure_kafka.create_topic(topic_name)
    secure_kafka.allow(topic_name, "somebody")
    site.write(topic=topic_name)
    settings = {
        "kafka__bootstrap_servers": secure_kafka.server("SASL_PLAINTEXT"),
        "kafka__security_protocol": "SASL_PLAINTEXT",
        "kafka__sasl_mechanism": "PLAIN",
        "kafka__sasl_username": PLAIN_USER,
        "kafka__sasl_password": PLAIN_PASSWORD,
    }
    may_not = await look(site, **settings)
    (finding,) = [item for item in may_not.findings if item.code == "topic-unauthorised"]
    # Administrators come by the open listener here.
    line = finding.commands[0].text.replace(
        secure_kafka.server("SASL_PLAINTEXT"), secure_kafka.bootstrap_servers
    )
    await asyncio.to_thread(run_tool, line)
    until = time.monotonic() + 15
    may = await look(site, **settings)
    while "topic-unauthorised" in may.codes and time.monotonic() < until:
        may = await look(site, **settings)
    wrong = await look(site, **{**settings, "kafka__sasl_password": "wrong"})
    tls = await look(
        site,
        **{
            **settings,
            "kafka__bootstrap_servers": secure_kafka.server("SASL_SSL"),
            "kafka__security_protocol": "SASL_SSL",
        },
    )

    assert user not in str(may_not.as_json())
    assert "topic-unauthorised" not in may.codes
    assert wrong.codes == tls.codes == {"broker-login-refused"}
    assert "certificate" in tls.findings[0].what


async def test_a_broker_that_is_away_or_hangs_costs_only_its_area(
    site: Lite, black_hole: int
) -> None:
    """
    The database is looked at all the same, and it is over within the time limits.
    """
    site.write()
    started = time.monotonic()
    found = await examine(
        site.config(
            kafka__bootstrap_servers=f"127.0.0.1:{black_hole}", kafka__request_timeout_seconds="0.5"
        )
    )
    hangs = await examine(
        load_config(
            None,
            {},
            {
                "database.url": f"mysql+asyncmy://ob:ob@127.0.0.1:{black_hole}/ob_x",
                "database.connect_timeout_seconds": "0.5",
                "kafka.bootstrap_servers": "127.0.0.1:1",
            },
        )
    )

    assert found.codes == {"broker-unreachable", "no-relay"}
    assert hangs.codes == {"broker-unreachable", "database-unreachable"}
    assert time.monotonic() - started < 15


async def test_redis_that_keeps_nothing(redis: Any, site: Lite) -> None:
    """
    No log, streams that may be thrown away, and replicas that are not there.
    """
    settings = {"broker__kind": "redis_streams", "redis__url": redis.url}
    site.write()
    with redis.client() as client:
        well = await look(site, **settings)
        client.config_set("appendonly", "no")
        client.config_set("maxmemory", "100mb")
        client.config_set("maxmemory-policy", "allkeys-lru")
        found = await look(site, **settings)
        for finding in found.findings:
            for command in finding.commands:
                words = command.text.split()
                assert words[0] == "redis-cli"
                client.execute_command(*words[1:])
        client.config_set("maxmemory", "0")
        after = await look(site, **settings)
    few = await look(site, redis__wait_replicas="2", **settings)

    assert well.codes == after.codes == frozenset()
    assert found.codes == {"stream-not-durable", "stream-evicted"}
    assert few.codes == {"replicas-too-few"}


async def test_redis_that_lets_nobody_in(redis: Any, site: Lite) -> None:
    """
    A wrong password is told apart from a server that is away.
    """
    wrong = redis.url.replace("redis://", "redis://nobody:wrong@")
    refused = await look(site, broker__kind="redis_streams", redis__url=wrong)
    away = await look(site, broker__kind="redis_pubsub", redis__url="redis://127.0.0.1:1/0")

    assert refused.codes == {"broker-login-refused"}
    assert away.codes == {"broker-unreachable"}


async def test_rabbitmq_without_the_place_that_events_go_to(
    rabbitmq: Any, topic_name: str, site: Lite
) -> None:
    """
    Looking makes neither queue nor exchange.
    """
    site.write(topic=topic_name)
    to_queue = {"broker__kind": "amqp", "amqp__url": rabbitmq.url}
    to_exchange = {**to_queue, "amqp__exchange": f"{topic_name}.x"}
    queue, exchange = await look(site, **to_queue), await look(site, **to_exchange)
    again = await look(site, **to_queue)
    await asyncio.to_thread(rabbitmq.declare_queue, topic_name)
    await asyncio.to_thread(rabbitmq.declare_exchange, f"{topic_name}.x")
    queue_there, exchange_there = await look(site, **to_queue), await look(site, **to_exchange)
    wrong = await look(
        site, **{**to_queue, "amqp__url": rabbitmq.url.replace("ob:ob@", "ob:wrong@")}
    )

    assert queue.codes == again.codes == {"queue-missing"}
    assert exchange.codes == {"exchange-missing"}
    assert queue_there.codes == exchange_there.codes == frozenset()
    assert wrong.codes == {"broker-login-refused"}


async def test_a_file_that_cannot_be_written(site: Lite, tmp_path: Path) -> None:
    """
    JSON lines: the folder's rights and its disk.
    """
    folder = tmp_path / "out"
    folder.mkdir()
    settings = {"broker__kind": "jsonl", "jsonl__path": str(folder / "events.jsonl")}
    well = await look(site, **settings)
    if os.geteuid() != 0:
        folder.chmod(0o500)
        assert (await look(site, **settings)).codes == {"file-not-writable"}

    assert well.codes == frozenset()
    assert not (folder / "events.jsonl").exists()


async def test_hints_that_reach_nobody(site: Lite, tmp_path: Path) -> None:
    """
    A socket that is not there, one that nobody reads any more, and a port that nobody listens on.
    """
    path = tmp_path / "wake.sock"
    site.take_lease()
    settings = {"relay__wake_address": f"unix:{path}"}
    missing = await examine(site.config(**settings), only=(Area.WAKE,))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        well = await examine(site.config(**settings), only=(Area.WAKE,))
        hint = listener.recv(10)
    dead = await examine(site.config(**settings), only=(Area.WAKE,))
    port = await examine(site.config(relay__wake_address="udp:127.0.0.1:1"), only=(Area.WAKE,))

    assert missing.codes == {"wake-socket-missing"}
    assert (well.codes, hint) == (frozenset(), b"")
    assert dead.codes == port.codes == {"wake-nobody-listens"}
