"""The observer for whoever does not want to watch."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from outbox_relay.relay.outcomes import FailureKind, RejectReason, Unknown
from outbox_relay.relay.ports import Backlog
from outbox_relay.relay.waiting import Cause, Late


class Silent:
    """An Observer that looks away; subclass it to watch a few things only."""

    def log(self, event: str, **fields: object) -> None:
        """See Observer."""

    def read(self, rows: int, seconds: float) -> None:
        """See Observer."""

    def published(self, topic: str, rows: int, byte_count: int, seconds: float) -> None:
        """See Observer."""

    def latency(self, seconds: float, rows: int) -> None:
        """See Observer."""

    def publish_failed(self, topic: str, outcome: Unknown) -> None:
        """See Observer."""

    def topic_unavailable(self, topic: str, kind: FailureKind) -> None:
        """See Observer."""

    def redelivered(self, rows: int) -> None:
        """See Observer."""

    def late_rows(self, found: str, rows: int) -> None:
        """See Observer."""

    def waiting(self, causes: Mapping[Cause, Late]) -> None:
        """See Observer."""

    def throttled(self, seconds: float) -> None:
        """See Observer."""

    def connection_lost(self, reason: str) -> None:
        """See Observer."""

    def canary(self, outcome: str, seconds: float) -> None:
        """See Observer."""

    def canary_every(self, seconds: float) -> None:
        """See Observer."""

    def marked(self, rows: int, seconds: float) -> None:
        """See Observer."""

    def timed(self, operation: str, seconds: float) -> None:
        """See Observer."""

    def dead_letter(self, topic: str, reason: RejectReason) -> None:
        """See Observer."""

    def purged(self, kind: str, rows: int) -> None:
        """See Observer."""

    def hints(self, kind: str, count: int) -> None:
        """See Observer."""

    def in_flight(self, rows: int, byte_count: int) -> None:
        """See Observer."""

    def parked(self, topics: Collection[str], partitions: int) -> None:
        """See Observer."""

    def blocked(self, keys: int) -> None:
        """See Observer."""

    def careful(self, on: bool) -> None:
        """See Observer."""

    def sampled(self, backlog: Backlog) -> None:
        """See Observer."""

    def lanes(self, owned: int, expires_in_seconds: float) -> None:
        """See Observer."""

    def schema(self, problem: str | None) -> None:
        """See Observer."""

    def cycle(self) -> None:
        """See Observer."""
