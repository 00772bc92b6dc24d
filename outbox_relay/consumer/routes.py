"""
Who handles a record: one handler for all, one for each name, or a mediator that takes events.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Protocol, TypeAlias

from outbox_relay.consumer.record import ConsumedRecord
from outbox_relay.events import OutgoingEvent

Handler: TypeAlias = Callable[[ConsumedRecord], Awaitable[Any]]
Reader: TypeAlias = Callable[[ConsumedRecord], Any]
Events: TypeAlias = Iterable[type[OutgoingEvent]] | Mapping[str, Reader]


class Mediator(Protocol):
    """Hands an event to its handlers, such as `outbox_relay.cqrs.EventMediator`."""

    async def send(self, event: Any, /) -> Any: ...


Route: TypeAlias = Callable[[ConsumedRecord], Handler | None]


def route(
    handle: Handler | Mapping[str, Handler] | None, mediator: Mediator | None, events: Events
) -> Route:
    """
    A function that gives the handler of a record, or None if the record's name is unknown.

    Raises ValueError if nobody or two are to handle, or two classes have one name.
    """
    if (handle is None) == (mediator is None):
        raise ValueError("say who handles: either handle=... or mediator=... with events=[...]")
    readers = _readers(events)
    if isinstance(handle, Mapping):
        if readers:
            raise ValueError("handle=... by name says the names already: leave events=... out")
        return lambda record: handle.get(record.event_name or "")
    if handle is not None:
        known = readers.keys()
        return lambda record: handle if not known or record.event_name in known else None
    assert mediator is not None
    if not readers:
        raise ValueError("mediator=... needs events=[...]: the classes of the events that it takes")
    handlers = {name: _to_mediator(mediator, reader) for name, reader in readers.items()}
    return lambda record: handlers.get(record.event_name or "")


async def call(handler: Handler, record: ConsumedRecord) -> None:
    """Let *handler* handle *record*."""
    result = handler(record)
    if inspect.isawaitable(result):
        await result


def _readers(events: Events) -> dict[str, Reader]:
    if isinstance(events, Mapping):
        return dict(events)
    readers: dict[str, Reader] = {}
    for event_class in events:
        if event_class.event_name in readers:
            raise ValueError(f"two of the events are called {event_class.event_name!r}")
        readers[event_class.event_name] = event_class.from_record
    return readers


def _to_mediator(mediator: Mediator, reader: Reader) -> Handler:
    async def send(record: ConsumedRecord) -> None:
        event = reader(record)
        await mediator.send(event)

    return send
