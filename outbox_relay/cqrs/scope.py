"""The surroundings of one request: its unit of work, and the container that makes its handlers."""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from types import TracebackType
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from outbox_relay.cqrs.container import Container, ScopedContainer
from outbox_relay.cqrs.errors import RolledBack
from outbox_relay.cqrs.unit_of_work import (
    Callback,
    UnitOfWork,
    UnitOfWorkFactory,
    current_unit_of_work,
    enter,
    leave,
)
from outbox_relay.outbox import Outbox

logger = logging.getLogger(__name__)


class Work:
    """One request under way."""

    __slots__ = ("_later", "_undone", "container", "emitted", "unit")

    def __init__(self, container: Container, unit: UnitOfWork | None) -> None:
        self.container = container
        self.unit = unit
        self._undone = 0 if unit is None else unit.undone
        self.emitted: list[Any] = []
        """Of a stream: the events of its handler that have gone their way."""
        self._later: list[Callback] = []

    def after_commit(self, callback: Callback) -> None:
        """Call *callback* after the commit; at the end of the request, if nothing is committed."""
        if self.unit is not None:
            self.unit.after_commit(callback)
        else:
            self._later.append(callback)

    def require_its_state(self, events: Sequence[Any]) -> None:
        """Raises RolledBack if what *events* tell of was rolled back since this began."""
        if self.unit is not None and self.unit.undone != self._undone:
            names = ", ".join(sorted({type(event).__name__ for event in events}))
            raise RolledBack(
                f"{names}: what it tells of may be undone, for its unit of work was rolled back in "
                "the midst: return no events then; around what may fail put session.begin_nested()"
            )

    @contextmanager
    def step(self) -> Iterator[None]:
        """A step of a stream: this task is in its unit of work. Between the steps it is not."""
        before = enter(self.unit)
        try:
            with nullcontext() if self.unit is None else self.unit.lent():
                yield
        finally:
            leave(before)

    async def finish(self) -> None:
        """Commit, and call what waited for it."""
        if self.unit is not None:
            await self.unit.finish()
            self._undone = self.unit.undone
        await self.call_later()

    async def call_later(self) -> None:
        """Call what waits for the end of a request without a unit of work."""
        later, self._later = self._later, []
        for callback in later:
            try:
                result = callback()
                if inspect.isawaitable(result):
                    await result
            except Exception:
                logger.exception("after the request, %r failed", callback)


class Scopes:
    """Opens the surroundings of requests."""

    def __init__(self, container: Container, units: UnitOfWorkFactory | None) -> None:
        self.container = container
        self.units = units
        # Asked once: for a protocol isinstance takes as long as all the rest.
        self.scoped = container if isinstance(container, ScopedContainer) else None

    def open(self) -> AbstractAsyncContextManager[Work]:
        """
        Commits at the end of the block, if there is a unit of work; rolls back on an exception.

        Without a factory of its own it is a part of the unit of work that the task is in, if any.
        """
        if self.units is None and current_unit_of_work() is None:
            return _WithoutUnit(self)
        return self._open_in_unit()

    @asynccontextmanager
    async def _open_in_unit(self) -> AsyncIterator[Work]:
        if self.units is None:
            unit = current_unit_of_work()
            assert unit is not None
            with unit.lent(to_part=True):
                async with self._scope(unit) as container:
                    yield Work(container, unit)
            return
        async with self.units.begin() as unit:
            with unit.lent():
                async with self._scope(unit) as container:
                    yield Work(container, unit)

    @asynccontextmanager
    async def open_steps(self) -> AsyncIterator[Work]:
        """As `open`, but whoever opens it commits."""
        if self.units is None:
            async with self._scope(None) as container:
                yield Work(container, None)
            return
        async with self.units.open() as unit, self._scope(unit) as container:
            yield Work(container, unit)

    def _scope(self, unit: UnitOfWork | None) -> AbstractAsyncContextManager[Container]:
        if self.scoped is None:
            return nullcontext(self.container)
        return self.scoped.open_scope(_NOTHING if unit is None else _lent(unit))


class _WithoutUnit(AbstractAsyncContextManager[Work]):
    """The surroundings of a request without a transaction: the way of all that touch no database."""

    __slots__ = ("_scope", "_scopes", "_work")

    def __init__(self, scopes: Scopes) -> None:
        self._scopes = scopes
        self._scope: AbstractAsyncContextManager[Container] | None = None

    async def __aenter__(self) -> Work:
        container = self._scopes.container
        if self._scopes.scoped is not None:
            self._scope = self._scopes.scoped.open_scope(_NOTHING)
            container = await self._scope.__aenter__()
        self._work = Work(container, None)
        return self._work

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._scope is not None:
            await self._scope.__aexit__(kind, error, traceback)
        if error is None:
            await self._work.call_later()


def _lent(unit: UnitOfWork) -> Mapping[Any, Any]:
    return {
        UnitOfWork: unit,
        AsyncSession: unit.session,
        type(unit.session): unit.session,
        Outbox: unit.outbox,
    }


_NOTHING: Mapping[Any, Any] = {}
