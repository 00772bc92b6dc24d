"""
One unit of work for a request: what it saves and the events that it causes commit together.

    units = UnitOfWorkFactory(async_sessionmaker(engine), Outbox(source="/shop"))

    async with units.begin() as unit:
        unit.session.add(order)
        await unit.add(OrderPlaced(order_id=order.id))
        unit.after_commit(lambda: broadcast(order.id))

The end of the block commits, an exception rolls back. Whoever begins a unit within one, in the same
task, takes part in it: there is one transaction, which the outermost block ends.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Final, TypeAlias

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session

from outbox_relay.cqrs.errors import CommitRefused, RolledBack
from outbox_relay.events import UNSET, Unset
from outbox_relay.outbox import Outbox, Payload
from outbox_relay.outbox.encode import Key

logger = logging.getLogger(__name__)

Callback: TypeAlias = Callable[[], Awaitable[object] | object]
SessionFactory: TypeAlias = Callable[[], AsyncSession]

_UNIT: Final = "outbox_relay.unit_of_work"
_current: ContextVar[UnitOfWork | None] = ContextVar("unit_of_work", default=None)


def current_unit_of_work() -> UnitOfWork | None:
    """The unit of work that this task is in, if any."""
    unit = _current.get()
    # A task that was started within a unit works for itself: its session serves one task.
    if unit is None or not unit.is_open or unit.task is not asyncio.current_task():
        return None
    return unit


class UnitOfWork:
    """
    One transaction: a session, the events written in it, and what is called once it is committed.

    Made by `UnitOfWorkFactory.begin`. It connects when the session is first used.
    """

    def __init__(self, session: AsyncSession, outbox: Outbox) -> None:
        self.session = session
        self.outbox = outbox
        self.task = asyncio.current_task()
        self.is_open = True
        self._callbacks: list[Callback] = []
        self._failed_part: BaseException | None = None
        self._is_committing = False
        session.sync_session.info[_UNIT] = self

    async def add(
        self,
        *events: Payload,
        name: str | Unset = UNSET,
        topic: str | None = None,
        key: Key | Unset = UNSET,
        headers: Mapping[str, str] | None = None,
        content_type: str | None = None,
    ) -> None:
        """
        Write *events* to the outbox in this transaction, after what the session has to flush.

        Raises a WriteError that names the event if it is refused.
        """
        # State first: the locks of its rows are what keeps two transactions on one key in order.
        state = self.session.sync_session
        if state.new or state.dirty or state.deleted:
            await self.session.flush()
        await self.outbox.add(
            self.session,
            *events,
            name=name,
            topic=topic,
            key=key,
            headers=headers,
            content_type=content_type,
        )

    def after_commit(self, callback: Callback) -> None:
        """
        Call *callback*, and await what it returns, once the commit has succeeded; never otherwise.

        The callbacks run in their order, outside the transaction. What one of them raises is logged:
        the commit is done, and the caller must not take it for undone.
        """
        self._callbacks.append(callback)

    async def commit(self) -> None:
        """
        Commit, then call what was registered. The session may go on with a new transaction.

        Raises RolledBack, after a rollback, if a part of this unit of work had failed. When the
        commit raises nothing is called.
        """
        if self._failed_part is not None:
            failed = self._failed_part
            await self.rollback()
            raise RolledBack(
                f"a part of this unit of work failed with {type(failed).__name__}: {failed}; "
                "it was caught, but what that part had written was not undone by itself, so the "
                "whole is rolled back: let the error through, or use session.begin_nested()"
            ) from failed
        self._is_committing = True
        try:
            await self.session.commit()
        except BaseException:
            # SQLite keeps a transaction open whose COMMIT it refused, and its connection would go
            # back to the pool as it is: the next user's COMMIT would make it true.
            await self.rollback()
            raise
        finally:
            self._is_committing = False
        await self._call_back()

    async def rollback(self) -> None:
        """Undo what was written and forget whom to call. The session may begin anew."""
        self._callbacks.clear()
        self._failed_part = None
        await self.session.rollback()

    def part_failed(self, error: BaseException) -> None:
        """A part of it did not come to its end: the whole can only be rolled back."""
        self._failed_part = error

    async def _call_back(self) -> None:
        callbacks, self._callbacks = self._callbacks, []
        if not callbacks:
            return
        # What they begin is a unit of its own: this one is committed.
        was, self.is_open = self.is_open, False
        try:
            for callback in callbacks:
                try:
                    result = callback()
                    if inspect.isawaitable(result):
                        await result
                except Exception:
                    logger.exception("after the commit, %r failed: the commit stands", callback)
        finally:
            self.is_open = was

    def end(self) -> None:
        """Nobody is called any more, and nobody may take part."""
        self.is_open = False
        self._callbacks.clear()
        del self.session.sync_session.info[_UNIT]

    @property
    def is_committing(self) -> bool:
        """Whether the commit that is under way is this unit's own."""
        return self._is_committing


