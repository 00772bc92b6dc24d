"""
Keeps a transaction from committing without an event that was meant to be in it.

Two mistakes are caught: an `add` on an async handle that nobody awaited, and an `add` whose INSERT
failed while the caller went on to commit. Either makes the commit raise, and nothing is committed,
until the transaction (or the SAVEPOINT around the mistake) is rolled back. Nothing is written here.

The listeners only look whether anything is noted at all, which is nearly never. Notes belong to a
session, or to a connection if the session is bound to one: its owner commits. A note's `level` says
which SAVEPOINT it was made in: the depth within a session, the running number on a connection.

The same listeners let `hints` forget whom to tell of a commit when there is a rollback instead.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final
from weakref import ReferenceType, WeakKeyDictionary, WeakSet, ref

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine, Transaction
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.sql.dml import Insert

from outbox_relay.errors import AddNotAwaited, WriteError
from outbox_relay.outbox import hints
from outbox_relay.wake import Sender

_NOT_AWAITED: Final = (
    "outbox.add(...) was not awaited, so nothing was committed: roll back, and write "
    "`await outbox.add(...)`"
)
_FAILED: Final = (
    "its INSERT failed in this transaction, so a commit would keep the state change without the "
    "event: roll back; to go on after a failure, wrap the add in a SAVEPOINT (begin_nested) and roll "
    "that back"
)
_QUEUED: Final = (
    "it is queued in a repository and not written, so nothing was committed: roll back, and commit "
    "with `await repository.commit(session)`"
)


@dataclass(slots=True, eq=False)
class Note:
    """Why the transaction must not commit. Settled: awaited after all, or rolled back."""

    error: type[WriteError]
    label: object
    reason: str
    level: int
    owner: ReferenceType[Session | Connection]
    session: ReferenceType[Session] | None
    is_settled: bool = False

    @property
    def text(self) -> str:
        """Which event it is about, and what to do."""
        return f"{self.label}: {self.reason}"

    def complaint(self) -> WriteError:
        """What the commit raises."""
        return self.error(self.text)


# Weak: a session that is thrown away takes its notes along.
_notes: WeakKeyDictionary[Session | Connection, list[Note]] = WeakKeyDictionary()
_watched: WeakSet[Engine] = WeakSet()
_lock = threading.RLock()
_sessions_watched = False


def expect_await(handle: Session | Connection, statement: Insert, label: object) -> Note:
    """Note that *handle* must not commit until the caller settles the note."""
    return _note(handle, statement, AddNotAwaited, label, _NOT_AWAITED)


def note_failure(handle: Session | Connection, statement: Insert, label: object) -> None:
    """Note that *handle* must not commit before a rollback: the INSERT has failed."""
    _note(handle, statement, WriteError, label, _FAILED)


def expect_own_commit(handle: Session, statement: Insert, label: object) -> Note:
    """Note that *handle* must not commit by itself: the event is queued and not yet written."""
    return _note(handle, statement, WriteError, label, _QUEUED)


def fulfil(notes: Collection[Note]) -> None:
    """What *notes* ask for is done: they do not stand against a commit any more."""
    _settle(lambda _, other: other in notes)


def settle(note: Note) -> None:
    """The add is being awaited. Raises AddNotAwaited if its transaction was rolled back."""
    if note.is_settled:
        raise AddNotAwaited(f"{note.text} (it was awaited only after its transaction had ended)")
    with _lock:
        owner = note.owner()
        if owner is not None and note in (notes := _notes.get(owner, [])):
            note.is_settled = True
            notes.remove(note)
            if not notes:
                del _notes[owner]


def connection_or_engine(handle: Session | Connection, statement: Insert) -> Connection | Engine:
    """What *handle* would execute *statement* on, found without I/O."""
    if isinstance(handle, Connection):
        return handle
    bind = handle.get_bind(clause=statement)
    return bind if isinstance(bind, Connection) else _connections(handle).get(bind, bind)


def tell_after_commit(connection: Connection, sender: Sender) -> None:
    """The outermost commit of what *connection* has written is to be followed by a hint."""
    hints.watch_commits(_watch(connection.engine))
    hints.note(connection, sender, _savepoint_number(connection))


def _note(
    handle: Session | Connection,
    statement: Insert,
    error: type[WriteError],
    label: object,
    reason: str,
) -> Note:
    if isinstance(handle, Session):
        bind, session = handle.get_bind(clause=statement), ref(handle)
        owner: Session | Connection = bind if isinstance(bind, Connection) else handle
    else:
        bind, session, owner = handle, None, handle
    _watch(bind.engine)
    level = _savepoint_number(owner) if isinstance(owner, Connection) else _depth_now(owner)
    note = Note(error, label, reason, level, ref(owner), session)
    with _lock:
        _notes.setdefault(owner, []).append(note)
    return note


def _watch(engine: Engine) -> Engine:
    global _sessions_watched  # noqa: PLW0603 - listeners are added once in a process
    # Engines made by execution_options() share the listeners of the first one; a listener for each
    # of them would pile up.
    root: Engine = getattr(engine, "_proxied", engine)
    if root in _watched:
        return root
    with _lock:
        if not _sessions_watched:
            event.listen(Session, "before_commit", _before_commit)
            event.listen(Session, "after_commit", _after_commit)
            event.listen(Session, "after_transaction_end", _after_transaction_end)
            _sessions_watched = True
        if root not in _watched:
            event.listen(root, "commit", _on_commit)
            event.listen(root, "prepare_twophase", _on_prepare_twophase)
            event.listen(root, "commit_twophase", _on_commit_twophase)
            event.listen(root, "rollback", _on_rollback)
            event.listen(root, "rollback_twophase", _on_rollback_twophase)
            event.listen(root, "rollback_savepoint", _on_rollback_savepoint)
            _watched.add(root)
    return root


def _before_commit(session: Session) -> None:
    # Also called when a SAVEPOINT is released, which commits nothing.
    if not _notes or session.in_nested_transaction():
        return
    with _lock:
        for owner, notes in _notes.items():
            for note in notes:
                if owner is session or (note.session is not None and note.session() is session):
                    raise note.complaint()


def _on_commit(connection: Connection) -> None:
    note = _settle_all_on(connection) if _notes else None
    if note is not None:
        hints.forget(connection)
        # SQLAlchemy takes the transaction for ended when a listener raises. Left open, it would go
        # back to the pool, and the next user would commit it without the event.
        _roll_back(connection)
        raise note.complaint()


def _on_commit_twophase(connection: Connection, xid: Any, is_prepared: bool) -> None:
    note = _settle_all_on(connection) if _notes else None
    if note is not None:
        with suppress(Exception):
            connection.dialect.do_rollback_twophase(connection, xid, is_prepared)
        connection.invalidate()
        raise note.complaint()


def _on_prepare_twophase(connection: Connection, xid: Any) -> None:
    _on_commit_twophase(connection, xid, is_prepared=False)


def _on_rollback(connection: Connection) -> None:
    hints.forget(connection)
    if _notes:
        _settle_all_on(connection)


def _on_rollback_twophase(connection: Connection, _xid: Any, _is_prepared: bool) -> None:
    hints.forget(connection)
    if _notes:
        _settle_all_on(connection)


def _on_rollback_savepoint(connection: Connection, name: str, _context: None) -> None:
    # Numbers only grow: whatever was noted within this SAVEPOINT has its number or a later one.
    number = _number(name)
    hints.forget(connection, number)
    if _notes:
        _settle(lambda owner, note: owner is connection and note.level >= number)


def _after_commit(session: Session) -> None:
    if _notes:
        # Of a SAVEPOINT too: what was noted inside belongs to what is around it from now on.
        depth = _depth_now(session)
        with _lock:
            for note in _notes.get(session, ()):
                note.level = min(note.level, max(depth - 1, 0))


def _after_transaction_end(session: Session, transaction: SessionTransaction) -> None:
    if _notes and (transaction.parent is None or transaction.nested):
        depth = _depth(transaction)
        _settle(lambda owner, note: owner is session and note.level >= depth)


def _settle_all_on(connection: Connection) -> Note | None:
    return _settle(lambda owner, _: _is_on(owner, connection))


def _settle(is_done: Callable[[Session | Connection, Note], bool]) -> Note | None:
    """Settle the notes for which *is_done*. Returns the first of them."""
    first: Note | None = None
    with _lock:
        for owner, notes in list(_notes.items()):
            done = [note for note in notes if is_done(owner, note)]
            for note in done:
                note.is_settled = True
                notes.remove(note)
                first = first or note
            if done and not notes:
                del _notes[owner]
    return first


def _is_on(owner: Session | Connection, connection: Connection) -> bool:
    if isinstance(owner, Connection):
        return owner is connection
    return connection in _connections(owner).values()


def _connections(session: Session) -> dict[Any, Connection]:
    return {bind: entry[0] for bind, entry in held_by(session).items()}


def held_by(session: Session) -> Mapping[Any, tuple[Connection, Transaction, bool, bool]]:
    """By bind: the connections of *session*, their transactions, who commits them, and who closes them."""
    # SQLAlchemy has no public way to ask without connecting. Without it, the guard still works for
    # session.commit(), and a session's AUTOCOMMIT is seen when the add is awaited.
    held: Mapping[Any, tuple[Connection, Transaction, bool, bool]] = getattr(
        session.get_transaction(), "_connections", {}
    )
    return held


def _roll_back(connection: Connection) -> None:
    if connection.closed or connection.invalidated:
        return
    try:
        connection.dialect.do_rollback(connection.connection)
    except Exception:  # noqa: BLE001 - whatever it was, a dropped connection commits nothing
        with suppress(Exception):
            connection.invalidate()


def _depth_now(session: Session) -> int:
    return _depth(session.get_nested_transaction())


def _depth(transaction: SessionTransaction | None) -> int:
    depth = 0
    while transaction is not None:
        depth += transaction.nested
        transaction = transaction.parent
    return depth


def _savepoint_number(connection: Connection) -> int:
    return _number(getattr(connection.get_nested_transaction(), "_savepoint", ""))


def _number(name: str) -> int:
    digits = name.rpartition("_")[2]
    return int(digits) if digits.isdecimal() else 0
