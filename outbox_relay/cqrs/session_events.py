"""
What SQLAlchemy tells of a session goes to the unit of work that it belongs to, which its `info` names.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import event
from sqlalchemy.orm import Session, SessionTransaction

from outbox_relay.cqrs.errors import CommitRefused

UNIT: Final = "outbox_relay.unit_of_work"
"""Under which name a session's `info` has its unit of work."""


def listen() -> None:
    """Tell units of work, from now on; once in a process."""
    if not event.contains(Session, "before_commit", _before_commit):
        event.listen(Session, "before_commit", _before_commit)
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


def _after_soft_rollback(session: Session, transaction: SessionTransaction) -> None:
    unit = session.info.get(UNIT)
    if unit is not None and transaction.nested:
        unit.savepoint_undone(transaction)


def _after_transaction_end(session: Session, transaction: SessionTransaction) -> None:
    unit = session.info.get(UNIT)
    if unit is not None and transaction.parent is None:
        unit.transaction_ended()
