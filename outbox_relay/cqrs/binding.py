"""What the maps ask about a handler before they take it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import UnionType
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
    _refuse_shared_events(handler)
    declared = declared_for(handler)
    kinds = get_args(declared) if isinstance(declared, UnionType) else (declared,)
    if all(isinstance(kind, type) and not _derives(handled, kind) for kind in kinds):
        names = " and ".join(kind.__name__ for kind in kinds)
        raise InvalidHandler(
            f"{handler.__name__} handles {names} by its own words, but is bound to "
            f"{handled.__name__}"
        )
    return handler


def _refuse_shared_events(handler: type) -> None:
    events = inspect.getattr_static(handler, "events", None)
    if inspect.isroutine(events):
        raise InvalidHandler(f"{handler.__name__}.events is a method: write @property above it")
    if isinstance(events, list):
        raise InvalidHandler(
            f"{handler.__name__}.events is one list for all requests, which would mix their events: "
            "make it in __init__"
        )


def _derives(kind: type, declared: Any) -> bool:
    # Any is a class, by accident, and a protocol may refuse the question.
    return declared is Any or is_protocol(declared) or issubclass(kind, declared)


def is_protocol(kind: Any) -> bool:
    """Whether *kind* is a Protocol itself, of which no object can be made."""
    return bool(getattr(kind, "_is_protocol", False))


def declared_for(handler: type) -> Any:
    """What the class says that it handles: ``RequestHandler[This, ...]``; None if it does not say."""
    for base in handler.__mro__:
        for generic in getattr(base, "__orig_bases__", ()):
            origin = get_origin(generic)
            if isinstance(origin, type) and hasattr(origin, "handle"):
                handled = get_args(generic)[0]
                is_union = isinstance(handled, UnionType)
                return handled if is_union else get_origin(handled) or handled
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
