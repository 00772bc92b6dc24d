"""Which handlers handle which event."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any, NamedTuple

from outbox_relay.cqrs.binding import checked_handler
from outbox_relay.cqrs.errors import HandlerAlreadyBound, InvalidHandler


class Binding(NamedTuple):
    """A handler of an event, and when it is called."""

    handler: type
    after_commit: bool


class EventMap:
    """From the class of an event to the classes of its handlers."""

    def __init__(self) -> None:
        self._bindings: dict[type, list[Binding]] = {}

    def bind(self, event: type, handler: type, *, after_commit: bool = False) -> None:
        """
        *handler* handles events of exactly this class, after those that were bound before it.

        It runs inside the transaction of the request that caused the event, and its error rolls
        that back. With *after_commit* it runs once the commit has succeeded, in a unit of work of
        its own; what it raises is logged.

        Raises HandlerAlreadyBound if it is bound to this event already, InvalidHandler if it is no
        handler.
        """
        checked: Any = checked_handler(event, handler)
        if inspect.isasyncgenfunction(checked.handle) or inspect.isgeneratorfunction(
            checked.handle
        ):
            raise InvalidHandler(f"{handler.__name__}.handle is a generator: it would never run")
        bindings = self._bindings.setdefault(event, [])
        if any(binding.handler is handler for binding in bindings):
            raise HandlerAlreadyBound(
                f"{handler.__name__} is bound to {event.__name__} already: it would handle it twice"
            )
        bindings.append(Binding(checked, after_commit))

    def bindings(self, event: type) -> list[Binding]:
        """The handlers of *event*, in the order of the binds. None at all is no error."""
        return self._bindings.get(event, _NONE)

    def get(self, event: type) -> list[type]:
        """The classes of the handlers of *event*."""
        return [binding.handler for binding in self.bindings(event)]

    def items(self) -> Iterator[tuple[type, list[Binding]]]:
        """Each event with its handlers, in the order of the binds."""
        return iter(self._bindings.items())

    def __contains__(self, event: object) -> bool:
        return event in self._bindings


_NONE: list[Binding] = []
