"""What stands around every handler of a mediator."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, Protocol, TypeAlias

Handle: TypeAlias = Callable[[Any], Awaitable[Any]]


class Middleware(Protocol):
    """Runs inside the unit of work: what it raises rolls back."""

    async def __call__(self, request: Any, handle: Handle) -> Any:
        """Answer *request*, as a rule with what ``await handle(request)`` answers."""


class MiddlewareChain:
    """Middlewares in the order in which a request meets them."""

    def __init__(self, middlewares: Iterable[Middleware] = ()) -> None:
        self._chain = list(middlewares)

    def add(self, middleware: Middleware) -> None:
        """Stand *middleware* inside of those that are there."""
        self._chain.append(middleware)

    def set(self, chain: Iterable[Middleware]) -> None:
        """Let these, outermost first, be all."""
        self._chain = list(chain)

    def wrap(self, handle: Handle) -> Handle:
        """*handle* with the middlewares around it."""
        for middleware in reversed(self._chain):
            handle = partial(middleware, handle=handle)
        return handle
