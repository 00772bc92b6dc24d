"""
One unit of work for a request: what it saves and the events that it causes commit together.

    units = UnitOfWorkFactory(async_sessionmaker(engine), Outbox(source="/shop"))

    async with units.begin() as unit:
        unit.session.add(order)
        await unit.add(OrderPlaced(order_id=order.id))
        unit.after_commit(lambda: broadcast(order.id))

The end of the block commits, an exception rolls back. Whoever begins a unit within one, in the same
task, takes part in it: there is one transaction, which the outermost block ends. What was undone, all
of it or a SAVEPOINT, takes along what was to be called after the commit.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, Final, TypeAlias

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, SessionTransaction

from outbox_relay.cqrs.errors import CommitRefused, RolledBack, UnitEnded
from outbox_relay.cqrs.savepoints import Said
from outbox_relay.cqrs.session_events import UNIT, listen
from outbox_relay.events import UNSET, Unset
from outbox_relay.outbox import Outbox, Payload
from outbox_relay.outbox.encode import Key

logger = logging.getLogger(__name__)

Callback: TypeAlias = Callable[[], Awaitable[object] | object]
SessionFactory: TypeAlias = Callable[[], AsyncSession]

_current: ContextVar[UnitOfWork | None] = ContextVar("unit_of_work", default=None)


def current_unit_of_work() -> UnitOfWork | None:
    """The unit of work that this task is in, if any."""
    unit = _current.get()
    # A task that was started within a unit works for itself: its session serves one task.
    if unit is None or not unit.is_open or unit.task is not _task():
        return None
    return unit


def _task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # a thread without a loop; it has the context of the task that started it
        return None


class UnitOfWork:
    """
    One transaction: a session, the events written in it, and what is called once it is committed.

    Made by `UnitOfWorkFactory.begin`. It connects when the session is first used.
    """

    def __init__(
        self, session: AsyncSession, outbox: Outbox, sessions: SessionFactory | None = None
    ) -> None:
        self.session = session
        self.outbox = outbox
        self.sessions = sessions
        self.task = _task()
        self.is_open = True
        self.undone = 0
        """How often what was written was undone, and its session went on."""
        self.guests = 0
        """How many work in it who may not commit it."""
        self._callbacks: Said[Callback] = Said(session.sync_session)
        self._failures: Said[BaseException] = Said(session.sync_session)
        self.is_committing = False
        """Whether the commit that is under way is this unit's own."""
        self._is_over = self._is_rolling_back = False
        session.sync_session.info[UNIT] = self

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

        Raises a WriteError that names the event if it is refused, UnitEnded after the commit.
        """
        self._refuse_if("an event", is_over=not self.is_open)
        said = {
            "name": name,
            "topic": topic,
            "key": key,
            "headers": headers,
            "content_type": content_type,
        }
        await self.session.run_sync(self._add, events, said)

    def _add(self, session: Session, events: tuple[Payload, ...], said: dict[str, Any]) -> None:
        # State first: the locks of its rows are what keeps two transactions on one key in order.
        if session.new or session.dirty or session.deleted:
            session.flush()
        self.outbox.add(session, *events, **said)

    def after_commit(self, callback: Callback) -> None:
        """
        Call *callback*, and await what it returns, once the commit has succeeded; never otherwise, so
        not when the SAVEPOINT that this is said in is rolled back.

        The callbacks run in their order, outside the transaction: one that writes begins a unit of
        its own. What one of them raises is logged: the commit is done, and the caller must not take
        it for undone. A cancelled task calls the rest before it ends.
        """
        self._refuse_if("a callback", is_over=self._is_over)
        self._callbacks.add(callback)

    async def commit(self) -> None:
        """
        Commit, then call what was registered. The session may go on with a new transaction.

        For whoever began the unit: raises CommitRefused in a handler and in a unit within this one.
        Raises RolledBack, after a rollback, if a part of this unit of work had failed. When the
        commit raises nothing is called.
        """
        self._refuse_if("a commit", is_over=not self.is_open)
        if self.guests:
            raise CommitRefused(
                "whoever began this unit of work commits it, together with its events: leave the "
                "commit out"
            )
        await self.finish()

    async def finish(self) -> None:
        """`commit`, by whoever may."""
        if self._failures:
            await self._refuse_what_failed(self._failures.take())
        self.is_committing = True
        try:
            await self.session.commit()
        except BaseException:
            # SQLite keeps a transaction open whose COMMIT it refused, and its connection would go
            # back to the pool as it is: the next user's COMMIT would make it true.
            await self.rollback()
            raise
        finally:
            self.is_committing = False
        await self._call_back()

    async def _refuse_what_failed(self, failed: BaseException) -> None:
        await self.rollback()
        if isinstance(failed, RolledBack):
            raise failed
        raise RolledBack(
            f"a part of this unit of work failed with {type(failed).__name__}: {failed}; "
            "it was caught, but what that part had written was not undone by itself, so the "
            "whole is rolled back: let the error through, or put session.begin_nested() around "
            "the part and catch it outside of that"
        ) from failed

    async def rollback(self) -> None:
        """
        Undo what was written and forget whom to call; the session may begin anew. A handler that does
        so may return no events: they would tell of what is undone.
        """
        self._is_rolling_back = True
        try:
            await self.session.rollback()
        finally:
            self._is_rolling_back = False
            self._forget_all()

    def part_failed(self, error: BaseException) -> None:
        """What was begun did not come to its end: the whole can only be rolled back."""
        self._failures.add(error)

    def lent(self, *, to_part: bool = False) -> Loan:
        """
        Whoever works in the block does not commit, and an error of his dooms the whole. *to_part*: he
        did not begin it either, and a rollback of his would undo what others have done too.
        """
        return Loan(self, to_part)

    def transaction_ended(self) -> None:
        """The session's transaction has. If this unit did not end it, somebody else undid it."""
        if self.is_open and not self.is_committing and not self._is_rolling_back:
            self._forget_all()
            if self.guests:
                self._failures.add(RolledBack(_UNDONE))

    def savepoint_undone(self, savepoint: SessionTransaction) -> None:
        """Forget what was said within *savepoint*."""
        self._callbacks.forget_within(savepoint)
        self._failures.forget_within(savepoint)

    def _forget_all(self) -> None:
        self.undone += 1
        self._callbacks.clear()
        self._failures.clear()

    def _refuse_if(self, what: str, *, is_over: bool) -> None:
        if is_over:
            raise UnitEnded(
                f"{what} comes when this unit of work is over, and nobody would commit it: begin "
                "another one, `async with units.begin()`"
            )

    async def _call_back(self) -> None:
        cancelled: asyncio.CancelledError | None = None
        # What they begin is a unit of its own: this one is committed.
        was, self.is_open = self.is_open, False
        try:
            while self._callbacks:
                try:
                    await _called(self._callbacks.take())
                except asyncio.CancelledError as error:
                    cancelled = error
        finally:
            self.is_open = was
        if cancelled is not None:
            raise cancelled

    async def close(self, error: BaseException | None = None) -> None:
        """Nobody is called any more, and nobody may take part. What is not committed is undone."""
        self.is_open, self._is_over = False, True
        self._callbacks.clear()
        session = self.session
        session.sync_session.info.pop(UNIT, None)
        if error is not None:
            # The session's own end is shielded: a cancelled task leaves no transaction behind.
            await session.__aexit__(type(error), error, error.__traceback__)
        elif session.in_transaction() or type(session).close is not AsyncSession.close:
            await session.close()
        else:
            session.sync_session.close()  # committed: nothing is left to wait for


