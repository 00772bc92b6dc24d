"""
Mediators: from a request to its handler, and from its events to where they belong.

With a `UnitOfWorkFactory` each request is one transaction: what its handler saves, what the handlers
of its domain events save, and the rows of its notification events in the outbox are committed
together, or none of them is.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from outbox_relay.cqrs.calling import HandlerCall, new_events
from outbox_relay.cqrs.container import adapted
from outbox_relay.cqrs.errors import HandlerNotFoundError, InvalidHandler, StaleEvents
from outbox_relay.cqrs.events.event_emitter import EventEmitter
from outbox_relay.cqrs.events.map import EventMap
from outbox_relay.cqrs.middlewares.base import Handle, MiddlewareChain
from outbox_relay.cqrs.requests.map import RequestMap
from outbox_relay.cqrs.scope import Scopes, Work
from outbox_relay.cqrs.unit_of_work import Units, units_of


class _Mediator:
    def __init__(
        self,
        container: Any,
        event_emitter: EventEmitter | None,
        middleware_chain: MiddlewareChain | None,
        event_map: EventMap | None,
        unit_of_work: Units | None,
    ) -> None:
        units = units_of(unit_of_work)
        if event_emitter is None:
            event_emitter = EventEmitter(event_map, container, unit_of_work=units)
        elif event_map is not None and event_map is not event_emitter.event_map:
            raise TypeError("say event_map or event_emitter: the emitter has a map already")
        elif units is not None:
            event_emitter.use(units)
        self._emitter = event_emitter
        own = event_emitter.scopes if container is None else None
        self._scopes = own or Scopes(adapted(container), event_emitter.scopes.units)
        self._chain = MiddlewareChain() if middleware_chain is None else middleware_chain

    @property
    def event_map(self) -> EventMap:
        """Which handlers the events have."""
        return self._emitter.event_map


class RequestMediator(_Mediator):
    """Sends each command or query to its one handler."""

    def __init__(
        self,
        request_map: RequestMap,
        container: Any = None,
        event_emitter: EventEmitter | None = None,
        *,
        middleware_chain: MiddlewareChain | None = None,
        event_map: EventMap | None = None,
        unit_of_work: Units | None = None,
    ) -> None:
        super().__init__(container, event_emitter, middleware_chain, event_map, unit_of_work)
        self.request_map = request_map

    async def send(self, request: Any) -> Any:
        """
        What the handler of *request* answers, once everything that belongs to it is committed.

        An error of the handler, of a domain event's handler, or of an event that cannot be written
        goes to the caller, and nothing is committed. Within another request of the same task it is
        part of that one's unit of work. Raises HandlerNotFoundError before anything is begun.
        """
        handler_type = self.request_map.get(type(request))
        async with self._scopes.open() as work:
            call = HandlerCall(await _made(handler_type, work), work.unit)
            response = await self._chain.wrap(call)(request)
            if call.events:
                await self._emitter.emit_all(call.events, work)
        return response


Mediator = RequestMediator
"""diator's name of it."""


class StreamingRequestMediator(RequestMediator):
    """As `RequestMediator`, and for handlers that answer with a stream of responses."""

    async def stream(self, request: Any) -> AsyncGenerator[Any, None]:
        """
        The responses of the handler of *request*, each once what was done for it is committed.

        Each step, up to its ``yield``, is a transaction, on one session: an error ends the stream
        and undoes its own step. A stream is never part of another unit of work. Iterate to its end,
        or close it (``contextlib.aclosing``).
        """
        handler_type = self.request_map.get(type(request))
        async with self._scopes.open_steps() as work:
            with work.step():
                handler = await _made(handler_type, work)
                responses = await self._chain.wrap(_begun(handler.handle))(request)
            async with aclosing(responses):
                while True:
                    with work.step():
                        more, response = await _next(responses)
                        await self._emit(handler, work)
                        await work.finish()
                    if not more:
                        return
                    yield response

    async def _emit(self, handler: Any, work: Work) -> None:
        events = new_events(handler, work.emitted)
        forget = getattr(handler, "clear_events", None)
        if forget is not None:
            forget()
        else:
            work.emitted += events
        await self._emitter.emit_all(events, work)


class EventMediator(_Mediator):
    """Lets the handlers of an event that came from elsewhere, such as a broker, handle it."""

    def __init__(
        self,
        event_map: EventMap,
        container: Any = None,
        event_emitter: EventEmitter | None = None,
        *,
        middleware_chain: MiddlewareChain | None = None,
        unit_of_work: Units | None = None,
    ) -> None:
        super().__init__(container, event_emitter, middleware_chain, event_map, unit_of_work)

    async def send(self, event: Any) -> None:
        """
        Let the handlers of *event* handle it, in one unit of work; what they cause goes its way.

        Raises HandlerNotFoundError if it has none: an event that nobody handles would be lost.
        """
        if type(event) not in self.event_map:
            name = type(event).__name__
            raise HandlerNotFoundError(f"{name} has no handler: mapper.bind({name}, ...)")
        async with self._scopes.open() as work:

            async def handle(event: Any) -> None:
                await self._emitter.emit_all(await self._emitter.handle(event, work), work)

            await self._chain.wrap(handle)(event)


async def _made(handler_type: type, work: Work) -> Any:
    handler: Any = await work.container.resolve(handler_type)
    if getattr(handler, "events", ()):
        raise StaleEvents(
            f"{handler_type.__name__} still has the events of an earlier request, which would go "
            "out twice: the container must make a new handler for each"
        )
    return handler


def _begun(handle: Any) -> Handle:
    async def begin(request: Any) -> Any:
        responses = handle(request)
        if not hasattr(responses, "__anext__"):
            if inspect.iscoroutine(responses):
                responses.close()
            raise InvalidHandler(
                f"{type(request).__name__}: `handle` of its handler is no async generator; "
                "what answers once is for `send`"
            )
        return responses

    return begin


async def _next(responses: Any) -> tuple[bool, Any]:
    try:
        return True, await anext(responses)
    except StopAsyncIteration:
        return False, None
