"""
What becomes of a handler's error: try again, and when, or give the record up. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

OUTAGES: Final[tuple[type[BaseException], ...]] = (
    ConnectionError,
    TimeoutError,
    sa.exc.OperationalError,
    sa.exc.InterfaceError,
    sa.exc.DisconnectionError,
    sa.exc.TimeoutError,
)
"""Errors that say nothing about the record: a database or a service is away, or two met in a deadlock."""

_STATES: Final = ("08", "28", "40", "53", "55P03", "57", "58", "25006")
"""
What PostgreSQL says then, by code or class of codes: no connection, a log-in, a deadlock or a conflict of
snapshots, no room, a lock, a shutdown, a failing disk; 25006: a standby, which only reads.
"""


def is_outage(error: BaseException, outages: tuple[type[BaseException], ...] = OUTAGES) -> bool:
    """
    Whether *error* is one of *outages*, or a group of nothing else.

    asyncpg has no OperationalError: what PostgreSQL would have other drivers raise as one counts as one
    here, and so does every error after which SQLAlchemy gives the connection up.

    >>> is_outage(ExceptionGroup("", [TimeoutError()])), is_outage(ValueError())
    (True, False)
    """
    if isinstance(error, BaseExceptionGroup):
        return all(is_outage(each, outages) for each in error.exceptions)
    if isinstance(error, outages):
        return True
    if not issubclass(sa.exc.OperationalError, outages):
        return False
    if isinstance(error, sa.exc.DBAPIError) and error.connection_invalidated:
        return True
    state = getattr(getattr(error, "orig", error), "sqlstate", None)
    return isinstance(state, str) and state.startswith(_STATES)


@dataclass(frozen=True, slots=True)
class Again:
    """Hand the record to its handler again."""

    after_seconds: float
    attempts: int
    """Failures so far that count against the record."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The record has used up its attempts, or no attempt can help."""

    attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """
    How often a record is handed to its handler, and how long is waited in between.

    * attempts: after so many failures it is given up; errors in *outages* count none, however long
      they last, see `is_outage`
    * initial_seconds, max_seconds: the wait doubles from the one to the other, up to half of it by chance
    """

    attempts: int = 5
    initial_seconds: float = 0.2
    max_seconds: float = 30.0
    outages: tuple[type[BaseException], ...] = OUTAGES

    def __post_init__(self) -> None:
        if self.attempts < 1 or not 0 < self.initial_seconds <= self.max_seconds:
            raise ValueError(
                f"attempts = {self.attempts} must be at least 1, and initial_seconds = "
                f"{self.initial_seconds} above 0 and at most max_seconds = {self.max_seconds}"
            )

    def decide(
        self, error: BaseException, *, attempts: int, failures: int, chance: float
    ) -> Again | GiveUp:
        """
        After *error*: the record had failed *attempts* times by its own fault, *failures* times in all.

        >>> Retries(attempts=2).decide(ValueError(), attempts=1, failures=1, chance=0.0)
        GiveUp(attempts=2)
        """
        if not is_outage(error, self.outages):
            attempts += 1
        if attempts >= self.attempts:
            return GiveUp(attempts)
        return Again(self.delay_seconds(failures, chance), attempts)

    def delay_seconds(self, failures: int, chance: float) -> float:
        """
        The wait after one more failure than *failures*; *chance* is from 0 to 1.

        >>> Retries(initial_seconds=1, max_seconds=300).delay_seconds(failures=2, chance=0.0)
        4.0
        """
        whole: float = min(self.max_seconds, self.initial_seconds * 2.0 ** min(failures, 60))
        return whole * (1.0 - 0.5 * chance)
