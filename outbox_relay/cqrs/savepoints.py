"""What is said within a transaction, and forgotten with the SAVEPOINT that it was said in."""

from __future__ import annotations

from typing import Generic, TypeVar

from sqlalchemy.orm import Session, SessionTransaction

T = TypeVar("T")


class Said(Generic[T]):
    """Things in their order, each with the SAVEPOINT of *session* that was open when it came."""

    __slots__ = ("_session", "_things")

    def __init__(self, session: Session) -> None:
        self._session = session
        self._things: list[tuple[SessionTransaction | None, T]] = []

    def __len__(self) -> int:
        return len(self._things)

    def add(self, thing: T) -> None:
        """*thing* is said now."""
        self._things.append((self._session.get_nested_transaction(), thing))

    def take(self) -> T:
        """The first one, which is not there any more."""
        return self._things.pop(0)[1]

    def forget_within(self, savepoint: SessionTransaction) -> None:
        """*savepoint* is rolled back, and with it what was said since it began."""
        self._things = [one for one in self._things if not _is_in(one[0], savepoint)]

    def clear(self) -> None:
        """Everything is rolled back, or over."""
        self._things.clear()


def _is_in(transaction: SessionTransaction | None, savepoint: SessionTransaction) -> bool:
    while transaction is not None and transaction is not savepoint:
        transaction = transaction.parent
    return transaction is not None
