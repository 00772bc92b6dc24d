"""From what Redis and redis-py say to an outcome, by the tables of `redis_codes`."""

from __future__ import annotations

from redis.exceptions import ResponseError

from outbox_relay.brokers.redis_codes import ANSWERS, CLASSES
from outbox_relay.relay.known import Known, Meaning, by_code, fault_of, label_of, of_the_system
from outbox_relay.relay.outcomes import FailureKind, Fault, Outcome, Rejected, RejectReason, Unknown

_ANSWERS = by_code(ANSWERS)
_CLASSES = by_code(CLASSES)
_KINDS = {
    "NOPERM": FailureKind.AUTH,
    "NOAUTH": FailureKind.AUTH,
    "NoPermissionError": FailureKind.AUTH,
    "AuthenticationError": FailureKind.AUTH,
    "WRONGPASS": FailureKind.AUTH,
}


class TooFewReplicas(Exception):
    """Fewer replicas than wanted have the entries."""


class TooFewReceivers(Exception):
    """Fewer subscribers than wanted took the message."""


def word_of(error: BaseException) -> str | None:
    """
    The first word of an answer of the server, by which Redis tells its errors apart.

    redis-py takes some of them away where it has a class for it.

    >>> word_of(ResponseError("OOM command not allowed when used memory > 'maxmemory'."))
    'OOM'
    """
    if not isinstance(error, ResponseError):
        return None
    return str(error).partition(" ")[0]


def known(error: BaseException) -> Known | None:
    """The row of *error*: by its first word, else of the nearest class; None if it is in no table."""
    row = _ANSWERS.get(word_of(error) or "")
    if row is not None:
        return row
    if type(error).__module__.partition(".")[0] in ("redis", "outbox_relay"):
        for kind in type(error).__mro__:
            if (row := _CLASSES.get(kind.__name__)) is not None:
                return row
    return of_the_system(error)


def detail_of(error: BaseException) -> str:
    """What to tell of *error*: nothing of a record."""
    # Of a command that it does not know the server repeats the arguments, and so the payload.
    text = str(error).partition(", with args beginning with")[0]
    word = word_of(error)
    if word in _ANSWERS:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def unexpected(error: BaseException) -> str | None:
    """A word for the metric, if *error* is not one that is expected here; else None."""
    row = known(error)
    if row is None or row.code == "ResponseError":
        return label_of(error, word_of(error))
    return str(row.name) if row.meaning is Meaning.UNEXPECTED else None


def outcome_of(error: BaseException) -> Outcome:
    """What *error*, which ended a batch, says of its records. What is in no table is unknown."""
    row = known(error)
    detail = detail_of(error)
    if row is None:
        return Unknown(fault=Fault.PARTITION, detail=detail)
    if row.meaning is Meaning.REJECTED:
        return Rejected(reason=RejectReason.UNREADABLE, detail=type(error).__name__)
    return Unknown(
        fault=fault_of(row),
        detail=detail,
        kind=_KINDS.get(str(row.code), FailureKind.UNKNOWN),
    )
