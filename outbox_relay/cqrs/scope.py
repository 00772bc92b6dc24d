"""The surroundings of one request: its unit of work, and the container that makes its handlers."""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from outbox_relay.cqrs.container import Container, ScopedContainer
from outbox_relay.cqrs.unit_of_work import Callback, UnitOfWork, UnitOfWorkFactory, enter, leave
from outbox_relay.outbox import Outbox

logger = logging.getLogger(__name__)


class Work:
    """One request under way."""

    __slots__ = ("_later", "container", "emitted", "unit")

    def __init__(self, container: Container, unit: UnitOfWork | None) -> None:
        self.container = container
        self.unit = unit
        self.emitted: list[Any] = []
        """Of a stream: the events of its handler that have gone their way."""
        self._later: list[Callback] = []

    def after_commit(self, callback: Callback) -> None:
        """Call *callback* after the commit; at the end of the request, if nothing is committed."""
        if self.unit is not None:
            self.unit.after_commit(callback)
        else:
            self._later.append(callback)

    @contextmanager
    def step(self) -> Iterator[None]:
        """A step of a stream: this task is in its unit of work. Between the steps it is not."""
        before = enter(self.unit)
        try:
            yield
        finally:
            leave(before)

    async def finish(self) -> None:
        """Commit, and call what waited for it."""
        if self.unit is not None:
            await self.unit.commit()
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

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Work]:
        """Commits at the end of the block, if there is a unit of work; rolls back on an exception."""
        async with AsyncExitStack() as stack:
            unit = None
            if self.units is not None:
                unit = await stack.enter_async_context(self.units.begin())
            work = Work(await stack.enter_async_context(self._scope(unit)), unit)
            yield work
        await work.call_later()

    @asynccontextmanager
    async def open_steps(self) -> AsyncIterator[Work]:
        """As `open`, but whoever opens it commits."""
        async with AsyncExitStack() as stack:
            unit = None
            if self.units is not None:
                unit = await stack.enter_async_context(self.units.open())
            yield Work(await stack.enter_async_context(self._scope(unit)), unit)

    @asynccontextmanager
    async def _scope(self, unit: UnitOfWork | None) -> AsyncIterator[Container]:
        if not isinstance(self.container, ScopedContainer):
            yield self.container
            return
        async with self.container.open_scope(_lent(unit)) as container:
            yield container


def _lent(unit: UnitOfWork | None) -> Mapping[Any, Any]:
    if unit is None:
        return _NOTHING
    return {
        UnitOfWork: unit,
        AsyncSession: unit.session,
        type(unit.session): unit.session,
        Outbox: unit.outbox,
    }


_NOTHING: Mapping[Any, Any] = {}
