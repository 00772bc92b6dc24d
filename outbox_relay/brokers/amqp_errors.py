"""From what RabbitMQ and aio-pika say to an outcome, by the table of `amqp_codes`."""

from __future__ import annotations

from aiormq.exceptions import ChannelPreconditionFailed, DeliveryError, PublishError

from outbox_relay.brokers.amqp_codes import CLASSES
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

_CLASSES = by_code(CLASSES)
_KINDS = {
    "ChannelAccessRefused": FailureKind.AUTH,
    "AuthenticationError": FailureKind.AUTH,
    "ProbableAuthenticationError": FailureKind.AUTH,
    "ChannelNotFoundEntity": FailureKind.UNKNOWN_TOPIC,
}


def known(error: BaseException) -> Known | None:
    """The row of *error*, or of the nearest class above it; None if it is in no table."""
    if isinstance(error, ChannelPreconditionFailed) and "larger than configured max size" in str(
        error
    ):
        return _CLASSES["MessageTooLarge"]
    for kind in type(error).__mro__:
        if (row := _CLASSES.get(kind.__name__)) is not None:
            return row
    return of_the_system(error)


def detail_of(error: BaseException) -> str:
    """What to tell of *error*. A message that came back is not told: it holds the payload."""
    row = known(error)
    if isinstance(error, PublishError):
        return "NO_ROUTE (312): no queue is bound to the exchange for this routing key"
    name = row.name if row is not None else type(error).__name__
    text = "" if isinstance(error, DeliveryError) else str(error)
    return f"{name}: {text}" if text and text != "None" else name


def unexpected(error: BaseException) -> str | None:
    """A word for the metric, if *error* is not one that is expected here; else None."""
    row = known(error)
    if row is None:
        return label_of(error)
    return str(row.name) if row.meaning is Meaning.UNEXPECTED else None


def outcome_of(error: BaseException, *, unroutable: str = "reject") -> Outcome:
    """What *error*, which ended a batch, says of its records. What is in no table is unknown."""
    row = known(error)
    detail = detail_of(error)
    if row is None:
        return Unknown(fault=Fault.PARTITION, detail=detail)
    if row.meaning is Meaning.REJECTED:
        if row.code == "MessageTooLarge":
            return Rejected(reason=RejectReason.TOO_LARGE, detail=detail)
        if unroutable == "reject":
            return Rejected(reason=RejectReason.UNROUTABLE, detail=detail)
        return Unknown(fault=Fault.TOPIC, detail=detail)
    return Unknown(
        fault=fault_of(row),
        detail=detail,
        kind=_KINDS.get(str(row.code), FailureKind.UNKNOWN),
    )


def worst(outcomes: list[Outcome]) -> Outcome:
    """
    What to say of a batch whose records ended so: what may be stored is unknown before it is refused.

    >>> worst([Acked(), Acked()])
    Acked()
    """
    found: Outcome = Acked()
    for outcome in outcomes:
        if isinstance(outcome, Unknown):
            return outcome
        if isinstance(outcome, Rejected):
            found = outcome
    return found
