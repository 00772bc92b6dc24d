"""Where the events of a request go: to handlers in process, to the outbox, or to a broker."""

from __future__ import annotations

import logging
import warnings
from collections import deque
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from outbox_relay.cqrs.calling import answer, events_before, new_events
from outbox_relay.cqrs.container import Container, adapted
from outbox_relay.cqrs.errors import DirectPublishWarning, NoWayOut
from outbox_relay.cqrs.events.event import is_event, leaves_the_process
from outbox_relay.cqrs.events.map import EventMap
from outbox_relay.cqrs.message_brokers.protocol import Message, MessageBroker, message_of
from outbox_relay.cqrs.scope import Scopes, Work
from outbox_relay.cqrs.unit_of_work import Units, units_of

logger = logging.getLogger(__name__)


class EventEmitter:
    """
    Events are handled by the handlers that *event_map* has for them. Notification and ECST events
    are also written by the outbox of the unit of work, or handed to *message_broker*.

    A broker gets them when everything else is done: a crash before that loses them, and a
    DirectPublishWarning says so once.
    """

    def __init__(
        self,
        event_map: EventMap | None = None,
        container: Any = None,
        message_broker: MessageBroker | None = None,
        *,
        unit_of_work: Units | None = None,
    ) -> None:
        self.event_map = EventMap() if event_map is None else event_map
        self._broker = message_broker
        self._has_warned = False
        self.scopes = Scopes(adapted(container), None)
        if unit_of_work is not None:
            self.use(unit_of_work)

    def use(self, units: Units) -> None:
        """Take part in *units*: their outbox takes what leaves the process."""
        if self._broker is not None:
            raise TypeError(
                "say unit_of_work or message_broker: with an outbox the relay publishes the events"
            )
        self.scopes = Scopes(self.scopes.container, units_of(units))

    async def emit(self, *events: Any) -> None:
        """
        *events* in their order, and what follows from them: in the unit of work that this task is
        in, else in one of their own.
        """
        async with self.scopes.open() as work:
            await self.emit_all(events, work)

    async def emit_all(self, events: Iterable[Any], work: Work) -> None:
        """*events* in their order, and what follows from them, as part of *work*."""
        outgoing: list[Any] = []
        waiting = deque(events)
        while waiting:
            event = waiting.popleft()
            if leaves_the_process(event):
                outgoing.append(event)
            elif not is_event(event) and type(event) not in self.event_map:
                name = type(event).__name__
                raise NoWayOut(
                    f"{name} has no handler here and is no event that leaves the process, so it would "
                    f"be lost: derive it from NotificationEvent, or from DomainEvent, or bind a "
                    f"handler, mapper.bind({name}, ...)"
                )
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
        work.require_its_state(events)
        if self._broker is not None:
            await self._send(events, work)
        elif work.unit is not None:
            await work.unit.add(*events)
        else:
            names = ", ".join(sorted({type(event).__name__ for event in events}))
            raise NoWayOut(
                f"{names}: there is neither an outbox nor a broker to take it: pass "
                "unit_of_work=..., or message_broker=... if events may be lost"
            )

    async def _send(self, events: Sequence[Any], work: Work) -> None:
        messages = [message_of(event) for event in events]
        self._warn_once(messages[0])
        for message in messages:
            message.to_json()  # all or none: what cannot be encoded is refused before the first
        for message in messages:
            if work.unit is not None:
                # Part of somebody's transaction: not before its commit.
                work.unit.after_commit(partial(self._broker_send, message))
            else:
                await self._broker_send(message)

    async def _broker_send(self, message: Message) -> None:
        assert self._broker is not None
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
    before = events_before(handler)
    await answer(handler.handle, event)
    return new_events(handler, before)
