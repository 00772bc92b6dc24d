"""What each error of the databases and of their drivers means."""

from __future__ import annotations

import sqlite3

import asyncmy.errors
import asyncpg
import pytest
import sqlalchemy as sa
from pymysql.constants import CR, ER

from outbox_relay.relay.known import (
    Meaning,
)
from outbox_relay.store import known_errors
from tests.unit.test_known_errors_of_kafka import classes_of, made


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
