"""What each error of Kafka and of its client means."""

from __future__ import annotations

import inspect

import pytest
from aiokafka import errors as kafka

from outbox_relay.brokers import kafka_errors
from outbox_relay.brokers.kafka_codes import ANSWERS, CLASSES
from outbox_relay.relay.known import (
    Meaning,
)
from outbox_relay.relay.outcomes import Acked, FailureKind, Fault, Rejected, RejectReason, Unknown


def classes_of(module: object) -> list[type[BaseException]]:
    found = [kind for _, kind in inspect.getmembers(module, inspect.isclass)]
    return [kind for kind in found if issubclass(kind, BaseException)]


def made(kind: type[BaseException]) -> BaseException:
    return kind.__new__(kind)


@pytest.mark.parametrize("kind", classes_of(kafka), ids=lambda kind: kind.__name__)
def test_every_class_of_aiokafka_is_in_the_table(kind: type[BaseException]) -> None:
    """
    By its code or by its name: a new release with a new class is noticed here.
    """
    if kind in (kafka.NoError, kafka.BrokerResponseError):
        return
    error = made(kind)

    assert kafka_errors.known(error) is not None


@pytest.mark.parametrize("code", range(-1, 140))
def test_every_answer_of_kafka_arrives_as_what_it_is(code: int) -> None:
    """
    The codes up to the newest that is known, and some that are not: those are counted, and unknown.
    """
    if code == 0:
        return
    in_table = {row.code: row for row in ANSWERS}
    error = kafka.for_code(code)()
    outcome = kafka_errors.outcome_of(error)

    if code not in in_table:
        assert outcome == Unknown(fault=Fault.PARTITION, detail="UNKNOWN_SERVER_ERROR (-1)")
        assert kafka_errors.unexpected(error) == "UNKNOWN_SERVER_ERROR"
        return
    row = in_table[code]
    assert error.errno == code
    assert (kafka_errors.unexpected(error) is None) == (row.meaning is not Meaning.UNEXPECTED)
    assert f"{row.name} ({code})" in getattr(outcome, "detail", f"{row.name} ({code})")


def test_only_a_few_answers_give_an_event_up() -> None:
    """
    I2, I8. A list that grows by mistake would turn an outage into dead letters.
    """
    rejected = {r.code for r in (*ANSWERS, *CLASSES) if r.meaning is Meaning.REJECTED}

    assert rejected == {10, 18, 87, "RecordTooLargeError"}
    for kind in (kafka.MessageSizeTooLargeError, kafka.RecordListTooLargeError):
        outcome = kafka_errors.outcome_of(kind())
        assert isinstance(outcome, Rejected)
        assert outcome.reason is RejectReason.TOO_LARGE


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (kafka.UnknownTopicOrPartitionError(), Fault.TOPIC),
        (kafka.TopicAuthorizationFailedError("t"), Fault.TOPIC),
        (kafka.for_code(76)(), Fault.TOPIC),
        (kafka.for_code(103)(), Fault.TOPIC),
        (kafka.NotEnoughReplicasError(), Fault.PARTITION),
        (kafka.OutOfOrderSequenceNumber(), Fault.PARTITION),
        (kafka.ProducerFenced(), Fault.PARTITION),
        (kafka.ClusterAuthorizationFailedError(), Fault.BROKER),
        (kafka.SaslAuthenticationFailed(), Fault.BROKER),
        (ConnectionRefusedError(111, "refused"), Fault.BROKER),
        (OSError(28, "No space left on device"), Fault.BROKER),
        (ValueError("whatever a library raises"), Fault.PARTITION),
    ],
    ids=lambda value: type(value).__name__,
)
def test_how_far_a_trouble_reaches(error: BaseException, fault: Fault) -> None:
    """
    I7. What is wrong with a topic pauses the topic; what is wrong with everything, everything.
    """
    outcome = kafka_errors.outcome_of(error)

    assert isinstance(outcome, Unknown)
    assert outcome.fault is fault


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (kafka.UnknownTopicOrPartitionError(), FailureKind.UNKNOWN_TOPIC),
        (kafka.InvalidTopicError(), FailureKind.UNKNOWN_TOPIC),
        (kafka.TopicAuthorizationFailedError("t"), FailureKind.AUTH),
        (kafka.ClusterAuthorizationFailedError(), FailureKind.AUTH),
        (kafka.SaslAuthenticationFailed(), FailureKind.AUTH),
        (kafka.for_code(53)(), FailureKind.AUTH),
        (kafka.NotEnoughReplicasError(), FailureKind.RETRY),
        (kafka.LeaderNotAvailableError(), FailureKind.RETRY),
        (kafka.RequestTimedOutError(), FailureKind.UNKNOWN),
        (ConnectionRefusedError(111, "refused"), FailureKind.UNKNOWN),
        (ValueError("whatever a library raises"), FailureKind.UNKNOWN),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_the_metrics_call_it(error: BaseException, kind: FailureKind) -> None:
    """
    The kind is what the broker said; where it said nothing of use, it is unknown.
    """
    outcome = kafka_errors.outcome_of(error)

    assert isinstance(outcome, Unknown)
    assert outcome.kind is kind


