"""
Commands, queries and events: handlers, mediators and buses over the outbox.

    mediator = bootstrap(commands_mapper=..., unit_of_work=UnitOfWorkFactory(sessions, outbox))
    await mediator.send(JoinMeeting(user_id=1, meeting_id=2))

What a handler saves and the notification events that it returns commit together. Names are loaded
when they are first used: importing this package loads no broker client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from outbox_relay.lazy_names import lazy_names

if TYPE_CHECKING:
    from outbox_relay.compression import Compressor, ZlibCompressor
    from outbox_relay.cqrs.container import Container, PlainContainer
    from outbox_relay.cqrs.errors import (
        CommitRefused,
        CqrsError,
        DirectPublishWarning,
        HandlerAlreadyBound,
        HandlerNotFoundError,
        HandlerNotResolved,
        InvalidHandler,
        NoWayOut,
        RolledBack,
        StaleEvents,
        UnitEnded,
        ValidationError,
    )
    from outbox_relay.cqrs.events.event import DomainEvent, ECSTEvent, Event, NotificationEvent
    from outbox_relay.cqrs.events.event_emitter import EventEmitter
    from outbox_relay.cqrs.events.event_handler import EventHandler
    from outbox_relay.cqrs.events.map import EventMap
    from outbox_relay.cqrs.mediator import (
        EventMediator,
        Mediator,
        RequestMediator,
        StreamingRequestMediator,
    )
    from outbox_relay.cqrs.mermaid import mermaid
    from outbox_relay.cqrs.message_brokers.protocol import Message, MessageBroker
    from outbox_relay.cqrs.middlewares import LoggingMiddleware, Middleware, MiddlewareChain
    from outbox_relay.cqrs.producer import EventProducer
    from outbox_relay.cqrs.requests.bootstrap import bootstrap, bootstrap_streaming
    from outbox_relay.cqrs.requests.map import RequestMap
    from outbox_relay.cqrs.requests.request import Request
    from outbox_relay.cqrs.requests.request_handler import RequestHandler, StreamingRequestHandler
    from outbox_relay.cqrs.response import Response
    from outbox_relay.cqrs.unit_of_work import (
        UnitOfWork,
        UnitOfWorkFactory,
        current_unit_of_work,
    )
    from outbox_relay.outbox.repository import SqlAlchemyOutboxedEventRepository

__all__ = [
    "CommitRefused",
    "Compressor",
    "Container",
    "CqrsError",
    "DirectPublishWarning",
    "DomainEvent",
    "ECSTEvent",
    "Event",
    "EventEmitter",
    "EventHandler",
    "EventMap",
    "EventMediator",
    "EventProducer",
    "HandlerAlreadyBound",
    "HandlerNotFoundError",
    "HandlerNotResolved",
    "InvalidHandler",
    "LoggingMiddleware",
    "Mediator",
    "Message",
    "MessageBroker",
    "Middleware",
    "MiddlewareChain",
    "NoWayOut",
    "NotificationEvent",
    "PlainContainer",
    "Request",
    "RequestHandler",
    "RequestMap",
    "RequestMediator",
    "Response",
    "RolledBack",
    "SqlAlchemyOutboxedEventRepository",
    "StaleEvents",
    "StreamingRequestHandler",
    "StreamingRequestMediator",
    "UnitEnded",
    "UnitOfWork",
    "UnitOfWorkFactory",
    "ValidationError",
    "ZlibCompressor",
    "bootstrap",
    "bootstrap_streaming",
    "current_unit_of_work",
    "mermaid",
]

_HOMES = {
    "outbox_relay.compression": ("Compressor", "ZlibCompressor"),
    "outbox_relay.cqrs.container": ("Container", "PlainContainer"),
    "outbox_relay.cqrs.errors": (
        "CommitRefused",
        "CqrsError",
        "DirectPublishWarning",
        "HandlerAlreadyBound",
        "HandlerNotFoundError",
        "HandlerNotResolved",
        "InvalidHandler",
        "NoWayOut",
        "RolledBack",
        "StaleEvents",
        "UnitEnded",
        "ValidationError",
    ),
    "outbox_relay.cqrs.events.event": ("DomainEvent", "ECSTEvent", "Event", "NotificationEvent"),
    "outbox_relay.cqrs.events.event_emitter": ("EventEmitter",),
    "outbox_relay.cqrs.events.event_handler": ("EventHandler",),
    "outbox_relay.cqrs.events.map": ("EventMap",),
    "outbox_relay.cqrs.mediator": (
        "EventMediator",
        "Mediator",
        "RequestMediator",
        "StreamingRequestMediator",
    ),
    "outbox_relay.cqrs.mermaid": ("mermaid",),
    "outbox_relay.cqrs.message_brokers.protocol": ("Message", "MessageBroker"),
    "outbox_relay.cqrs.middlewares": ("LoggingMiddleware", "Middleware", "MiddlewareChain"),
    "outbox_relay.cqrs.producer": ("EventProducer",),
    "outbox_relay.cqrs.requests.bootstrap": ("bootstrap", "bootstrap_streaming"),
    "outbox_relay.cqrs.requests.map": ("RequestMap",),
    "outbox_relay.cqrs.requests.request": ("Request",),
    "outbox_relay.cqrs.requests.request_handler": ("RequestHandler", "StreamingRequestHandler"),
    "outbox_relay.cqrs.response": ("Response",),
    "outbox_relay.cqrs.unit_of_work": ("UnitOfWork", "UnitOfWorkFactory", "current_unit_of_work"),
    "outbox_relay.outbox.repository": ("SqlAlchemyOutboxedEventRepository",),
}

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(__name__, _HOMES)
