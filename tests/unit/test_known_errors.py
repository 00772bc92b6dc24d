"""
Every error of Kafka, of the databases and of the system has one place that says what it means.

``WRITE_ERROR_CODES=1 python -m pytest tests/unit/test_known_errors.py`` writes the page anew.
"""

from __future__ import annotations

import errno
import inspect
import os
import socket
import ssl
from collections.abc import Iterable
from pathlib import Path

import asyncmy.errors
import asyncpg
import pytest
import sqlalchemy as sa
from aiokafka import errors as kafka
from pymysql.constants import CR, ER

from outbox_relay.brokers import kafka_errors
from outbox_relay.brokers.kafka_codes import ANSWERS, CLASSES
from outbox_relay.relay.known import OPERATING_SYSTEM, Known, Meaning, of_the_system
from outbox_relay.relay.outcomes import Acked, Fault, Rejected, RejectReason, Unknown
from outbox_relay.store import known_errors

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "error-codes.md"

HEAD = """\
# Error codes

What each error means to the relay. It is made of the tables that the code reads: those of Kafka in
`outbox_relay/brokers/kafka_codes.py`, of the databases in `outbox_relay/store/known_errors.py`, of the
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
- **unexpected**, and whatever is in no table: as unknown (Kafka) or as a repetition (databases), counted by
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
        (ssl.SSLCertVerificationError("expired"), Meaning.PAUSE_ALL),
        (socket.gaierror(socket.EAI_NONAME, "not known"), Meaning.PAUSE_ALL),
        (ConnectionError("gone"), Meaning.PAUSE_ALL),
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
    ("error", "name"),
    [
        (ssl.SSLError(1, "unknown ca"), "ssl.SSLError"),
        (socket.gaierror(socket.EAI_AGAIN, "try again"), "socket.gaierror"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), "ECONNREFUSED"),
        (ConnectionError("gone, without a number"), "ECONNRESET"),
    ],
)
def test_what_the_system_says_is_told_apart_by_its_class_first(error: OSError, name: str) -> None:
    """
    The numbers of TLS and of name servers are none of errno(3).
    """
    found = of_the_system(error)

    assert found is not None
    assert found.name == name
