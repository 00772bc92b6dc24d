"""What each error of RabbitMQ and Redis, and of their clients, means."""

from __future__ import annotations

import errno

import aio_pika.exceptions
import aiormq.exceptions
import pytest
import redis.exceptions

from outbox_relay.brokers import amqp_codes, amqp_errors, redis_codes, redis_errors
from outbox_relay.relay.known import (
    Meaning,
)
from outbox_relay.relay.outcomes import (
    Acked,
    FailureKind,
    Fault,
    Rejected,
    RejectReason,
    Unknown,
)
from tests.unit.test_known_errors_of_kafka import classes_of, made


def test_every_class_of_aio_pika_and_redis_py_is_in_its_table() -> None:
    """
    By its own name, or that of one above it which is not the base of them all.
    """
    ours = {row.code for row in amqp_codes.CLASSES}
    theirs = {k for m in (aiormq.exceptions, aio_pika.exceptions) for k in classes_of(m)}
    of_aiormq = {k.__name__ for k in theirs if k.__module__.startswith("aiormq")}
    of_redis = {k.__name__ for k in classes_of(redis.exceptions)}
    of_redis = {n for n in of_redis if n[0].isupper() and not hasattr(__builtins__, n)}

    assert of_aiormq - ours == set()
    assert of_redis - {row.code for row in redis_codes.CLASSES} <= {"Enum", "StrEnum"}


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (aiormq.exceptions.ChannelNotFoundEntity("no exchange"), Fault.TOPIC),
        (aiormq.exceptions.ChannelAccessRefused("no right"), Fault.TOPIC),
        (aiormq.exceptions.ChannelPreconditionFailed("a rule"), Fault.TOPIC),
        (aiormq.exceptions.DeliveryError(None, None), Fault.PARTITION),
        (aiormq.exceptions.ChannelInvalidStateError("closed"), Fault.PARTITION),
        (aiormq.exceptions.ConnectionClosed(320, "shutdown"), Fault.BROKER),
        (aiormq.exceptions.ConnectionInternalError("x"), Fault.BROKER),
        (aiormq.exceptions.AuthenticationError("no"), Fault.BROKER),
        (ConnectionResetError(errno.ECONNRESET, "reset"), Fault.BROKER),
        (ZeroDivisionError(), Fault.PARTITION),
    ],
    ids=lambda value: type(value).__name__,
)
def test_how_far_a_trouble_with_rabbitmq_reaches(error: BaseException, fault: Fault) -> None:
    """
    I7. As for Kafka; what is in no table is unknown, and counted.
    """
    outcome = amqp_errors.outcome_of(error)

    assert isinstance(outcome, Unknown)
    assert outcome.fault is fault
    assert (amqp_errors.unexpected(error) == "ZeroDivisionError") == isinstance(
        error, ZeroDivisionError
    )


def test_what_rabbitmq_refuses_for_good() -> None:
    """
    I7. What is too large, and what no queue takes, unless the setting says that it waits.
    """
    large = aiormq.exceptions.ChannelPreconditionFailed(
        "PRECONDITION_FAILED - message size 9 is larger than configured max size 8"
    )
    returned = made(aiormq.exceptions.PublishError)
    outcomes = [amqp_errors.outcome_of(error) for error in (large, returned)]

    assert [getattr(outcome, "reason", None) for outcome in outcomes] == [
        RejectReason.TOO_LARGE,
        RejectReason.UNROUTABLE,
    ]
    waiting = amqp_errors.outcome_of(returned, unroutable="pause")
    assert isinstance(waiting, Unknown)
    assert waiting.fault is Fault.TOPIC
    rejected = {r.code for r in amqp_codes.CLASSES if r.meaning is Meaning.REJECTED}
    assert rejected == {"MessageTooLarge", "PublishError"}


@pytest.mark.parametrize(
    ("error", "fault", "word"),
    [
        (redis.exceptions.ResponseError("MISCONF Redis is configured to"), Fault.BROKER, None),
        (redis.exceptions.ResponseError("NOREPLICAS Not enough good"), Fault.BROKER, None),
        (redis.exceptions.ResponseError("WRONGTYPE Operation against"), Fault.TOPIC, None),
        (redis.exceptions.OutOfMemoryError("command not allowed"), Fault.BROKER, None),
        (redis.exceptions.ReadOnlyError("You can't write"), Fault.BROKER, None),
        (redis.exceptions.NoPermissionError("No permissions"), Fault.TOPIC, None),
        (redis.exceptions.BusyLoadingError("loading"), Fault.BROKER, None),
        (redis.exceptions.AuthenticationError("wrong"), Fault.BROKER, None),
        (redis.exceptions.ConnectionError("gone"), Fault.BROKER, None),
        (redis.exceptions.ResponseError("NEWWORD of a later release"), Fault.PARTITION, "NEWWORD"),
        (redis.exceptions.LockError("never"), Fault.PARTITION, "LockError"),
        (redis_errors.TooFewReceivers("0 of 1"), Fault.TOPIC, None),
        (redis_errors.TooFewReplicas("0 of 1"), Fault.PARTITION, None),
        (ConnectionResetError(errno.ECONNRESET, "reset"), Fault.BROKER, None),
        (ZeroDivisionError(), Fault.PARTITION, "ZeroDivisionError"),
    ],
    ids=str,
)
def test_how_far_a_trouble_with_redis_reaches(
    error: BaseException, fault: Fault, word: str | None
) -> None:
    """
    I7. By the first word of an answer, else by the class; what is in no table is unknown, and counted.
    """
    outcome = redis_errors.outcome_of(error)

    assert isinstance(outcome, Unknown)
    assert outcome.fault is fault
    assert redis_errors.unexpected(error) == word


def test_a_batch_of_which_a_part_is_unknown_is_not_refused() -> None:
    """
    I2. Refused, it would be taken apart as if nobody doubted where the others are.
    """
    unknown = Unknown(fault=Fault.PARTITION, detail="basic.nack")
    refused = Rejected(reason=RejectReason.UNROUTABLE, detail="NO_ROUTE")

    assert amqp_errors.worst([Acked(), refused, unknown, Acked()]) is unknown
    assert amqp_errors.worst([refused, Acked()]) is refused


def test_what_the_metrics_call_them() -> None:
    """
    Rights and missing names apart; the rest is unknown.
    """
    kinds = {
        type(error).__name__: errors.outcome_of(error).kind
        for errors, error in (
            (amqp_errors, aiormq.exceptions.ChannelAccessRefused("no right")),
            (amqp_errors, aiormq.exceptions.AuthenticationError("no")),
            (amqp_errors, aiormq.exceptions.ChannelNotFoundEntity("no exchange")),
            (amqp_errors, aiormq.exceptions.ConnectionClosed(320, "shutdown")),
            (redis_errors, redis.exceptions.NoPermissionError("No permissions")),
            (redis_errors, redis.exceptions.ReadOnlyError("You can't write")),
        )
    }

    assert kinds == {
        "ChannelAccessRefused": FailureKind.AUTH,
        "AuthenticationError": FailureKind.AUTH,
        "ChannelNotFoundEntity": FailureKind.UNKNOWN_TOPIC,
        "ConnectionClosed": FailureKind.UNKNOWN,
        "NoPermissionError": FailureKind.AUTH,
        "ReadOnlyError": FailureKind.UNKNOWN,
    }
