"""
Which tables a release serves, and how ids and instants are kept by each database.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy.dialects import mysql, postgresql, sqlite

from outbox_relay.schema import (
    OLDEST_SUPPORTED_VERSION,
    SCHEMA_VERSION,
    EventIdType,
    InstantType,
    schema_problem,
)

ID = uuid.UUID("018f4e5a-1b2c-7d3e-8f40-112233445566")


@pytest.mark.parametrize(
    ("version", "min_reader", "said"),
    [
        (None, None, "do not exist"),
        (SCHEMA_VERSION, None, "do not exist"),
        (OLDEST_SUPPORTED_VERSION - 1, 1, "or later: run `outbox-relay migrate`"),
        (SCHEMA_VERSION + 5, SCHEMA_VERSION + 1, "upgrade outbox-relay"),
    ],
)
def test_tables_that_do_not_fit_say_what_to_do(version, min_reader, said) -> None:
    """
    Missing, too old, or too new for this release.
    """
    assert said in schema_problem(version, min_reader)


@pytest.mark.parametrize(
    ("version", "min_reader"),
    [
        (OLDEST_SUPPORTED_VERSION, 1),
        (SCHEMA_VERSION, SCHEMA_VERSION),
        (SCHEMA_VERSION + 5, SCHEMA_VERSION),
    ],
)
def test_older_and_newer_tables_are_served(version, min_reader) -> None:
    """
    A rolling deploy never breaks: what counts is whom the tables let read.
    """
    assert schema_problem(version, min_reader) is None


@pytest.mark.parametrize("dialect", [mysql.dialect(), postgresql.dialect(), sqlite.dialect()])
def test_an_event_id_comes_back(dialect) -> None:
    """
    16 bytes, or a uuid where the database has that type; nothing stays nothing.
    """
    kind = EventIdType()
    stored = kind.process_bind_param(ID, dialect)

    assert stored == (ID if dialect.name == "postgresql" else ID.bytes)
    assert kind.process_result_value(stored, dialect) == ID
    assert kind.process_bind_param(None, dialect) is None
    assert kind.process_result_value(None, dialect) is None
    assert kind.load_dialect_impl(dialect) is not None


def test_an_instant_is_utc() -> None:
    """
    Without a zone it is taken as UTC; with one it is turned into UTC on its way back.
    """
    kind, dialect = InstantType(), postgresql.dialect()
    elsewhere = datetime(2026, 1, 2, 5, tzinfo=timezone(timedelta(hours=2)))
    naive = elsewhere.astimezone(UTC).replace(tzinfo=None)

    assert kind.process_bind_param(naive, dialect) == naive.replace(tzinfo=UTC)
    assert kind.process_bind_param(elsewhere, dialect) == elsewhere
    assert kind.process_result_value(elsewhere, dialect) == naive
    assert kind.process_bind_param(None, dialect) is None
    assert kind.process_result_value(None, dialect) is None
