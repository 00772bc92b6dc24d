"""
Every error of Kafka, of the databases and of the system has one place that says what it means.

``WRITE_ERROR_CODES=1 python -m pytest tests/unit/test_known_errors.py`` writes the page anew.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Iterable
from pathlib import Path

import pytest

from outbox_relay.brokers import amqp_codes, redis_codes
from outbox_relay.brokers.kafka_codes import ANSWERS, CLASSES
from outbox_relay.relay.known import (
    OPERATING_SYSTEM,
    Known,
    Meaning,
    by_code,
    label_of,
    of_the_system,
)
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
