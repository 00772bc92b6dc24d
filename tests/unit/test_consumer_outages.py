"""
Which errors of a handler say nothing about its record, and so cost no attempt.
"""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from outbox_relay.consumer.retries import OUTAGES, Again, GiveUp, Retries, is_outage


class Driver(Exception):
    """What asyncpg raises: no subclass of its own for an outage, but the server's code."""

    def __init__(self, sqlstate: str | None) -> None:
        super().__init__("told by the server")
        self.sqlstate = sqlstate


def wrapped(sqlstate: str | None, *, invalidated: bool = False) -> sa.exc.DBAPIError:
    return sa.exc.DBAPIError("SELECT", {}, Driver(sqlstate), connection_invalidated=invalidated)


@pytest.mark.parametrize(
    "state",
    ["08006", "28P01", "40001", "40P01", "53300", "55P03", "57P01", "57P03", "58030", "25006"],
)
def test_what_postgresql_says_counts_whatever_the_driver_makes_of_it(state: str) -> None:
    """
    I8. A start, a shutdown, a deadlock, no place, a standby: through SQLAlchemy, and by itself.
    """
    assert is_outage(wrapped(state))
    assert is_outage(Driver(state))


@pytest.mark.parametrize("state", ["23505", "22001", "42P01", "25P02", "", None])
def test_what_a_record_does_wrong_is_no_outage(state: str | None) -> None:
    """
    A constraint, a value that is too long, a table that is not there.
    """
    assert not is_outage(wrapped(state))
    assert not is_outage(Driver(state))


def test_a_connection_that_is_gone_is_an_outage() -> None:
    """
    Whatever class its error has: SQLAlchemy knows that it gave the connection up.
    """
    assert is_outage(wrapped(None, invalidated=True))


def test_a_group_is_an_outage_if_it_holds_nothing_else() -> None:
    """
    A handler with a TaskGroup raises its errors together.
    """
    away = ConnectionRefusedError()

    assert is_outage(ExceptionGroup("", [away, ExceptionGroup("", [wrapped("57P01")])]))
    assert not is_outage(ExceptionGroup("", [away, ValueError()]))


@pytest.mark.parametrize(
    ("outages", "expected"),
    [(OUTAGES, Again), ((sa.exc.OperationalError,), Again), ((), GiveUp), ((KeyError,), GiveUp)],
)
def test_the_setting_decides(outages: Any, expected: type) -> None:
    """
    Whoever takes databases out of `outages` wants their errors to count.
    """
    retries = Retries(attempts=1, outages=outages)

    said = retries.decide(wrapped("57P03"), attempts=0, failures=0, chance=0.0)

    assert isinstance(said, expected)


def test_the_wait_doubles_up_to_its_limit() -> None:
    """
    A service that is away is not asked a hundred times a second, nor all at the same moment.
    """
    retries = Retries(initial_seconds=1, max_seconds=5)

    assert [retries.delay_seconds(n, 0.0) for n in range(4)] == [1, 2, 4, 5]
    assert retries.delay_seconds(1_000_000, 1.0) == 2.5
