"""
What follows from an outcome. Pure: what is known comes in, a decision comes out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from outbox_relay.relay.outcomes import (
    Acked,
    Fault,
    Outcome,
    Rejected,
    RejectReason,
    Unknown,
    Unsent,
)

MOST_REJECTIONS_IN_A_ROW = 5
"""More over distinct keys look like a setting of the topic, not like bad records: it pauses, so that
one wrong clock or a lowered max.message.bytes cannot fill the dead letters."""

PATIENCE = 2
"""Unknown outcomes in a row after which a partition is parked, though its broker answers."""


@dataclass(frozen=True, slots=True)
class MarkProduced:
    """The rows are on the broker: mark them."""


@dataclass(frozen=True, slots=True)
class Split:
    """One of several records is refused: publish each half by itself, in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """Give this one record up, durably, before its key goes on."""

    reason: RejectReason
    detail: str


@dataclass(frozen=True, slots=True)
class PublishAgain:
    """The same records, after a pause if the partition failed before."""


@dataclass(frozen=True, slots=True)
class AwaitBroker:
    """No broker answers: everything waits, then the same records again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkPartition:
    """Let the partition wait, and the others go on."""

    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseTopic:
    """Let the whole topic wait: its settings are at fault, not its records."""

    detail: str


Decision = (
    MarkProduced | Split | DeadLetter | PublishAgain | AwaitBroker | ParkPartition | PauseTopic
)


def decide(
    outcome: Outcome,
    *,
    records: int,
    unknown_in_a_row: int,
    rejected_in_a_row: int,
    broker_answers: bool,
) -> Decision:
    """
    What to do after *outcome* of a batch of *records*.

    *unknown_in_a_row* counts this partition's, this one included; *rejected_in_a_row* the topic's
    dead letters over distinct keys since its last ack; *broker_answers* is the answer to a probe
    made after the outcome.
    """
    match outcome:
        case Acked():
            return MarkProduced()
        case Rejected(reason=reason, detail=detail):
            if records > 1:
                return Split()
            if rejected_in_a_row >= MOST_REJECTIONS_IN_A_ROW:
                return PauseTopic(detail=f"{rejected_in_a_row} rejections in a row, now: {detail}")
            return DeadLetter(reason=reason, detail=detail)
        case Unsent():
            return PublishAgain()
        case Unknown() if not broker_answers:
            # Also if a topic seems to be missing: to the client an outage can look like that.
            return AwaitBroker()
        case Unknown(fault=Fault.TOPIC, detail=detail):
            return PauseTopic(detail=detail)
        case Unknown(detail=detail):
            if unknown_in_a_row >= PATIENCE:
                return ParkPartition(detail=detail)
            return PublishAgain()
        case _:
            assert_never(outcome)


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Exponential, with full jitter: whoever failed together does not come back together."""

    initial_seconds: float = 0.2
    max_seconds: float = 60.0

    def delay_seconds(self, attempts: int, *, jitter: float) -> float:
        """
        The pause after *attempts* failures in a row; *jitter* is a random number in [0, 1].

        >>> Backoff(initial_seconds=1, max_seconds=60).delay_seconds(3, jitter=1.0)
        4.0
        """
        ceiling = min(self.max_seconds, self.initial_seconds * 2.0 ** min(attempts - 1, 30))
        return ceiling * (0.1 + 0.9 * jitter)


@dataclass(slots=True, kw_only=True)
class TrustWindow:
    """
    How long a relay may believe that it holds its lease.

    Counted from the *start* of the last renewal that succeeded, on a clock that counts suspension:
    the database may have stamped the lease at any moment since. A send is allowed while its
    deadline ends inside the window, so that no batch of ours is under way when the lease passes on.
    """

    lease_seconds: float
    publish_deadline_seconds: float
    renewed_at: float

    def renewed(self, started_at: float) -> None:
        """A renewal that started at *started_at* succeeded."""
        self.renewed_at = max(self.renewed_at, started_at)

    def left(self, now: float) -> float:
        """Seconds until the lease may pass on."""
        return self.renewed_at + self.lease_seconds - now

    def may_publish(self, now: float) -> bool:
        """Whether a batch sent now is settled before the lease can pass on."""
        return self.left(now) >= self.publish_deadline_seconds

    def renew_every(self) -> float:
        """How often to renew, so that two renewals may fail before publishing stops."""
        return max(0.05, (self.lease_seconds - self.publish_deadline_seconds) / 3)

    def may_skip(self, now: float) -> bool:
        """Whether one renewal may be left out while nothing is published: one may still fail."""
        return now - self.renewed_at < 1.5 * self.renew_every()
