"""
A Kafka cluster of several brokers, of which tests take some away.

The controller is a process of its own: with every broker but one gone, somebody still elects leaders.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

from tests.services.kafka import ADMIN_SECONDS, Kafka, Record, _cluster_id, _may_pass
from tests.services.process import MissingPartError, ServiceFailedError, free_port

CONTROLLER_NODE = 100
POLL_SECONDS = 0.05

Settings = Mapping[str, str]


class _Node(Kafka):
    """A process of the cluster."""

    roles = "broker"

    def __init__(
        self,
        node: int,
        *,
        cluster: str,
        controller_port: int,
        folder: Path | None = None,
        heap: str,
        config: Settings | None = None,
    ) -> None:
        self.node = node
        self.name = f"kafka-{node}"
        self._cluster = cluster
        self._controller = controller_port
        super().__init__(folder, heap=heap, config=config)

    def _own_settings(self) -> dict[str, str]:
        return {
            "process.roles": self.roles,
            "node.id": str(self.node),
            "listeners": f"PLAINTEXT://{self.bootstrap_servers}",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap_servers}",
            "controller.quorum.voters": f"{CONTROLLER_NODE}@127.0.0.1:{self._controller}",
            "log.dirs": str(self.folder / "data"),
            # A dead broker loses its leaders after this, and a returned one is in sync soon.
            "broker.session.timeout.ms": "2000",
            "replica.lag.time.max.ms": "3000",
        }

    def _id_of_cluster(self) -> str:
        return self._cluster

    def _is_ready(self) -> bool:
        """Whether it serves clients and the controller lets it."""
        try:
            return self.node in self._admin().list_topics(timeout=2).brokers
        except KafkaException:
            return False


class _Controller(_Node):
    roles = "controller"

    def _own_settings(self) -> dict[str, str]:
        address = f"CONTROLLER://127.0.0.1:{self._controller}"
        found = {**super()._own_settings(), "listeners": address}
        del found["advertised.listeners"]
        return found

    def _is_ready(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._controller)) == 0


class KafkaCluster:
    """
    `brokers[i]` has `kill`, `stop`, `start`, `freeze` and `thaw`; its number in the cluster is i + 1.

    It creates no topic by itself. Replicas are at most three.
    """

    def __init__(
        self, brokers: int = 3, *, heap: str = "320m", config: Settings | None = None
    ) -> None:
        ports = {"cluster": _cluster_id(), "controller_port": free_port(), "heap": heap}
        self._controller = _Controller(CONTROLLER_NODE, **{**ports, "heap": "192m"})  # type: ignore[arg-type]
        copies = str(min(brokers, 3))
        settings = {"offsets.topic.replication.factor": copies, **(config or {})}
        self.brokers = [
            _Node(number, config=settings, **ports)  # type: ignore[arg-type]
            for number in range(1, brokers + 1)
        ]

    @property
    def bootstrap_servers(self) -> str:
        """Every broker, whether it runs or not."""
        return ",".join(broker.bootstrap_servers for broker in self.brokers)

    def start(self) -> None:
        """Start what does not run, side by side; returns when all of them serve."""
        self._controller.start()
        with ThreadPoolExecutor(len(self.brokers)) as pool:
            list(pool.map(Kafka.start, self.brokers))

    def heal(self) -> None:
        """Bring back what a test left stopped or frozen."""
        self._controller.heal()
        for broker in self.brokers:
            broker.heal()

    def close(self) -> None:
        """Kill all of it; safe to repeat."""
        for node in (*self.brokers, self._controller):
            node.close()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # Topics

    def create_topic(
        self,
        name: str,
        partitions: int = 1,
        *,
        replication: int | Sequence[Sequence[int]] = 3,
        config: Settings | None = None,
    ) -> None:
        """
        Create it and return when every partition has a leader and its replicas are in sync.

        *replication* is a number, or for each partition the numbers of its brokers, leader first.
        """
        how: dict[str, Any] = {"config": dict(config or {})}
        if isinstance(replication, int):
            how |= {"num_partitions": partitions, "replication_factor": replication}
        else:
            partitions = len(replication)
            how |= {
                "num_partitions": partitions,
                "replica_assignment": [list(numbers) for numbers in replication],
            }
        deadline = time.monotonic() + ADMIN_SECONDS
        while True:
            admin = self._admin()  # its futures fail when it is collected
            try:
                admin.create_topics([NewTopic(name, **how)])[name].result(ADMIN_SECONDS)
                break
            except KafkaException as error:
                if not _may_pass(error) or time.monotonic() > deadline:
                    raise
        for partition in range(partitions):
            wanted = replication if isinstance(replication, int) else len(replication[partition])
            self.wait_until_in_sync(name, partition, replicas=wanted)

    def delete_topic(self, name: str) -> None:
        """Remove the topic with its records."""
        admin = self._admin()
        admin.delete_topics([name])[name].result(ADMIN_SECONDS)

    def set_topic_config(self, name: str, config: Settings) -> None:
        """Give the topic these settings and the default for all others."""
        admin = self._admin()
        resource = ConfigResource(ConfigResource.Type.TOPIC, name, set_config=dict(config))
        admin.alter_configs([resource])[resource].result(ADMIN_SECONDS)

    def leader(self, topic: str, partition: int = 0) -> int:
        """The index in `brokers` of the partition's leader; -1 without one."""
        found = self._admin().list_topics(topic, timeout=ADMIN_SECONDS).topics[topic]
        leader = found.partitions[partition].leader
        return leader - 1 if leader > 0 else -1

    def wait_until_in_sync(self, topic: str, partition: int = 0, *, replicas: int) -> None:
        """Return when so many replicas of the partition are in sync, neither more nor less."""
        admin = self._admin()
        deadline = time.monotonic() + ADMIN_SECONDS
        isrs: Sequence[int] = ()
        while True:
            found = admin.list_topics(topic, timeout=ADMIN_SECONDS).topics[topic]
            if found.error is None and partition in found.partitions:
                state = found.partitions[partition]
                isrs = state.isrs
                if len(isrs) == replicas and state.leader >= 0:
                    return
            if time.monotonic() > deadline:
                raise ServiceFailedError(f"{topic}/{partition}: in sync are {json.dumps(isrs)}")
            time.sleep(POLL_SECONDS)

    def consume_all(self, topic: str) -> list[Record]:
        """Every record up to the end offsets of this moment, in order within each partition."""
        return next(b for b in self.brokers if b.is_running).consume_all(topic)

    def _admin(self) -> AdminClient:
        """A client for the caller to hold: requests of one that is collected fail at once."""
        return AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[KafkaCluster]:
    """Three brokers and a controller."""
    try:
        cluster = KafkaCluster()
    except MissingPartError as missing:
        pytest.skip(str(missing))
    with cluster:
        yield cluster


@pytest.fixture
def kafka_cluster(shared_cluster: KafkaCluster) -> Iterator[KafkaCluster]:
    """Three brokers that all run when the test begins, whatever the test before did to them."""
    shared_cluster.heal()
    yield shared_cluster
    for broker in shared_cluster.brokers:
        broker.thaw()
