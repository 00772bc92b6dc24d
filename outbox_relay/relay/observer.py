"""The port for whoever watches the relay."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Protocol

from outbox_relay.relay.outcomes import FailureKind, RejectReason, Unknown
from outbox_relay.relay.waiting import Cause, Late

if TYPE_CHECKING:
    from outbox_relay.relay.ports import Backlog


class Observer(Protocol):
    """Who watches: metrics and logs. Called after the fact is durable. Must not raise or wait."""

    def log(self, event: str, **fields: object) -> None:
        """Something worth a line. *event* is a fixed snake_case name; never a payload or a key."""

    def read(self, rows: int, seconds: float) -> None:
        """A read returned *rows* not seen before."""

    def published(self, topic: str, rows: int, byte_count: int, seconds: float) -> None:
        """The broker acked a batch of *rows* after *seconds*."""

    def latency(self, seconds: float, rows: int) -> None:
        """*rows* were acked *seconds* after they were created."""

    def publish_failed(self, topic: str, outcome: Unknown) -> None:
        """A batch ended unknown."""

    def topic_unavailable(self, topic: str, kind: FailureKind) -> None:
        """The broker said that *topic* cannot be published to."""

    def redelivered(self, rows: int) -> None:
        """*rows* were acked that an earlier batch had left unknown: they may be there twice."""

    def late_rows(self, found: str, rows: int) -> None:
        """*rows* committed after the cursor had passed them: known as ``open``, or found by the ``sweep``."""

    def waiting(self, causes: Mapping[Cause, Late]) -> None:
        """Why rows wait. Causes that are not named keep nothing waiting."""

    def throttled(self, seconds: float) -> None:
        """A broker is sent nothing for *seconds* more, because of a quota."""

    def connection_lost(self, reason: str) -> None:
        """A connection to the database was given up, or none could be had."""

    def canary(self, outcome: str, seconds: float) -> None:
        """A canary was ``written``, ``acked`` after *seconds*, is ``late``, or ``failed``: see Canary."""

    def canary_every(self, seconds: float) -> None:
        """How often this relay writes a canary now; 0 if it does not."""

    def marked(self, rows: int, seconds: float) -> None:
        """*rows* are produced."""

    def timed(self, operation: str, seconds: float) -> None:
        """Another operation of the database was answered: ``lease``, ``sample`` or ``purge``."""

    def dead_letter(self, topic: str, reason: RejectReason) -> None:
        """A row was given up, durably."""

    def purged(self, kind: str, rows: int) -> None:
        """*rows* were old enough and are deleted: ``produced`` or ``dead_letter``."""

    def hints(self, kind: str, count: int) -> None:
        """*count* hints were ``received``, ``passed_on`` to a relay, or ``refused``: they are none."""

    def in_flight(self, rows: int, byte_count: int) -> None:
        """How much is read and not yet marked."""

    def parked(self, topics: Collection[str], partitions: int) -> None:
        """Which topics pause, and how many partitions."""

    def blocked(self, keys: int) -> None:
        """How many keys wait for their dead letter."""

    def careful(self, on: bool) -> None:
        """Whether rows are looked at with care, because relays died."""

    def sampled(self, backlog: Backlog) -> None:
        """The backlog was measured."""

    def lanes(self, owned: int, expires_in_seconds: float) -> None:
        """How many lanes are ours, and for how long."""

    def schema(self, problem: str | None) -> None:
        """Whether the tables fit."""

    def cycle(self) -> None:
        """The main loop made progress."""
