"""From what Kafka and aiokafka say to an outcome, by the table of `kafka_codes`."""

from __future__ import annotations

from aiokafka import errors as kafka
from aiokafka.errors import BrokerResponseError, KafkaError

from outbox_relay.brokers.kafka_codes import ANSWERS, CLASSES, STORED_NOWHERE
from outbox_relay.relay.known import Known, Meaning, by_code, fault_of, label_of, of_the_system
from outbox_relay.relay.outcomes import (
    Acked,
    FailureKind,
    Fault,
    Outcome,
    Rejected,
    RejectReason,
    Unknown,
)

_CODES = by_code(ANSWERS)
_CLASSES = by_code(CLASSES)

_TOO_LARGE = frozenset({10, 18, "RecordTooLargeError"})

_KINDS: dict[int | str, FailureKind] = {
    **dict.fromkeys(STORED_NOWHERE, FailureKind.RETRY),
    **dict.fromkeys((3, 17), FailureKind.UNKNOWN_TOPIC),
    **dict.fromkeys((29, 31, 53, 58, "TokenUnavailable"), FailureKind.AUTH),
}


class PartitionGone(KafkaError):  # type: ignore[misc]
    """The topic has no such partition (any more)."""


def _register() -> None:
    """
    Let every answer arrive as what it is. aiokafka turns codes that it does not know into UnknownError,
    and an INVALID_RECORD would be published for ever.
    """
    for row in ANSWERS:
        if row.code not in kafka.kafka_errors:
            kafka.kafka_errors[row.code] = type(
                row.name,
                (BrokerResponseError,),
                {"errno": row.code, "message": row.name, "description": row.why},
            )


_register()


def known(error: BaseException) -> Known | None:
    """The row of *error*, or of the nearest class above it; None if it is in no table."""
    if isinstance(error, BrokerResponseError):
        return _CODES.get(error.errno)
    if (found := of_the_system(error)) is not None:
        return found
    for kind in type(error).__mro__:
        if kind is KafkaError and type(error) is not KafkaError:
            return None  # a class that aiokafka has and we do not
        if (row := _CLASSES.get(kind.__name__)) is not None:
            return row
    return None


def detail_of(error: BaseException) -> str:
    """
    What to tell of *error*: Kafka's name and code of it first, by which operators find it.

    >>> detail_of(kafka.MessageSizeTooLargeError())
    'MESSAGE_TOO_LARGE (10)'
    """
    if isinstance(error, BrokerResponseError):
        row = _CODES.get(error.errno)
        said = ", ".join(str(argument) for argument in error.args)
        text = f"{row.name if row else type(error).__name__} ({error.errno})"
        return f"{text}: {said}" if said else text
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def refusal_of(error: BaseException) -> str | None:
    """Why a broker refuses to serve us at all; None if it did not answer so."""
    row = _CODES.get(error.errno) if isinstance(error, BrokerResponseError) else None
    return f"{detail_of(error)}: {row.why}" if row else None


def is_stored_nowhere(error: BaseException) -> bool:
    """Whether a broker answered that it refuses the batch for now, and did not store it."""
    return isinstance(error, BrokerResponseError) and error.errno in STORED_NOWHERE


def unexpected(error: BaseException) -> str | None:
    """A word for the metric, if *error* is not one that is expected here; else None."""
    row = known(error)
    if row is None:
        return label_of(error, error.errno if isinstance(error, BrokerResponseError) else None)
    return str(row.name) if row.meaning is Meaning.UNEXPECTED else None


def outcome_of(error: BaseException) -> Outcome:
    """What *error*, which ended a batch, says of its records. What is in no table is unknown."""
    row = known(error)
    detail = detail_of(error)
    if row is None:
        return Unknown(fault=Fault.PARTITION, detail=detail)
    if row.meaning is Meaning.ACKED:
        return Acked()
    if row.meaning is Meaning.REJECTED:
        too_large = row.code in _TOO_LARGE
        reason = RejectReason.TOO_LARGE if too_large else RejectReason.INVALID_RECORD
        return Rejected(reason=reason, detail=detail)
    return Unknown(
        fault=fault_of(row),
        detail=detail,
        kind=_KINDS.get(row.code, FailureKind.UNKNOWN),
    )
