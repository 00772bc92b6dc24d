"""
What can become of a record, and what the broker or the database can say of it.

Every record ends *acked*, *rejected* or *unknown*. Only `Acked` marks a row. A batch that is *unsent* has
not begun.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class RejectReason(StrEnum):
    """Why a record can never be published as it is. The first word of a dead letter's error."""

    TOO_LARGE = "too_large"
    INVALID_RECORD = "invalid_record"
    UNREADABLE = "unreadable"
    UNROUTABLE = "unroutable"
    KILLS_RELAY = "kills_relay"


class Fault(StrEnum):
    """How far the trouble behind an unknown outcome reaches."""

    PARTITION = "partition"
    TOPIC = "topic"
    BROKER = "broker"


class FailureKind(StrEnum):
    """What kept records from being published: a label of the metrics."""

    UNKNOWN = "unknown"
    RETRY = "retry"
    AUTH = "auth"
    UNKNOWN_TOPIC = "unknown_topic"
    TOO_LARGE = "too_large"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class Acked:
    """The broker has the records, on as many replicas as it promised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """The broker answered that it refuses these records, now and every time."""

    reason: RejectReason
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """
    Nobody can say whether the broker has the records: publish them again, in order.

    `kind` is what the broker said last, for the metrics: nothing is decided by it.
    """

    fault: Fault
    detail: str
    kind: FailureKind = FailureKind.UNKNOWN


@dataclass(frozen=True, slots=True)
class Unsent:
    """
    Nothing of the records is on the broker or on its way: the broker asked to be sent nothing for now.

    Publish them again at once, if the lease is still trusted for a whole deadline: the adapter waits.
    """


Outcome = Acked | Rejected | Unknown | Unsent
