"""Which handler handles which command or query."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from outbox_relay.cqrs.binding import checked_handler, unbound_handlers
from outbox_relay.cqrs.errors import HandlerAlreadyBound, HandlerNotFoundError
from outbox_relay.cqrs.requests.request_handler import RequestHandler, StreamingRequestHandler


class RequestMap:
    """From the class of a request to the class of its one handler."""

    def __init__(self) -> None:
        self._handlers: dict[type, type] = {}

    def bind(self, request: type, handler: type) -> None:
        """
        *handler* handles requests of exactly this class.

        Raises HandlerAlreadyBound if another one does, InvalidHandler if it is no handler.
        """
        bound = self._handlers.get(request)
        if bound is not None:
            raise HandlerAlreadyBound(
                f"{request.__name__} is handled by {bound.__name__} already: a command or query has "
                f"one handler, so {handler!r} cannot be another"
            )
        self._handlers[request] = checked_handler(request, handler)

    def get(self, request: type) -> type:
        """The handler of *request*, a class. Raises HandlerNotFoundError."""
        handler = self._handlers.get(request)
        if handler is None:
            raise HandlerNotFoundError(_not_found(request))
        return handler

    def items(self) -> Iterator[tuple[type, type]]:
        """Each request with its handler, in the order of the binds."""
        return iter(self._handlers.items())

    def __contains__(self, request: object) -> bool:
        return request in self._handlers

    def __len__(self) -> int:
        return len(self._handlers)


def _not_found(request: Any) -> str:
    unbound = unbound_handlers(request, RequestHandler, StreamingRequestHandler)
    if unbound:
        name = unbound[0].__name__
        return (
            f"{request.__name__} has no handler in the map: bind the one that was written for it, "
            f"mapper.bind({request.__name__}, {name})"
        )
    return f"{request.__name__} has no handler: mapper.bind({request.__name__}, ...)"
