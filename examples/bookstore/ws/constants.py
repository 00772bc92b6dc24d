"""The numbers on the wire. A number that was in use is never given to anything else."""

from __future__ import annotations

from enum import IntEnum
from typing import Final
from uuid import UUID

NO_REQUEST: Final = UUID(int=0)
"""`req_id` of a frame that answers no request: a broadcast, or an error about an unreadable frame."""


class PkgID(IntEnum):
    """What a frame is about."""

    UNREADABLE = 0
    GET_AUTHORS = 1
    GET_PAGINATED_AUTHORS = 2
    CREATE_BOOK = 3
    GET_BOOKS = 4
    UPDATE_BOOK = 5
    DELETE_BOOK = 6
    GET_BOOK = 7
    SELL_BOOK = 8
    CREATE_AUTHOR = 9

    BOOK_CREATED = 101
    BOOK_UPDATED = 102
    BOOK_DELETED = 103


class RSPCode(IntEnum):
    """How a request went."""

    OK = 0
    INVALID_DATA = 1
    ERROR = 2
    PERMISSION_DENIED = 3
    CONFLICT = 4


class CloseCode(IntEnum):
    """Why the server closes a connection (RFC 6455, section 7.4)."""

    SLOW_READER = 1013