class Loan:
    """A unit of work in the hands of one who does not commit it."""

    __slots__ = ("_to_part", "_undone", "_unit")

    def __init__(self, unit: UnitOfWork, to_part: bool) -> None:
        self._unit, self._to_part, self._undone = unit, to_part, unit.undone

    def __enter__(self) -> UnitOfWork:
        self._unit.guests += 1
        return self._unit

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _traceback: object
    ) -> None:
        unit = self._unit
        unit.guests -= 1
        if error is not None:
            unit.part_failed(error)
        elif self._to_part and unit.undone != self._undone:
            unit.part_failed(RolledBack(_UNDONE))


async def _called(callback: Callback) -> None:
    try:
        if inspect.isawaitable(result := callback()):
            await result
    except Exception:
        logger.exception("after the commit, %r failed: the commit stands", callback)


_UNDONE: Final = (
    "a handler, or a unit within this unit of work, rolled back or closed the session, and so undid "
    "what others had written: let it raise, or put session.begin_nested() around what may fail; to "
    "begin anew, whoever began the unit takes `await unit.rollback()`"
)


class UnitOfWorkFactory:
    """
    Makes units of work. One for the whole application; holds no connection.

    * sessions: makes AsyncSessions, such as ``async_sessionmaker(engine)``
    * outbox: where the events go; default: one ``Outbox()`` for all who say none

    It is a FastAPI dependency too. `scope="function"` commits before the response is sent::

        unit: Annotated[UnitOfWork, Depends(units, scope="function")]
    """

    def __init__(
        self,
        sessions: async_sessionmaker[AsyncSession] | SessionFactory,
        outbox: Outbox | None = None,
    ) -> None:
        self.sessions = sessions
        self.outbox = default_outbox() if outbox is None else outbox
        listen()

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[UnitOfWork]:
        """
        A unit of work that commits at the end of the block, and rolls back on an exception.

        Within another one of the same sessions and outbox, in the same task, it is that one.
        """
        outer = current_unit_of_work()
        if outer is not None and outer.outbox is self.outbox and outer.sessions == self.sessions:
            with outer.lent(to_part=True):
                yield outer
            return
        unit = self._made()
        before = enter(unit)
        try:
            yield unit
            await unit.finish()
        except BaseException as error:
            leave(before)
            await unit.close(error)
            raise
        leave(before)
        await unit.close()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[UnitOfWork]:
        """A unit of work that the caller commits. Its end rolls back what was not committed."""
        unit = self._made()
        try:
            yield unit
        except BaseException as error:
            await unit.close(error)
            raise
        await unit.close()

    def _made(self) -> UnitOfWork:
        session = self.sessions()
        if not isinstance(session, AsyncSession):
            raise TypeError(
                f"the session factory made a {type(session).__name__}: "
                "it must make AsyncSessions, such as async_sessionmaker(engine)"
            )
        return UnitOfWork(session, self.outbox, self.sessions)

    async def __call__(self) -> AsyncIterator[UnitOfWork]:
        """As `begin`, in the form of a FastAPI dependency."""
        async with self.begin() as unit:
            yield unit


