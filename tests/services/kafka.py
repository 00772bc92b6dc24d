"""
A real Apache Kafka broker (KRaft, one node).
"""

from __future__ import annotations

import shutil
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from tests.services.process import MissingPartError, Service, ServiceFailedError, free_port

LIBRARIES = Path(__file__).resolve().parents[2] / ".cache" / "kafka" / "libs"
ADMIN_SECONDS = 30.0
ANSWER_SECONDS = 8.0
CONSUME_SECONDS = 120.0

SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "auto.create.topics.enable": "false",
    "num.partitions": "1",
    "default.replication.factor": "1",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "5",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "5",
    "group.initial.rebalance.delay.ms": "0",
    # A consumer that was killed keeps its partitions for so long, whatever it says (default 6 s).
    "group.min.session.timeout.ms": "1000",
    "log.cleaner.dedupe.buffer.size": "16777216",
    "log.segment.bytes": "268435456",
    # Each new partition touches two such files, which costs a broker here 10 ms at the default size.
    "log.index.size.max.bytes": "262144",
    # A broker that was killed may register again only when its old session is over (default 9 s).
    "broker.session.timeout.ms": "4000",
    "broker.heartbeat.interval.ms": "500",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One record as a consumer sees it; *timestamp* in milliseconds."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: dict[str, bytes]
    timestamp: int


def _require_parts() -> None:
    if shutil.which("java") is None:
        raise MissingPartError(
            "java is not installed; run: python -m tests.services.install (or install a JDK 17)"
        )
    if not any(LIBRARIES.glob("kafka_*.jar")):
        raise MissingPartError(
            "the jars of Kafka are not here; run: python -m tests.services.install"
        )


