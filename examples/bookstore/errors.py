"""
What can go wrong with a command, and what the caller is told: one table for HTTP and WebSocket.

* BookstoreError
  + NotFound           the row that the command names does not exist
  + Conflict           the row is not as the caller believes: it has changed, or is sold out
  + PermissionDenied   a role is missing, or the token has expired
  + Unauthenticated    the token is not one of ours
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    InterfaceError,
    OperationalError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from examples.bookstore.ws.constants import RSPCode

logger: Final = logging.getLogger(__name__)


class BookstoreError(Exception):
    """Base of what the bookstore raises; its text is for the caller."""


class NotFound(BookstoreError):
    """The row that the command names does not exist."""


class Conflict(BookstoreError):
    """The row is not as the caller believes."""


class PermissionDenied(BookstoreError):
    """A role is missing, or the token has expired."""


class Unauthenticated(BookstoreError):
    """The token is not one of ours."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A failure in the words of both doors."""

    status: RSPCode
    http_status: int
    msg: str


def answer_to(error: Exception) -> Answer:
    """What the caller is told of *error*. Never a statement, a value or a trace of ours."""
    match error:
        case NotFound():
            return Answer(RSPCode.ERROR, 404, str(error))
        case Conflict():
            return Answer(RSPCode.CONFLICT, 409, str(error))
        case PermissionDenied():
            return Answer(RSPCode.PERMISSION_DENIED, 403, str(error))
        case Unauthenticated():
            return Answer(RSPCode.PERMISSION_DENIED, 401, str(error))
        case ValidationError() | RequestValidationError():
            return Answer(RSPCode.INVALID_DATA, 422, describe(error))
        case IntegrityError() | DataError():
            return Answer(RSPCode.INVALID_DATA, 409, _violated(error))
        case OperationalError() | InterfaceError() | PoolTimeoutError():
            logger.error("the database does not answer", exc_info=error)
            return Answer(RSPCode.ERROR, 503, "the database does not answer: try again later")
        case _:
            logger.error("a command failed", exc_info=error)
            return Answer(RSPCode.ERROR, 500, "internal error")


def describe(error: ValidationError | RequestValidationError) -> str:
    """One line: each field with what is wrong."""
    problems = []
    for problem in error.errors():
        field = ".".join(str(part) for part in problem["loc"] if part != "body")
        text = str(problem["msg"]).removeprefix("Value error, ")
        problems.append(f"{field}: {text}" if field else text)
    return "; ".join(problems)


def _violated(error: DBAPIError) -> str:
    text = str(error.orig).lower()
    # A duplicate's text may hold what the caller wrote, so it is looked at first.
    if "duplicate" in text or "unique" in text:
        return "there is one with this name or isbn already"
    if "foreign" in text:
        return "it refers to a row that does not exist, or others refer to it"
    return "the database refuses these values"
