"""`bootstrap`: a mediator from functions that fill its maps."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from outbox_relay.cqrs.container import adapted
from outbox_relay.cqrs.events.event_emitter import EventEmitter
from outbox_relay.cqrs.events.map import EventMap
from outbox_relay.cqrs.mediator import StreamingRequestMediator
from outbox_relay.cqrs.message_brokers.protocol import MessageBroker
from outbox_relay.cqrs.middlewares.base import Middleware, MiddlewareChain
from outbox_relay.cqrs.requests.map import RequestMap
from outbox_relay.cqrs.unit_of_work import Units

RequestMapper: TypeAlias = Callable[[RequestMap], None]
EventMapper: TypeAlias = Callable[[EventMap], None]


def bootstrap(
    di_container: Any = None,
    *,
    message_broker: MessageBroker | None = None,
    middlewares: Iterable[Middleware] | None = None,
    commands_mapper: RequestMapper | None = None,
    domain_events_mapper: EventMapper | None = None,
    queries_mapper: RequestMapper | None = None,
    on_startup: Iterable[Callable[[], None]] | None = None,
    unit_of_work: Units | None = None,
) -> StreamingRequestMediator:
    """
    A mediator.

    * di_container: makes the handlers: one of di or dishka, or whatever has `resolve`; default: a
      `PlainContainer`
    * unit_of_work: each request is a transaction of it, and its outbox takes the notification events
    * message_broker: takes them instead, after the handler, where they may be lost
    * middlewares: outermost first
    * commands_mapper, queries_mapper, domain_events_mapper: bind the handlers
    * on_startup: called once, now
    """
    for start in on_startup or ():
        start()
    requests, events = RequestMap(), EventMap()
    for mapper in (commands_mapper, queries_mapper):
        if mapper is not None:
            mapper(requests)
    if domain_events_mapper is not None:
        domain_events_mapper(events)
    container = adapted(di_container)
    return StreamingRequestMediator(
        requests,
        container,
        EventEmitter(events, container, message_broker),
        middleware_chain=MiddlewareChain(middlewares or ()),
        unit_of_work=unit_of_work,
    )


bootstrap_streaming = bootstrap
"""python-cqrs's name for a mediator that streams too, as each does here."""
