"""Settings of Kafka and of what goes on the wire: the one home of their defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaOptions:
    """Where Kafka is and how to speak to it, section ``[kafka]``. Always ``acks=all``."""

    bootstrap_servers: str = ""
    """Brokers to start from: host:port, separated by commas. Required."""

    client_id: str = "outbox-relay"
    """Name under which the brokers see this relay."""

    publish_deadline_seconds: float = 10.0
    """When a batch without an answer counts as unknown and is published again. Must be less than relay.lease_seconds."""

    request_timeout_seconds: float = 4.0
    """Longest wait for one answer of a broker, also for a connection."""

    max_request_bytes: int = 1_048_576
    """Largest record. Raise it together with the brokers' message.max.bytes or the topic's max.message.bytes."""

    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = "none"
    """How batches are compressed for the brokers. zstd and snappy are nearly free; they need the packages that aiokafka names."""

    idempotent: bool = True
    """Let the brokers drop what the client repeats by itself. Only for brokers that cannot do it switch this off."""

    def problems(self) -> list[str]:
        """What is wrong with these settings, one line each, named by key."""
        found = []
        if not self.bootstrap_servers:
            found.append("kafka.bootstrap_servers is required, such as localhost:9092")
        for key in ("publish_deadline_seconds", "request_timeout_seconds", "max_request_bytes"):
            if getattr(self, key) <= 0:
                found.append(f"kafka.{key} = {getattr(self, key)} must be greater than 0")
        if self.request_timeout_seconds >= self.publish_deadline_seconds:
            found.append(
                f"kafka.request_timeout_seconds = {self.request_timeout_seconds} must be less than "
                f"kafka.publish_deadline_seconds = {self.publish_deadline_seconds}"
            )
        return found
