"""
What SQLAlchemy tells of a session goes to the unit of work that it belongs to, which its `info` names.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from sqlalchemy import event
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session, SessionTransaction

from outbox_relay.cqrs.errors import CommitRefused
from outbox_relay.handles import driver_in_transaction, driver_knows_transactions
from outbox_relay.outbox.guard import held_by

UNIT: Final = "outbox_relay.unit_of_work"
"""Under which name a session's `info` has its unit of work."""


def listen() -> None:
    """Tell units of work, from now on; once in a process."""
    if not event.contains(Session, "before_commit", _before_commit):
        event.listen(Session, "before_commit", _before_commit)
        event.listen(Session, "after_commit", _after_commit)
        event.listen(Session, "after_soft_rollback", _after_soft_rollback)
        event.listen(Session, "after_transaction_end", _after_transaction_end)


def _before_commit(session: Session) -> None:
    unit = session.info.get(UNIT)
    # Also called when a SAVEPOINT is released, which commits nothing.
    if unit is None or unit.is_committing or session.in_nested_transaction():
        return
    raise CommitRefused(
        "this session belongs to a unit of work, which commits it together with its events: leave "
        "the commit out; whoever began the unit may take `await unit.commit()`"
    )


class _Ended:
    """In the place of a transaction that is over, in a connection that is being closed."""

    is_active = False

    def close(self) -> None:
        """Nothing is left to end."""


_ENDED: Final = _Ended()


def _after_commit(session: Session) -> None:
    unit = session.info.get(UNIT)
    if unit is None or not unit.is_committing or session.in_nested_transaction():
        return
    for connection, _, _, closes in held_by(session).values():
        if closes and driver_knows_transactions(connection):
            connection.close = partial(_close_committed, connection)  # type: ignore[method-assign]


def _close_committed(connection: Connection) -> None:
    """
    Close *connection*, without the ROLLBACK that SQLAlchemy's pool sends after each COMMIT too: drivers of
    MySQL wait for the server's answer, a third of what such a transaction asks of it.

    Only while the server says that no transaction is open. The pool leaves the ROLLBACK out if the
    connection was closed with its transaction; were that called otherwise one day, it would send it.
    """
    vars(connection).pop("close", None)
    over = getattr(connection, "_transaction", _ENDED) is None and not connection.invalidated
    if over and not driver_in_transaction(connection):
        connection._transaction = _ENDED  # type: ignore[assignment]
    connection.close()


def _after_soft_rollback(session: Session, transaction: SessionTransaction) -> None:
    unit = session.info.get(UNIT)
    if unit is not None and transaction.nested:
        unit.savepoint_undone(transaction)


def _after_transaction_end(session: Session, transaction: SessionTransaction) -> None:
    unit = session.info.get(UNIT)
    if unit is not None and transaction.parent is None:
        unit.transaction_ended()
