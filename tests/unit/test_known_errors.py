"""
Every error of Kafka, of the databases and of the system has one place that says what it means.

``WRITE_ERROR_CODES=1 python -m pytest tests/unit/test_known_errors.py`` writes the page anew.
"""

from __future__ import annotations

import errno
import inspect
import os
import socket
import sqlite3
import ssl
from collections.abc import Iterable
from pathlib import Path

import aio_pika.exceptions
import aiormq.exceptions
import asyncmy.errors
import asyncpg
import pytest
import redis.exceptions
import sqlalchemy as sa
from aiokafka import errors as kafka
from pymysql.constants import CR, ER

from outbox_relay.brokers import amqp_codes, amqp_errors, kafka_errors, redis_codes, redis_errors
from outbox_relay.brokers.kafka_codes import ANSWERS, CLASSES
from outbox_relay.relay.known import (
    OPERATING_SYSTEM,
    Known,
    Meaning,
    by_code,
    label_of,
    of_the_system,
)
from outbox_relay.relay.outcomes import Acked, Fault, Rejected, RejectReason, Unknown
from outbox_relay.store import known_errors

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "error-codes.md"

HEAD = """\
# Error codes

What each error means to the relay. It is made of the tables that the code reads: those of Kafka in
`outbox_relay/brokers/kafka_codes.py`, of RabbitMQ in `outbox_relay/brokers/amqp_codes.py`, of Redis in
`outbox_relay/brokers/redis_codes.py`, of the databases in `outbox_relay/store/known_errors.py`, of the
operating system in `outbox_relay/relay/known.py`. What the relay says to people is on the page
[Errors](errors.md).

- **acked**: the row is marked.
- **rejected**: the batch is split until the record stands alone; then it is a dead letter. Many in a row
  over distinct keys pause the topic instead.
- **unknown: publish again**: nobody can say whether the broker has the batch, or it has not. The same rows
  are published again, in order; their partition waits longer each time, and holds up no other. No event
  loses an attempt.
- **pause the topic**: its settings are at fault. Its rows wait, and it goes on by itself. Only after a
  broker has answered a question for metadata; else everything waits.
- **everything waits**: for what somebody mends elsewhere, rights and passwords too. Tried again and again.
- **repeat the statement**: on a new connection, with growing pauses.
- **new term**: every connection is given up, all that the relay remembers of the database is void, and
  the lease is taken anew.
- **stop and say why**: only a new start can help.
- **unexpected**, and whatever is in no table: as unknown (brokers) or as a repetition (databases), counted by
  `outbox_relay_unexpected_errors_total` and logged as `unexpected_error`.
"""


def table(title: str, rows: Iterable[Known]) -> str:
    """One section of the page."""
    lines = [
        f"\n## {title}\n",
        "| code | name | means | because | source |",
        "|---|---|---|---|---|",
    ]
    lines += [f"| `{r.code}` | {r.name} | {r.meaning} | {r.why} | {r.source} |" for r in rows]
    return "\n".join(lines) + "\n"


def page() -> str:
    return HEAD + "".join(
        table(title, rows)
        for title, rows in (
            ("Kafka: answers of a broker", ANSWERS),
            ("Kafka: errors of the client", CLASSES),
            ("RabbitMQ: errors of the client, with AMQP's names", amqp_codes.CLASSES),
            ("Redis: the first word of an answer", redis_codes.ANSWERS),
            ("Redis: errors of the client", redis_codes.CLASSES),
            ("MariaDB and MySQL", known_errors.MYSQL),
            ("PostgreSQL", known_errors.POSTGRESQL),
            ("SQLite", known_errors.SQLITE),
            ("Operating system", OPERATING_SYSTEM),
        )
    )


def test_the_page_is_made_of_the_tables() -> None:
    """
    docs/reference/error-codes.md says what the code does, word for word.
    """
    if os.environ.get("WRITE_ERROR_CODES"):
        PAGE.write_text(page(), encoding="utf-8")

    assert PAGE.read_text(encoding="utf-8") == page()


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