Units: TypeAlias = UnitOfWorkFactory | async_sessionmaker[AsyncSession]
"""A factory of units of work; or one of sessions, which then have the default outbox."""


def units_of(units: Units | None) -> UnitOfWorkFactory | None:
    """The factory that *units* are or make. Raises TypeError."""
    if units is None or isinstance(units, UnitOfWorkFactory):
        return units
    if isinstance(units, async_sessionmaker):
        return UnitOfWorkFactory(units)
    raise TypeError(
        f"unit_of_work is a {type(units).__name__}: pass a UnitOfWorkFactory(sessions, outbox), or "
        "async_sessionmaker(engine)"
    )


@cache
def default_outbox() -> Outbox:
    """``Outbox()``: one, so that units of the same sessions are the same, whoever asks for them."""
    return Outbox()


def enter(unit: UnitOfWork | None) -> UnitOfWork | None:
    """Make *unit* the one that this task is in. What it was in before, for `leave`."""
    before = _current.get()
    _current.set(unit)
    if unit is not None:
        unit.task = _task()  # each step of a stream may have another one
    return before


def leave(before: UnitOfWork | None) -> None:
    """Back to the unit of work from before `enter`."""
    # Not reset(token): a generator may be closed in another context than it was begun in.
    _current.set(before)
