"""
An application under measurement: commands through a mediator, with an event and without.

It answers each word that is the name of a handler's kind, and ends with any other.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from typing import Any

import di
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

import outbox_relay.cqrs as cqrs
from benchmarks.child import say, wait_for_word
from benchmarks.mediating import EMPTY, EMPTY_TIMES, WITH_EVENT
from benchmarks.orders import EVENT_NAME, make_lines, order
from benchmarks.transactions import measure_transactions


class Command(cqrs.Request):
    """Asks for an order, or for nothing."""

    number: int


class EmptyHandler(cqrs.RequestHandler[Command, None]):
    """Does nothing."""

    async def handle(self, request: Command) -> None:
        """See RequestHandler."""


class OrderHandler(cqrs.RequestHandler[Command, None]):
    """Returns an event, which the unit of work writes."""

    topic = ""

    def __init__(self) -> None:
        self._events: list[Any] = []

    @property
    def events(self) -> Sequence[Any]:
        """See RequestHandler."""
        return self._events

    async def handle(self, request: Command) -> None:
        """See RequestHandler."""
        event = cqrs.NotificationEvent(
            event_name=EVENT_NAME, event_topic=self.topic, payload=order(request.number)
        )
        self._events.append(event)


async def run(argument: dict[str, Any]) -> None:
    """Answer the words."""
    OrderHandler.topic = argument["topic"]
    engine = create_async_engine(argument["url"])
    units = cqrs.UnitOfWorkFactory(async_sessionmaker(engine))
    mediators = {
        EMPTY: cqrs.bootstrap(
            di.Container(),
            commands_mapper=lambda mapper: mapper.bind(Command, EmptyHandler),
            middlewares=[cqrs.LoggingMiddleware()],
        ),
        WITH_EVENT: cqrs.bootstrap(
            di.Container(),
            commands_mapper=lambda mapper: mapper.bind(Command, OrderHandler),
            middlewares=[cqrs.LoggingMiddleware()],
            unit_of_work=units,
        ),
    }
    number = 0
    make_lines()
    say(ready=True)
    while (word := wait_for_word()) in mediators:
        mediator = mediators[word]

        async def send(mediator: cqrs.RequestMediator = mediator) -> None:
            nonlocal number
            number += 1
            await mediator.send(Command(number=number))

        times = argument["count"] * (EMPTY_TIMES if word == EMPTY else 1)
        say(**await measure_transactions(send, times))
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(run(json.loads(sys.argv[1])))