def test_a_duplicate_sequence_is_an_ack() -> None:
    """
    The broker has the batch from a try whose answer was lost.
    """
    assert kafka_errors.outcome_of(kafka.DuplicateSequenceNumber()) == Acked()


def test_a_missing_right_to_the_cluster_is_told() -> None:
    """
    A producer that may not have a number does not even start: "does not answer" would mislead.
    """
    refused = kafka.ClusterAuthorizationFailedError()

    assert kafka_errors.refusal_of(refused) == (
        "CLUSTER_AUTHORIZATION_FAILED (31): no right to IdempotentWrite, or to the cluster"
    )
    assert kafka_errors.refusal_of(kafka.KafkaConnectionError()) is None


def test_an_answer_that_aiokafka_does_not_know_gets_a_class(monkeypatch) -> None:
    """
    I2. INVALID_RECORD would else be published for ever. Classes of aiokafka's own stay what they are.
    """
    known_one = kafka.MessageSizeTooLargeError
    [row] = [row for row in ANSWERS if row.code == 87]
    monkeypatch.setattr(kafka, "kafka_errors", {10: known_one})
    kafka_errors._register()
    made = kafka.kafka_errors[87]

    assert issubclass(made, kafka.BrokerResponseError)
    assert (made.__name__, made.errno, made.message, made.description) == (
        "INVALID_RECORD",
        87,
        "INVALID_RECORD",
        row.why,
    )
    assert kafka.kafka_errors.keys() == {row.code for row in ANSWERS}
    assert kafka.kafka_errors[10] is known_one


class NewAnswer(kafka.BrokerResponseError):
    """As a later aiokafka may have it."""

    errno = 9999


class NewClass(kafka.KafkaError):
    """The same, of the client."""


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (NewAnswer("secret"), "9999"),
        (NewClass("secret"), "NewClass"),
        (ValueError("secret"), "ValueError"),
        (kafka.UnknownError("secret"), "UNKNOWN_SERVER_ERROR"),
        (kafka.NotLeaderForPartitionError(), None),
    ],
    ids=repr,
)
def test_what_is_in_no_table_of_kafka_is_counted_by_code_or_class(error, word) -> None:
    """
    A class that aiokafka has and we do not is no KafkaError like the others.
    """
    assert kafka_errors.unexpected(error) == word


@pytest.mark.parametrize(
    ("error", "detail"),
    [
        (kafka.MessageSizeTooLargeError(), "MESSAGE_TOO_LARGE (10)"),
        (kafka.MessageSizeTooLargeError("5 bytes", 7), "MESSAGE_TOO_LARGE (10): 5 bytes, 7"),
        (NewAnswer("told"), "NewAnswer (9999): told"),
        (ValueError("told"), "ValueError: told"),
        (ValueError(), "ValueError"),
    ],
    ids=repr,
)
def test_what_is_told_of_an_error_of_kafka(error, detail) -> None:
    """
    Kafka's name and number first, by which operators find it; then what was said, if anything was.
    """
    outcome = kafka_errors.outcome_of(error)

    assert kafka_errors.detail_of(error) == detail
    assert isinstance(outcome, Unknown | Rejected)
    assert outcome.detail == detail


def test_a_record_that_breaks_a_rule_is_no_large_one() -> None:
    """
    An operator shortens the one and mends the other.
    """
    outcomes = [kafka_errors.outcome_of(kafka.for_code(code)()) for code in (10, 18, 87)]

    assert [outcome.reason for outcome in outcomes] == [
        RejectReason.TOO_LARGE,
        RejectReason.TOO_LARGE,
        RejectReason.INVALID_RECORD,
    ]


@pytest.mark.parametrize(
    ("error", "nowhere"),
    [
        (kafka.UnknownTopicOrPartitionError(), True),
        (kafka.NotEnoughReplicasError(), True),
        (kafka.NotEnoughReplicasAfterAppendError(), False),
        (kafka.NotLeaderForPartitionError(), False),
        (kafka.KafkaConnectionError(), False),
    ],
    ids=repr,
)
def test_only_some_answers_say_that_a_batch_is_stored_nowhere(error, nowhere) -> None:
    """
    I6. After any other the next producer might publish it a second time.
    """
    assert kafka_errors.is_stored_nowhere(error) is nowhere
