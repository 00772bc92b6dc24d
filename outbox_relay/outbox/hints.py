"""
Who is to be told of a commit: noted on the connection, told right after its COMMIT.

SQLAlchemy's events come before the COMMIT and never after it on a plain connection, and a session's
also when a SAVEPOINT is released. So the dialect's own commit is wrapped, once for each engine: it is
what every handle's outermost commit calls, whoever calls it. The notes lie in the connection's
`info`; a rollback, also of the SAVEPOINT that they were made in, takes them away.
"""

from __future__ import annotations

import threading
from typing import Any, Final
from weakref import WeakSet

from sqlalchemy.engine import Connection, Engine

from outbox_relay.wake import Sender

_NOTES: Final = "outbox_relay.hints"
_watched: WeakSet[Engine] = WeakSet()
_lock = threading.Lock()


def note(connection: Connection, sender: Sender, savepoint: int) -> None:
    """*sender* is to send a hint when *connection* commits what it has written."""
    notes = connection.info.setdefault(_NOTES, {})
    # The outermost SAVEPOINT counts: what was written there stays when an inner one is undone.
    notes[sender] = min(savepoint, notes.get(sender, savepoint))


def forget(connection: Connection, from_savepoint: int = 0) -> None:
    """What was written since *from_savepoint* is rolled back."""
    if connection.closed or connection.invalidated:
        return
    notes = connection.info.get(_NOTES)
    if notes:
        for sender in [sender for sender, level in notes.items() if level >= from_savepoint]:
            del notes[sender]


def watch_commits(engine: Engine) -> None:
    """Send the hints of each connection of *engine*, which shares its dialect, after its commits."""
    if engine in _watched:
        return
    with _lock:
        if engine not in _watched:
            _wrap_commits(engine.dialect)
            _watched.add(engine)


def _wrap_commits(dialect: Any) -> None:
    do_commit, do_commit_twophase = dialect.do_commit, dialect.do_commit_twophase

    def commit_and_tell(pooled: Any) -> None:
        notes = _taken(pooled)
        do_commit(pooled)
        _tell(notes)

    def commit_twophase_and_tell(connection: Any, *args: Any, **kwargs: Any) -> None:
        notes = _taken(connection)
        do_commit_twophase(connection, *args, **kwargs)
        _tell(notes)

    dialect.do_commit = commit_and_tell
    dialect.do_commit_twophase = commit_twophase_and_tell


def _taken(connection: Any) -> dict[Sender, int] | None:
    # A failed commit tells nobody: what it wrote is rolled back, or nobody knows.
    info = getattr(connection, "info", None)
    return info.pop(_NOTES, None) if info else None


def _tell(notes: dict[Sender, int] | None) -> None:
    for sender in notes or ():
        sender.send()
