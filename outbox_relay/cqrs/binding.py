"""What the maps ask about a handler before they take it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args, get_origin

from outbox_relay.cqrs.errors import InvalidHandler


def checked_handler(handled: Any, handler: Any) -> type:
    """
    *handler*, once it is known to be a class with a `handle` that takes *handled*.

    Raises InvalidHandler, with what to do instead.
    """
    if not isinstance(handled, type):
        raise InvalidHandler(f"{handled!r} is no class: bind the class of what is to be handled")
    if not isinstance(handler, type):
        raise InvalidHandler(
            f"{handler!r} is bound to {handled.__name__}, but is no class: bind the class, of which "
            "the container makes one for each request"
        )
    if not callable(getattr(handler, "handle", None)):
        raise InvalidHandler(
            f"{handler.__name__} is bound to {handled.__name__}, but has no method `handle`"
        )
    missing = getattr(handler, "__abstractmethods__", None)
    if missing:
        raise InvalidHandler(
            f"{handler.__name__} is bound to {handled.__name__}, but leaves out "
            f"{', '.join(sorted(missing))}"
        )
    declared = declared_for(handler)
    if isinstance(declared, type) and not issubclass(handled, declared):
        raise InvalidHandler(
            f"{handler.__name__} handles {declared.__name__} by its own words, but is bound to "
            f"{handled.__name__}"
        )
    return handler


def declared_for(handler: type) -> Any:
    """What the class says that it handles: ``RequestHandler[This, ...]``; None if it does not say."""
    for base in handler.__mro__:
        for generic in getattr(base, "__orig_bases__", ()):
            origin = get_origin(generic)
            if isinstance(origin, type) and hasattr(origin, "handle"):
                handled = get_args(generic)[0]
                return get_origin(handled) or handled
    return None


def unbound_handlers(handled: type, *bases: type) -> list[type]:
    """Subclasses of *bases* that were written for *handled*, for the text of an error."""
    return [
        handler
        for base in bases
        for handler in _subclasses(base)
        if declared_for(handler) is handled
    ]


def _subclasses(base: type) -> Iterator[type]:
    children: list[type] = base.__subclasses__()
    for child in children:
        yield child
        yield from _subclasses(child)