class UnitOfWorkFactory:
    """
    Makes units of work. One for the whole application; holds no connection.

    * sessions: makes AsyncSessions, such as ``async_sessionmaker(engine)``
    * outbox: where the events go; default: ``Outbox()``

    It is a FastAPI dependency too. `scope="function"` commits before the response is sent::

        unit: Annotated[UnitOfWork, Depends(units, scope="function")]
    """

    def __init__(
        self,
        sessions: async_sessionmaker[AsyncSession] | SessionFactory,
        outbox: Outbox | None = None,
    ) -> None:
        self.sessions = sessions
        self.outbox = Outbox() if outbox is None else outbox
        _refuse_other_commits()

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[UnitOfWork]:
        """
        A unit of work that commits at the end of the block, and rolls back on an exception.

        Within another one of this factory, in the same task, it is that one.
        """
        outer = current_unit_of_work()
        if outer is not None and outer.outbox is self.outbox:
            with part_of(outer):
                yield outer
            return
        async with self.open() as unit:
            before = enter(unit)
            try:
                yield unit
                await unit.commit()
            finally:
                leave(before)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[UnitOfWork]:
        """A unit of work that the caller commits. Its end rolls back what was not committed."""
        session = self.sessions()
        if not isinstance(session, AsyncSession):
            raise TypeError(
                f"the session factory made a {type(session).__name__}: "
                "it must make AsyncSessions, such as async_sessionmaker(engine)"
            )
        unit = UnitOfWork(session, self.outbox)
        try:
            yield unit
        except BaseException as error:
            unit.end()
            # The session's own end is shielded: a cancelled task leaves no transaction behind.
            await session.__aexit__(type(error), error, error.__traceback__)
            raise
        unit.end()
        await session.close()

    async def __call__(self) -> AsyncIterator[UnitOfWork]:
        """As `begin`, in the form of a FastAPI dependency."""
        async with self.begin() as unit:
            yield unit


@contextmanager
def part_of(unit: UnitOfWork) -> Iterator[None]:
    """What is done in the block belongs to *unit*: its error dooms the whole, even if caught."""
    try:
        yield
    except BaseException as error:
        unit.part_failed(error)
        raise


def enter(unit: UnitOfWork | None) -> UnitOfWork | None:
    """Make *unit* the one that this task is in. What it was in before, for `leave`."""
    before = _current.get()
    _current.set(unit)
    return before


def leave(before: UnitOfWork | None) -> None:
    """Back to the unit of work from before `enter`."""
    # Not reset(token): a generator may be closed in another context than it was begun in.
    _current.set(before)


def _refuse_other_commits() -> None:
    if not event.contains(Session, "before_commit", _before_commit):
        event.listen(Session, "before_commit", _before_commit)


def _before_commit(session: Session) -> None:
    unit = session.info.get(_UNIT)
    # Also called when a SAVEPOINT is released, which commits nothing.
    if unit is None or unit.is_committing or session.in_nested_transaction():
        return
    raise CommitRefused(
        "this session belongs to a unit of work, which commits it together with its events: leave "
        "the commit out, or take `await unit.commit()`"
    )
