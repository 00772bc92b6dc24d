"""
`CommandBus` and `QueryBus`: a message goes to the handler of its class.

    @command_handler(CreateRequest)
    class CreateRequestHandler:
        async def handle(self, command): ...

    request_id = await CommandBus(unit_of_work=units).dispatch(CreateRequest(...))

Handlers are objects or classes with a `handle`, async or not. With a `UnitOfWorkFactory` each
dispatch is one transaction: what repositories save and what an `EventPublisher` publishes.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from functools import lru_cache
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession

from outbox_relay.cqrs.binding import checked_handler
from outbox_relay.cqrs.calling import GuardedCall, checked_answer, events_before, new_events
from outbox_relay.cqrs.container import adapted
from outbox_relay.cqrs.errors import (
    HandlerAlreadyBound,
    HandlerNotFoundError,
    InvalidHandler,
    NoWayOut,
    ValidationError,
)
from outbox_relay.cqrs.events.event_emitter import EventEmitter
from outbox_relay.cqrs.middlewares.base import Middleware, MiddlewareChain
from outbox_relay.cqrs.scope import Scopes
from outbox_relay.cqrs.sync import run_blocking
from outbox_relay.cqrs.unit_of_work import Units, current_unit_of_work, units_of

__all__ = [
    "BaseCommand",
    "BaseQuery",
    "CommandBus",
    "EventPublisher",
    "HandlerNotFoundError",
    "QueryBus",
    "Registry",
    "ValidationError",
    "command_handler",
    "current_session",
    "query_handler",
]

HandlerClass = TypeVar("HandlerClass", bound=type)


class _Message:
    """No dataclass itself, so that what derives from it may be a frozen one or another."""

    def validate(self) -> None:
        """Raise a ValidationError if it cannot be meant. Called before anything is touched."""


class BaseCommand(_Message):
    """Asks for a change. Any other class will do as well."""


class BaseQuery(_Message):
    """Asks for an answer, and changes nothing. Any other class will do as well."""


class Registry:
    """Handlers by what they handle, as the decorators note them."""

    def __init__(self) -> None:
        self.commands: dict[type, type] = {}
        self.queries: dict[type, type] = {}

    def command_handler(self, command: type) -> Callable[[HandlerClass], HandlerClass]:
        """The class below handles *command*. Raises HandlerAlreadyBound, InvalidHandler."""
        return lambda handler: _noted(self.commands, command, handler)

    def query_handler(self, query: type) -> Callable[[HandlerClass], HandlerClass]:
        """The class below handles *query*. Raises HandlerAlreadyBound, InvalidHandler."""
        return lambda handler: _noted(self.queries, query, handler)


_default = Registry()
command_handler = _default.command_handler
query_handler = _default.query_handler


class _Bus(ABC):
    """
    * container: makes the handlers that are classes; see `bootstrap`
    * unit_of_work: each dispatch is a transaction of it; without one a handler is on its own
    * registry: where the decorators note their classes
    * middlewares: stand around the handlers, the first one outermost
    """

    _kind: ClassVar[str]

    def __init__(
        self,
        container: Any = None,
        *,
        unit_of_work: Units | None = None,
        registry: Registry | None = None,
        middlewares: Iterable[Middleware] = (),
    ) -> None:
        self._scopes = Scopes(adapted(container), units_of(unit_of_work))
        self._noted = self._of(_default if registry is None else registry)
        self._handlers: dict[type, Any] = {}
        self._chain = MiddlewareChain(middlewares)

    @abstractmethod
    def _of(self, registry: Registry) -> dict[type, type]:
        """What the decorators noted for this kind of bus."""

    def register_handler(self, message_type: type, handler: Any) -> None:
        """
        *handler* handles messages of exactly this class: an object, or a class for the container.

        Raises HandlerAlreadyBound if another one does, InvalidHandler if it has no `handle`.
        """
        bound = self._handlers.get(message_type, self._noted.get(message_type))
        if bound is not None:
            raise HandlerAlreadyBound(_two_handlers(message_type, self._kind, bound, handler))
        self._handlers[message_type] = _checked(message_type, handler)

    async def dispatch(self, message: Any) -> Any:
        """
        What the handler of *message* answers, once everything that belongs to it is committed.

        Raises HandlerNotFoundError, and what the message's own `validate` raises, before anything
        is begun; an error of the handler rolls all back.
        """
        handler = self._ready(message)
        async with self._scopes.open() as work:
            if isinstance(handler, type):
                handler = await work.container.resolve(handler)
            before = events_before(handler)
            response = await self._chain.wrap(GuardedCall(handler, work.unit))(message)
            _refuse_events(handler, before)
            return response

    def execute(self, message: Any) -> Any:
        """
        `dispatch` for callers that cannot await, such as a command line. Blocks.

        Where an event loop runs it raises CqrsError, unless there is nothing to await: a handler
        that is an object and no coroutine, no unit of work, no middleware.
        """
        handler = self._ready(message)
        waits = isinstance(handler, type) or inspect.iscoroutinefunction(handler.handle)
        if waits or self._scopes.units is not None or self._chain:
            return run_blocking(self.dispatch(message))
        unit = current_unit_of_work()
        with nullcontext() if unit is None else unit.lent(to_part=True):
            before = events_before(handler)
            result = handler.handle(message)
            if inspect.isawaitable(result):
                return run_blocking(_awaited(result))
            _refuse_events(handler, before)
            return checked_answer(result, message)

    def _ready(self, message: Any) -> Any:
        kind: Any = type(message)
        noted = self._noted.get(kind)
        handler: Any = self._handlers.get(kind, noted)
        if noted is not None and handler is not noted:
            raise HandlerAlreadyBound(_two_handlers(kind, self._kind, handler, noted))
        if handler is None:
            raise HandlerNotFoundError(
                f"no handler is registered for {kind.__name__}: "
                f"@{self._kind}_handler({kind.__name__}) on its class, or "
                f"bus.register_handler({kind.__name__}, handler)"
            )
        if _validates(kind):
            _validate(message)
        return handler


class CommandBus(_Bus):
    """Routes commands to their handlers."""

    _kind = "command"

    def _of(self, registry: Registry) -> dict[type, type]:
        return registry.commands


class QueryBus(_Bus):
    """Routes queries to their handlers."""

    _kind = "query"

    def _of(self, registry: Registry) -> dict[type, type]:
        return registry.queries


class EventPublisher(EventEmitter):
    """
    Publishes the events of aggregates, in the unit of work of the dispatch: the handlers in
    *event_map* (read models, say) handle them, and those that leave the process go to the outbox.
    """

    async def publish_events(self, events: Sequence[Any]) -> None:
        """*events* in their order. Nothing of them is visible before the commit."""
        await self.emit(*events)


def current_session() -> AsyncSession:
    """
    The session of the unit of work that this task is in, for repositories that outlive it.

    Raises LookupError outside of one.
    """
    unit = current_unit_of_work()
    if unit is None:
        raise LookupError(
            "no unit of work is open in this task: dispatch through a bus with unit_of_work=..., or "
            "open one, `async with units.begin()`"
        )
    return unit.session


def _noted(handlers: dict[type, type], message_type: type, handler: Any) -> Any:
    bound = handlers.get(message_type)
    # A module that is loaded again brings the same handler once more.
    if bound is not None and _place(bound) != _place(handler):
        raise HandlerAlreadyBound(
            f"{message_type.__name__} is handled by {_name(bound)} already, so {_name(handler)} "
            "cannot handle it too"
        )
    handlers[message_type] = checked_handler(message_type, handler)
    return handler


def _checked(message_type: type, handler: Any) -> Any:
    if isinstance(handler, type):
        return checked_handler(message_type, handler)
    if not callable(getattr(handler, "handle", None)):
        raise InvalidHandler(f"{handler!r} has no method `handle` for {message_type.__name__}")
    return handler


def _two_handlers(message_type: type, kind: str, bound: Any, other: Any) -> str:
    return (
        f"{message_type.__name__} is handled by {_name(bound)} already: a {kind} has one handler, so "
        f"{_name(other)} cannot be another"
    )


def _validate(message: Any) -> None:
    result = message.validate()
    if inspect.iscoroutine(result):
        result.close()
        raise InvalidHandler(
            f"{type(message).__name__}.validate is async, so it would check nothing: make it an "
            "ordinary method, and check what must be waited for in the handler"
        )


def _refuse_events(handler: Any, before: Sequence[Any]) -> None:
    # A handler may be any object, which calls its own things `events`.
    if not isinstance(getattr(handler, "events", None), Sequence):
        return
    events = new_events(handler, before)
    if events:
        names = ", ".join(sorted({type(event).__name__ for event in events}))
        raise NoWayOut(
            f"{_name(handler)} leaves {names} in its `events`, which a bus does not read: publish "
            "them with EventPublisher.publish_events, or send by a RequestMediator"
        )


async def _awaited(result: Any) -> Any:
    return await result


@lru_cache(maxsize=1024)
def _validates(kind: Any) -> bool:
    for base in kind.__mro__:
        if "validate" in vars(base):
            # pydantic's own is another thing, by the same name.
            return base is not BaseModel and callable(getattr(kind, "validate"))  # noqa: B009
    return False


def _name(handler: Any) -> str:
    return handler.__name__ if isinstance(handler, type) else type(handler).__name__


def _place(handler: type) -> tuple[str, str]:
    return handler.__module__, handler.__qualname__
