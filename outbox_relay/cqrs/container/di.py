"""`DIContainer`: handlers from a container of di."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack
from types import TracebackType
from typing import Any, Final, TypeVar

import di
from di.api.dependencies import DependentBase
from di.dependent import Dependent
from di.exceptions import DependencyInjectionException
from di.executors import AsyncExecutor

from outbox_relay.cqrs.binding import is_protocol
from outbox_relay.cqrs.container.protocol import LENT
from outbox_relay.cqrs.errors import CqrsError, HandlerNotResolved

T = TypeVar("T")

SCOPES: Final = ("singleton", "request")
"""Wide to narrow. What names no scope is made for its request."""

_executor = AsyncExecutor()


class DIContainer:
    """
    Over a ``di.Container``. Its binds may name the scopes singleton and request, and come before the
    first request. A singleton that is a generator is closed by `close`.
    """

    def __init__(self, container: di.Container | None = None) -> None:
        self._container = container
        self._solved: dict[Any, di.SolvedDependent[Any]] = {}
        self._stack = AsyncExitStack()
        self._singletons: di.ScopeState | None = None
        self._lent: dict[Any, Any] = {}

    @property
    def external_container(self) -> di.Container:
        """di's own container."""
        if self._container is None:
            raise CqrsError("no container of di is attached: attach_external_container(container)")
        return self._container

    def attach_external_container(self, container: di.Container) -> None:
        """Take the handlers from *container*."""
        self._container = container
        self._solved.clear()

    async def resolve(self, type_: type[T]) -> T:
        """An object of *type_*, in a request of its own. Raises HandlerNotResolved."""
        async with self.open_scope({}) as scope:
            return await scope.resolve(type_)

    def open_scope(self, values: Mapping[Any, Any]) -> _Request:
        """di's scope "request"."""
        return _Request(self, values)

    async def singletons(self) -> di.ScopeState:
        """The state of di's scope "singleton", which `close` ends."""
        if self._singletons is None:
            scope = self.external_container.enter_scope("singleton")
            self._singletons = await self._stack.enter_async_context(scope)
        return self._singletons

    async def close(self) -> None:
        """Let go of the singletons."""
        await self._stack.aclose()
        self._singletons = None

    def solved(self, type_: type, lent: frozenset[Any]) -> di.SolvedDependent[Any]:
        """How to make *type_* when the types in *lent* are lent to it."""
        found = self._solved.get((type_, lent))
        if found is None:
            for kind in lent - self._lent.keys():
                self._lent[kind] = _lent(kind)
            container = self.external_container
            with ExitStack() as binds:
                for kind in lent:
                    binds.enter_context(container.bind(di.bind_by_type(self._lent[kind], kind)))
                # Not cached within a request either: a handler has the events of one call.
                handler = Dependent(type_, use_cache=False)
                try:
                    found = container.solve(handler, scopes=SCOPES, scope_resolver=_scope)
                except NameError as error:
                    raise HandlerNotResolved(
                        f"the container of di cannot make {type_.__name__}: annotations cannot be "
                        f"read, {error}; what a unit of work lends ({_names(LENT)}) is there with "
                        "unit_of_work=... only"
                    ) from error
            _refuse_unbound(type_, found)
            self._solved[type_, lent] = found
        return found

    def lent(self, values: Mapping[Any, Any]) -> dict[Any, Any]:
        """*values*, by what stands for their types in di."""
        return {self._lent[kind].call: value for kind, value in values.items()}


class _Request(AbstractAsyncContextManager["_Request"]):
    """One request's view of the container."""

    __slots__ = ("_context", "_kinds", "_over", "_state", "_values")

    def __init__(self, over: DIContainer, values: Mapping[Any, Any]) -> None:
        self._over = over
        self._values = values
        self._kinds = frozenset(values)

    async def __aenter__(self) -> _Request:
        self._context = (await self._over.singletons()).enter_scope("request")
        self._state = await self._context.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._context.__aexit__(kind, error, traceback)

    async def resolve(self, type_: type[T]) -> T:
        try:
            solved = self._over.solved(type_, self._kinds)
            made: T = await solved.execute_async(
                executor=_executor, state=self._state, values=self._over.lent(self._values)
            )
        except DependencyInjectionException as error:
            raise HandlerNotResolved(
                f"the container of di cannot make {type_.__name__}: {error}"
            ) from error
        return made


def _scope(dependent: DependentBase[Any], inner: Sequence[Any], scopes: Sequence[Any]) -> Any:
    return dependent.scope if dependent.scope in scopes else scopes[-1]


def _refuse_unbound(type_: type, solved: di.SolvedDependent[Any]) -> None:
    # di would call them, and the error would not say who asked for them.
    for dependent in solved.dag:
        call = dependent.call
        if inspect.isabstract(call) or is_protocol(call) or call in LENT:
            name = getattr(call, "__name__", repr(call))
            raise HandlerNotResolved(
                f"the container of di cannot make {type_.__name__}: nothing is bound to {name}: "
                f"container.bind(bind_by_type(Dependent(...), {name}))"
            )


def _names(kinds: Sequence[type]) -> str:
    return ", ".join(kind.__name__ for kind in kinds)


def _lent(kind: Any) -> Dependent[Any]:
    def lent() -> Any:
        raise HandlerNotResolved(f"no {kind.__name__} is lent in this request")

    return Dependent(lent, scope="request")
