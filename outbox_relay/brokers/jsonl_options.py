"""Settings of the broker that is a file of JSON lines, and the choice among the brokers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerOptions:
    """Which broker events are published to, section ``[broker]``."""

    kind: Literal["kafka", "amqp", "redis_streams", "redis_pubsub", "jsonl"] = "kafka"
    """The broker. Its own section is [kafka], [amqp], [redis] (two kinds) or [jsonl]; the rules of the other sections are not looked at."""

    @property
    def section(self) -> str:
        """The section of the settings of this kind."""
        return "redis" if self.kind.startswith("redis_") else self.kind

    def problems(self) -> list[str]:
        """What is wrong with these settings, one line each, named by key."""
        return []


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonlOptions:
    """A file of events, one JSON object a line, section ``[jsonl]``, for ``broker.kind = "jsonl"``."""

    path: str = "-"
    """File to append to, whose folder must exist; - for standard output. The relay writes to a file that was renamed no more, so it can be rotated."""

    fsync: bool = True
    """Whether a batch counts as acked only once the disk has it. Without it a crash of the machine, not of the relay, may lose what is marked as produced. Not for standard output."""

    publish_deadline_seconds: float = 10.0
    """When a batch that is not written counts as unknown and is written again. Must be less than relay.lease_seconds."""

    def problems(self) -> list[str]:
        """What is wrong with these settings, one line each, named by key."""
        found = []
        if not self.path:
            found.append("jsonl.path is required: a file, or - for standard output")
        elif self.path != "-":
            path = Path(self.path)
            if path.is_dir():
                found.append(f"jsonl.path = {self.path} is a folder: name a file")
            elif not path.parent.is_dir():
                found.append(f"jsonl.path = {self.path}: its folder is not there: create it")
        if self.publish_deadline_seconds <= 0:
            found.append(
                f"jsonl.publish_deadline_seconds = {self.publish_deadline_seconds} must be greater "
                "than 0"
            )
        return found