class Kafka(Service):
    """One broker on 127.0.0.1 that is its own controller and creates no topic by itself."""

    name = "kafka"

    def __init__(
        self,
        folder: Path | None = None,
        *,
        heap: str = "512m",
        config: Mapping[str, str] | None = None,
    ) -> None:
        _require_parts()
        super().__init__(folder)
        self.port = free_port()
        self._controller_port = free_port()
        self._heap = heap
        self._config = {**SETTINGS, **self._own_settings(), **(config or {})}

    @property
    def bootstrap_servers(self) -> str:
        """What a client connects to first."""
        return f"127.0.0.1:{self.port}"

    def create_topic(
        self, name: str, partitions: int = 1, config: Mapping[str, str] | None = None
    ) -> None:
        """Create it and return when every partition has a leader."""
        topic = NewTopic(
            name, num_partitions=partitions, replication_factor=1, config=dict(config or {})
        )
        deadline = time.monotonic() + ADMIN_SECONDS
        asked = False
        while True:
            admin = self._admin()  # its futures fail when it is collected
            try:
                admin.create_topics([topic])[name].result(ANSWER_SECONDS)
                break
            except (KafkaException, TimeoutError) as error:
                # A broker that was frozen just now may answer nothing to this very request.
                if asked and _code(error) == KafkaError.TOPIC_ALREADY_EXISTS:
                    break
                asked = True
                if not _may_pass(error) or time.monotonic() > deadline:
                    raise
        self._wait_for_leaders(name, partitions)

    def add_partitions(self, name: str, total: int) -> None:
        """Give the topic *total* partitions and return when each has a leader."""
        admin = self._admin()
        admin.create_partitions([NewPartitions(name, total)])[name].result(ADMIN_SECONDS)
        self._wait_for_leaders(name, total)

    def delete_topic(self, name: str) -> None:
        """Remove the topic with its records."""
        admin = self._admin()
        admin.delete_topics([name])[name].result(ADMIN_SECONDS)

    def limit_client(self, client_id: str, bytes_per_second: int | None) -> None:
        """A quota for what the producers of that client id send; None takes it away."""
        change = ["--add-config", f"producer_byte_rate={bytes_per_second}"]
        if bytes_per_second is None:
            change = ["--delete-config", "producer_byte_rate"]
        servers = ["--bootstrap-server", self.bootstrap_servers]
        of = ["--entity-type", "clients", "--entity-name", client_id]
        tool = self._java("kafka.admin.ConfigCommand", *servers, "--alter", *of, *change)
        subprocess.run(tool, check=True, capture_output=True)

    def consume_all(self, topic: str) -> list[Record]:
        """Every record up to the end offsets of this moment, in order within each partition."""
        consumer = Consumer(self._consumer_options())
        try:
            ends = self._end_offsets(consumer, topic)
            consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in ends])
            return _read_until(consumer, ends)
        finally:
            consumer.close()

    def _own_settings(self) -> dict[str, str]:
        controller = f"127.0.0.1:{self._controller_port}"
        return {
            "listeners": f"PLAINTEXT://{self.bootstrap_servers},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap_servers}",
            "controller.quorum.voters": f"1@{controller}",
            "log.dirs": str(self.folder / "data"),
        }

    def _consumer_options(self) -> dict[str, str | bool]:
        return {
            "bootstrap.servers": self.bootstrap_servers,
            "group.id": f"count-{uuid.uuid4().hex}",
            "enable.auto.commit": False,
            "enable.partition.eof": False,
            "auto.offset.reset": "error",
        }

    def _end_offsets(self, consumer: Consumer, topic: str) -> dict[int, int]:
        """Partition -> the offset after its last record, for those that hold any."""
        found = consumer.list_topics(topic, timeout=ADMIN_SECONDS).topics[topic]
        if found.error is not None:
            raise KafkaException(found.error)
        marks = {p: _marks(consumer, TopicPartition(topic, p)) for p in found.partitions}
        return {p: high for p, (low, high) in marks.items() if high > low}

    def _admin(self) -> AdminClient:
        """A client for the caller to hold: requests of one that is collected fail at once."""
        return AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})

    def _wait_for_leaders(self, topic: str, partitions: int) -> None:
        admin = self._admin()
        deadline = time.monotonic() + ADMIN_SECONDS
        while True:
            found = admin.list_topics(topic, timeout=ADMIN_SECONDS).topics[topic]
            led = [p for p in found.partitions.values() if p.leader >= 0]
            if found.error is None and len(led) == partitions:
                return
            if time.monotonic() > deadline:
                raise ServiceFailedError(f"topic {topic} has {len(led)} of {partitions} leaders")
            time.sleep(0.05)

    def _java(self, *arguments: str) -> list[str]:
        # The parallel collectors start a thread per core that the tests' other parts need.
        return ["java", "-XX:+UseSerialGC", "-cp", f"{LIBRARIES}/*", *arguments]

    def _id_of_cluster(self) -> str:
        return _cluster_id()

    def _prepare(self) -> None:
        properties = self.folder / "server.properties"
        if properties.exists():
            return
        draft = self.folder / "server.properties.new"
        draft.write_text("".join(f"{key}={value}\n" for key, value in self._config.items()))
        tool = ["kafka.tools.StorageTool", "format", "-t", self._id_of_cluster(), "-c", str(draft)]
        done = subprocess.run(self._java(*tool), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ServiceFailedError(f"Kafka's format failed:\n{done.stdout}{done.stderr}")
        draft.rename(properties)

    def _command(self) -> Sequence[str]:
        heap = f"-Xmx{self._heap}"
        return self._java(heap, "kafka.Kafka", str(self.folder / "server.properties"))

    def _is_ready(self) -> bool:
        """Whether the broker knows itself and each partition has its leader again."""
        try:
            metadata = self._admin().list_topics(timeout=2)
        except KafkaException:
            return False
        leaders = [p.leader for t in metadata.topics.values() for p in t.partitions.values()]
        return bool(metadata.brokers) and all(leader >= 0 for leader in leaders)


def _marks(consumer: Consumer, partition: TopicPartition) -> tuple[int, int]:
    """
    The first offset and the one after the last. A partition whose leader stands in the metadata may not
    know of it yet.
    """
    deadline = time.monotonic() + ADMIN_SECONDS
    while True:
        try:
            low, high = consumer.get_watermark_offsets(partition, timeout=ADMIN_SECONDS)
        except KafkaException as error:
            if _code(error) != KafkaError.NOT_LEADER_FOR_PARTITION or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return low, high


def _may_pass(error: Exception) -> bool:
    # While its broker is fenced a controller has nobody to give a replica to.
    passing = (KafkaError.INVALID_REPLICATION_FACTOR, KafkaError._TIMED_OUT)
    return isinstance(error, TimeoutError) or _code(error) in passing


def _code(error: Exception) -> object:
    return error.args[0].code() if isinstance(error, KafkaException) else None


def _cluster_id() -> str:
    # 22 characters of URL-safe base64, as Kafka wants it; a leading "-" would read as an option.
    return "A" + uuid.uuid4().hex[:20] + "A"


def _read_until(consumer: Consumer, ends: dict[int, int]) -> list[Record]:
    records: list[Record] = []
    missing = set(ends)
    deadline = time.monotonic() + CONSUME_SECONDS
    while missing:
        for message in consumer.consume(num_messages=5_000, timeout=1.0):
            error = message.error()
            if error is not None:
                _raise_unless_passing(error)
                continue
            partition, offset = message.partition(), message.offset()
            if offset < ends[partition]:
                records.append(_record(message))
            if offset >= ends[partition] - 1:
                missing.discard(partition)
        if time.monotonic() > deadline:
            raise ServiceFailedError(f"Kafka gave no end of partitions {sorted(missing)} in time")
    return sorted(records, key=lambda record: (record.partition, record.offset))


def _raise_unless_passing(error: KafkaError) -> None:
    if error.fatal() or not error.retriable():
        raise KafkaException(error)


def _record(message: Message) -> Record:
    return Record(
        partition=message.partition(),
        offset=message.offset(),
        key=message.key(),
        value=message.value(),
        headers=dict(message.headers() or []),
        timestamp=message.timestamp()[1],
    )