def test_a_duplicate_sequence_is_an_ack() -> None:
    """
    The broker has the batch from a try whose answer was lost.
    """
    assert kafka_errors.outcome_of(kafka.DuplicateSequenceNumber()) == Acked()


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


def mysql_errors() -> list[tuple[str, int]]:
    named = [(name, code) for module in (ER, CR) for name, code in vars(module).items()]
    return [(n, c) for n, c in named if isinstance(c, int) and not n.startswith("ERROR_")]


def wrapped(original: Exception) -> sa.exc.DBAPIError:
    return sa.exc.OperationalError("SELECT 1", None, original)


def test_every_error_of_mysql_is_in_the_table_or_counted() -> None:
    """
    With its code as the metric's word.
    """
    in_table = {row.code for row in known_errors.MYSQL}
    for _, code in mysql_errors():
        error = wrapped(asyncmy.errors.OperationalError(code, "text"))

        assert known_errors.unexpected(error) == (None if code in in_table else str(code))


def test_the_names_of_mysqls_errors_are_right() -> None:
    """
    As far as PyMySQL's constants know them.
    """
    names = {code: name for name, code in mysql_errors()}
    ours = {r.code: r.name.removeprefix("ER_").removeprefix("CR_") for r in known_errors.MYSQL}
    both = names.keys() & ours.keys()

    assert len(both) > 40
    assert {c: ours[c] for c in both} == {
        c: names[c].removeprefix("ER_").removeprefix("CR_") for c in both
    }


def test_every_error_of_postgresql_is_in_the_table_or_counted() -> None:
    """
    All SQLSTATEs of asyncpg, which are those of PostgreSQL's appendix A, and their names.
    """
    in_table = {row.code: row for row in known_errors.POSTGRESQL}
    seen = {}
    for kind in classes_of(asyncpg.exceptions):
        state = getattr(kind, "sqlstate", None)
        if state is None:
            continue
        seen[state] = kind
        error = wrapped(made(kind))
        assert known_errors.unexpected(error) == (None if state in in_table else state)

    assert in_table.keys() <= seen.keys()


@pytest.mark.parametrize(
    ("original", "meaning"),
    [
        (asyncmy.errors.OperationalError(1290, "read-only"), Meaning.NEW_TERM),
        (asyncmy.errors.InternalError(1792, "read-only"), Meaning.NEW_TERM),
        (asyncmy.errors.OperationalError(1836, "read-only"), Meaning.NEW_TERM),
        (asyncpg.ReadOnlySQLTransactionError("read-only"), Meaning.NEW_TERM),
        (asyncmy.errors.OperationalError(1213, "deadlock"), Meaning.REPEAT),
        (asyncmy.errors.OperationalError(1205, "lock wait"), Meaning.REPEAT),
        (asyncpg.SerializationError("not now"), Meaning.REPEAT),
        (asyncpg.DeadlockDetectedError("not now"), Meaning.REPEAT),
        (asyncmy.errors.OperationalError(2006, "gone away"), Meaning.REPEAT),
        (asyncpg.InterfaceError("connection is closed"), Meaning.REPEAT),
        (RuntimeError("Transport does not expose socket instance"), Meaning.REPEAT),
        (asyncmy.errors.OperationalError(1045, "denied"), Meaning.PAUSE_ALL),
        (asyncpg.InvalidPasswordError("denied"), Meaning.PAUSE_ALL),
        (asyncmy.errors.OperationalError(1040, "too many"), Meaning.PAUSE_ALL),
        (asyncpg.DiskFullError("full"), Meaning.PAUSE_ALL),
        (asyncmy.errors.OperationalError(1114, "full"), Meaning.PAUSE_ALL),
        (EOFError(), Meaning.PAUSE_ALL),
        (TimeoutError(), Meaning.PAUSE_ALL),
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_what_an_error_of_a_database_means(original: Exception, meaning: Meaning) -> None:
    """
    Also as SQLAlchemy wraps it.
    """
    for error in (original, wrapped(original)):
        row = known_errors.known(error)

        assert row is not None
        assert row.meaning is meaning


def test_a_missing_right_to_the_cluster_is_told() -> None:
    """
    A producer that may not have a number does not even start: "does not answer" would mislead.
    """
    refused = kafka.ClusterAuthorizationFailedError()

    assert kafka_errors.refusal_of(refused) == (
        "CLUSTER_AUTHORIZATION_FAILED (31): no right to IdempotentWrite, or to the cluster"
    )
    assert kafka_errors.refusal_of(kafka.KafkaConnectionError()) is None


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ssl.SSLCertVerificationError(1, "certificate verify failed"), "SSLError"),
        (socket.gaierror(-2, "Name or service not known"), "gaierror"),
        (OSError(errno.ENOSPC, "No space left on device"), "ENOSPC"),
        (TimeoutError(errno.ETIMEDOUT, "Connection timed out"), "ETIMEDOUT"),
        (TimeoutError(), "TimeoutError"),
        (EOFError(), "EOFError"),
        (ConnectionError("Connection lost"), "ECONNRESET"),
        (OSError(errno.EXDEV, "Invalid cross-device link"), None),
        (OSError("without a number"), None),
        (ValueError(errno.ENOSPC), None),
    ],
    ids=repr,
)
def test_what_the_system_said_is_told_by_number_or_by_class(error, code) -> None:
    """
    What has a number by its number; what is in no table is in none.
    """
    row = of_the_system(error)

    assert (row and row.code) == code


