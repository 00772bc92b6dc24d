"""
The form of the tables of errors: what each one means, and where that is written.

Brokers and stores have a table each, of their own technology; what the operating system says is the
same for both. ``docs/reference/error-codes.md`` is made of them.
"""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

from outbox_relay.relay.outcomes import Fault


class Meaning(StrEnum):
    """What follows from an error."""

    ACKED = "acked"
    REJECTED = "rejected"
    PUBLISH_AGAIN = "unknown: publish again"
    PAUSE_TOPIC = "pause the topic"
    PAUSE_ALL = "everything waits"
    REPEAT = "repeat the statement"
    NEW_TERM = "new term"
    STOP = "stop and say why"
    UNEXPECTED = "unexpected: counted, and as unknown"


class Known(NamedTuple):
    """One error: its code, its name there, what it means to us and why, and where we have it from."""

    code: int | str
    name: str
    meaning: Meaning
    why: str
    source: str


_FAULTS = {Meaning.PAUSE_TOPIC: Fault.TOPIC, Meaning.PAUSE_ALL: Fault.BROKER}


def fault_of(known: Known) -> Fault:
    """
    How much an error that left a batch unknown says is broken: at the least, the partition.
    """
    return _FAULTS.get(known.meaning, Fault.PARTITION)


def by_code(rows: Iterable[Known]) -> dict[int | str, Known]:
    """
    The rows by their codes. A code that is there twice is an error in the table.
    """
    found: dict[int | str, Known] = {}
    for row in rows:
        assert row.code not in found, f"{row.code} is in the table twice"
        found[row.code] = row
    return found


_ERRNO = "errno(3)"
_ALL = Meaning.PAUSE_ALL

OPERATING_SYSTEM: tuple[Known, ...] = (
    *(
        Known(name, name, _ALL, why, _ERRNO)
        for name, why in (
            ("ECONNREFUSED", "nobody listens there (yet)"),
            ("ECONNRESET", "the other end is gone: what was under way is unknown"),
            ("ECONNABORTED", "the same"),
            ("EPIPE", "the same"),
            ("ENOTCONN", "the same"),
            ("ETIMEDOUT", "no answer to the connection's packets"),
            ("EHOSTUNREACH", "no way to the host"),
            ("EHOSTDOWN", "the host does not answer"),
            ("ENETUNREACH", "no way to its network"),
            ("ENETDOWN", "our own network is down"),
            ("EADDRNOTAVAIL", "no port is left for one more connection"),
            ("EMFILE", "the process has too many files and connections open"),
            ("ENFILE", "the machine has"),
            ("ENOBUFS", "the machine has no memory for the connection"),
            ("ENOMEM", "the machine has no memory"),
            ("ENOSPC", "the disk is full"),
            ("EDQUOT", "the user's share of the disk is full"),
            ("EIO", "the disk fails"),
            ("EROFS", "the disk only reads"),
            ("ENOENT", "a file or socket is not there (yet): a secret that is being replaced"),
            ("ENOTDIR", "the same"),
            ("EISDIR", "a folder where a secret should be"),
            ("EACCES", "the relay's user may not read or connect"),
            ("EPERM", "a firewall, or rights that are missing"),
            ("EINTR", "a signal came in between"),
            ("EAGAIN", "not now"),
        )
    ),
    Known(
        "EADDRINUSE",
        "EADDRINUSE",
        Meaning.STOP,
        "the port of metrics and health is taken: only another setting helps",
        _ERRNO,
    ),
    Known(
        "gaierror", "socket.gaierror", _ALL, "the host's name is not known (now)", "getaddrinfo(3)"
    ),
    Known(
        "SSLError",
        "ssl.SSLError",
        _ALL,
        "certificates are replaced while we run: they are read again for each connection",
        "Python: ssl",
    ),
    Known(
        "TimeoutError", "TimeoutError", _ALL, "no answer within our own limit", "Python: asyncio"
    ),
    Known(
        "EOFError",
        "EOFError",
        _ALL,
        "the other end closed the connection in the middle of an answer",
        "Python: asyncio",
    ),
)

_SYSTEM = by_code(OPERATING_SYSTEM)
_NUMBERS = {number: _SYSTEM[name] for number, name in errno.errorcode.items() if name in _SYSTEM}


def of_the_system(error: BaseException | None) -> Known | None:
    """What the operating system or the network said; None if it is not in the table."""
    if isinstance(error, ssl.SSLError):
        return _SYSTEM["SSLError"]
    if isinstance(error, socket.gaierror):
        return _SYSTEM["gaierror"]
    if isinstance(error, OSError) and error.errno is not None:
        return _NUMBERS.get(error.errno)
    if isinstance(error, TimeoutError):
        return _SYSTEM["TimeoutError"]
    if isinstance(error, EOFError):
        return _SYSTEM["EOFError"]
    if isinstance(error, ConnectionError):
        return _SYSTEM["ECONNRESET"]
    return None


def label_of(error: BaseException, code: int | str | None = None) -> str:
    """
    A word for a metric's label: the code, or the class. Never the text: it may hold anything.

    >>> label_of(ValueError("secret")), label_of(ValueError(), 1064)
    ('ValueError', '1064')
    """
    return type(error).__name__ if code is None else str(code)
