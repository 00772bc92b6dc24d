"""`bootstrap`: an `EventMediator` from a function that fills its map."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from outbox_relay.cqrs.events.map import EventMap
from outbox_relay.cqrs.mediator import EventMediator
from outbox_relay.cqrs.middlewares.base import Middleware, MiddlewareChain
from outbox_relay.cqrs.unit_of_work import Units


def bootstrap(
    di_container: Any = None,
    *,
    events_mapper: Callable[[EventMap], None] | None = None,
    middlewares: Iterable[Middleware] | None = None,
    on_startup: Iterable[Callable[[], None]] | None = None,
    unit_of_work: Units | None = None,
) -> EventMediator:
    """
    A mediator for events that come from elsewhere, such as a broker.

    * di_container, middlewares, unit_of_work: as those of a mediator for requests
    * events_mapper: binds the handlers
    * on_startup: called once, now
    """
    for start in on_startup or ():
        start()
    events = EventMap()
    if events_mapper is not None:
        events_mapper(events)
    return EventMediator(
        events,
        di_container,
        middleware_chain=MiddlewareChain(middlewares or ()),
        unit_of_work=unit_of_work,
    )
