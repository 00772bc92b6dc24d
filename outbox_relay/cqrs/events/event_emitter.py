"""Where the events of a request go: to handlers in process, to the outbox, or to a broker."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

from outbox_relay.cqrs.container import Container, adapted
from outbox_relay.cqrs.errors import DirectPublishWarning, NoWayOut
from outbox_relay.cqrs.events.event import leaves_the_process
from outbox_relay.cqrs.events.map import EventMap
from outbox_relay.cqrs.message_brokers.protocol import Message, MessageBroker, message_of
from outbox_relay.cqrs.scope import Scopes, Work
from outbox_relay.cqrs.unit_of_work import UnitOfWorkFactory

logger = logging.getLogger(__name__)


class EventEmitter:
    """
    Domain events are handled by the handlers in *event_map*. Notification and ECST events are
    written by the outbox of the unit of work, or handed to *message_broker*.

    A broker gets them when everything else is done: a crash before that loses them, and a
    DirectPublishWarning says so once.
    """

    def __init__(
        self,
        event_map: EventMap | None = None,
        container: Any = None,
        message_broker: MessageBroker | None = None,
        *,
        unit_of_work: UnitOfWorkFactory | None = None,
    ) -> None:
        self.event_map = EventMap() if event_map is None else event_map
        self._broker = message_broker
        self._has_warned = False
        self.scopes = Scopes(adapted(container), None)
        if unit_of_work is not None:
            self.use(unit_of_work)

    def use(self, units: UnitOfWorkFactory) -> None:
        """Take part in *units*: their outbox takes what leaves the process."""
        if self._broker is not None:
            raise TypeError(
                "say unit_of_work or message_broker: with an outbox the relay publishes the events"
            )
        self.scopes = Scopes(self.scopes.container, units)

    async def emit(self, event: Any) -> None:
        """*event*, and what follows from it, in a unit of work of its own."""
        async with self.scopes.open() as work:
            await self.emit_all([event], work)

    async def emit_all(self, events: Iterable[Any], work: Work) -> None:
        """*events* in their order, and what follows from them, as part of *work*."""
        outgoing: list[Any] = []
        waiting = deque(events)
        while waiting:
            event = waiting.popleft()
            if leaves_the_process(event):
                outgoing.append(event)
            else:
                waiting.extend(await self.handle(event, work))
        if outgoing:
            await self._let_out(outgoing, work)

    async def handle(self, event: Any, work: Work) -> list[Any]:
        """Let the handlers of *event* handle it. The events that follow."""
        following: list[Any] = []
        for handler, after_commit in self.event_map.bindings(type(event)):
            if after_commit:
                work.after_commit(_Later(self, event, handler))
            else:
                following += await _call(work.container, handler, event)
        return following

    async def handle_alone(self, event: Any, handler: type) -> None:
        """Let *handler* handle *event* in a unit of work of its own."""
        async with self.scopes.open() as work:
            await self.emit_all(await _call(work.container, handler, event), work)

    async def _let_out(self, events: Sequence[Any], work: Work) -> None:
        if work.unit is not None:
            await work.unit.add(*events)
            return
        if self._broker is None:
            names = ", ".join(sorted({type(event).__name__ for event in events}))
            raise NoWayOut(
                f"{names}: there is neither an outbox nor a broker to take it: pass "
                "unit_of_work=..., or message_broker=... if events may be lost"
            )
        messages = [message_of(event) for event in events]
        self._warn_once(messages[0])
        for message in messages:
            message.to_json()  # all or none: what cannot be encoded is refused before the first
        for message in messages:
            await self._broker.send_message(message)

    def _warn_once(self, message: Message) -> None:
        if self._has_warned:
            return
        self._has_warned = True
        warnings.warn(
            f"event {message.message_name!r} goes straight to {type(self._broker).__name__}: a crash "
            "or an outage after the handler's commit loses it; pass unit_of_work=... instead, and "
            "let a relay publish it",
            DirectPublishWarning,
            stacklevel=5,
        )


class _Later:
    """A handler to call after the commit; logs name it."""

    def __init__(self, emitter: EventEmitter, event: Any, handler: type) -> None:
        self._emitter, self._event, self._handler = emitter, event, handler

    async def __call__(self) -> None:
        await self._emitter.handle_alone(self._event, self._handler)

    def __repr__(self) -> str:
        return f"{self._handler.__name__} of {type(self._event).__name__}"


async def _call(container: Container, handler_type: type, event: Any) -> list[Any]:
    handler: Any = await container.resolve(handler_type)
    logger.debug("%s handles %s", handler_type.__name__, type(event).__name__)
    # The container may give the same handler for two events: what it had before is not new.
    before = list(getattr(handler, "events", ()))
    result = handler.handle(event)
    if inspect.isawaitable(result):
        await result
    return new_events(handler, before)


def new_events(handler: Any, before: Sequence[Any]) -> list[Any]:
    """The events of *handler* that are not among those of *before*."""
    known = {id(event) for event in before}
    return [event for event in getattr(handler, "events", ()) if id(event) not in known]