def test_a_code_that_is_twice_in_a_table_is_an_error_in_it() -> None:
    """
    The second one would take effect, whatever the page says of the first.
    """
    one = Known(1, "ONE", Meaning.REPEAT, "why", "source")
    two = one._replace(code=2)

    assert by_code([one, two]) == {1: one, 2: two}
    with pytest.raises(AssertionError, match="1 is in the table twice"):
        by_code([one, one])


def test_a_label_is_the_code_or_the_class() -> None:
    """
    I11. Never the text, which may hold anything.
    """
    assert label_of(ValueError("secret")) == "ValueError"
    assert label_of(ValueError("secret"), 0) == "0"
    assert label_of(ValueError("secret"), "42P01") == "42P01"


def test_a_line_of_a_table_is_code_name_word_and_why() -> None:
    """
    The codes of MySQL and SQLite are numbers; PostgreSQL's are not, though some look like one.
    """
    lines = "\n7 NAME repeat why it is so, in words\n"
    row = Known(7, "NAME", Meaning.REPEAT, "why it is so, in words", "source")

    assert list(known_errors._rows(lines, "source")) == [row]
    assert list(known_errors._rows(lines, known_errors._POSTGRESQL)) == [
        row._replace(code="7", source=known_errors._POSTGRESQL)
    ]


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


def sqlite_error(code: int) -> sqlite3.Error:
    error = sqlite3.OperationalError("text")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (sqlite3.SQLITE_BUSY, "SQLITE_BUSY"),
        (sqlite3.SQLITE_BUSY | 1 << 8, "SQLITE_BUSY"),
        (sqlite3.SQLITE_READONLY | 4 << 8, "SQLITE_READONLY"),
    ],
)
def test_an_extended_code_of_sqlite_means_what_its_last_byte_means(code: int, name: str) -> None:
    """
    SQLITE_BUSY_RECOVERY is SQLITE_BUSY; and 5 is no error of MySQL.
    """
    row = known_errors.known(wrapped(sqlite_error(code)))

    assert row is not None
    assert row.name == name


def caused(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (asyncpg.InterfaceError("connection was closed in the middle of operation"), "08003"),
        (
            asyncpg.InterfaceError("cannot perform operation: another operation is in progress"),
            "08003",
        ),
        (caused(asyncpg.InterfaceError("told otherwise"), TimeoutError()), "TimeoutError"),
        (caused(asyncpg.InterfaceError("told otherwise"), ValueError()), None),
        (asyncpg.InterfaceError("told otherwise"), None),
    ],
    ids=repr,
)
def test_an_error_of_asyncpg_without_a_code_is_the_connections(error, code) -> None:
    """
    By its words, else by what the system said before. What is neither is counted.
    """
    row = known_errors.known(wrapped(error))

    assert (row and row.code) == code
    assert known_errors.unexpected(wrapped(error)) == (None if code else "InterfaceError")
