"""Calling a handler: what it answers, and which events are the call's own."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from outbox_relay.cqrs.errors import InvalidHandler
from outbox_relay.cqrs.unit_of_work import UnitOfWork


class GuardedCall:
    """
    Calls *handler*, as the innermost of the middlewares. An error of the handler dooms *unit*, even
    if a middleware catches it: half of what it did would be committed.
    """

    __slots__ = ("_handler", "_unit")

    def __init__(self, handler: Any, unit: UnitOfWork | None) -> None:
        self._handler = handler
        self._unit = unit

    async def __call__(self, request: Any) -> Any:
        try:
            return await answer(self._handler.handle, request)
        except BaseException as error:
            if self._unit is not None:
                self._unit.part_failed(error)
            raise


class HandlerCall(GuardedCall):
    """The same, and `events` has what followed from the calls that did not raise."""

    __slots__ = ("events",)

    def __init__(self, handler: Any, unit: UnitOfWork | None) -> None:
        super().__init__(handler, unit)
        self.events: list[Any] = []

    async def __call__(self, request: Any) -> Any:
        before = events_before(self._handler)
        response = await super().__call__(request)
        self.events += new_events(self._handler, before)
        return response


async def answer(handle: Callable[[Any], Any], message: Any) -> Any:
    """What *handle* answers, async or not. Raises InvalidHandler if nothing of it has run."""
    result = handle(message)
    if inspect.isawaitable(result):
        return await result
    return checked_answer(result, message)


def checked_answer(result: Any, message: Any) -> Any:
    """*result*, unless it is a generator: with it the handler would have done nothing yet."""
    if inspect.isasyncgen(result) or inspect.isgenerator(result):
        raise InvalidHandler(
            f"{type(message).__name__}: `handle` of its handler is a generator, of which nothing has "
            "run: return the answer; for many answers there is `stream`"
        )
    return result


def events_before(handler: Any) -> Sequence[Any]:
    """The events that *handler* has already, if any. It need not have the attribute yet."""
    events = getattr(handler, "events", None)
    return list(events) if events and isinstance(events, Iterable) else ()


def events_of(handler: Any) -> Iterable[Any]:
    """The events of *handler*; of one that knows no events, none."""
    try:
        events: Iterable[Any] | None = handler.events
    except AttributeError:
        # Of a property the error may be its own, such as a misspelt name: the events would be lost.
        if inspect.getattr_static(handler, "events", None) is not None:
            raise
        return ()
    return () if events is None else events


def new_events(handler: Any, before: Sequence[Any]) -> list[Any]:
    """The events of *handler* that are not among those of *before*."""
    if not before:
        return list(events_of(handler))
    known = Counter(map(id, before))
    new = []
    for event in events_of(handler):
        if known[id(event)] > 0:
            known[id(event)] -= 1
        else:
            new.append(event)
    return new
