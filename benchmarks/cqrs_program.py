"""
python-cqrs under measurement, in its own virtual environment, used as its documents say.

Its argument names what to do: "fill" its table with orders, "drain" it to Kafka, "insert" one event
in each transaction, or "mediate": send commands to handlers, with an event and without. A drain leaves out the pause of 10 s between batches that its documents show, and
ends with the first empty batch.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import cqrs
import di
from cqrs.adapters.kafka import kafka_producer_factory
from cqrs.bootstrap.requests import bootstrap
from cqrs.compressors.zlib import ZlibCompressor
from cqrs.message_brokers.kafka import KafkaMessageBroker
from cqrs.outbox.sqlalchemy import Base, SqlAlchemyOutboxedEventRepository
from di.dependent import Dependent
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from benchmarks.child import Stopwatch, say, wait_for_word
from benchmarks.mediating import EMPTY, EMPTY_TIMES, WITH_EVENT
from benchmarks.orders import EVENT_NAME, make_lines, order
from benchmarks.transactions import measure_transactions

Event = cqrs.NotificationEvent[dict[str, Any]]
ROWS_A_TRANSACTION = 500


def repository(session: AsyncSession) -> SqlAlchemyOutboxedEventRepository:
    """As its documents make it."""
    return SqlAlchemyOutboxedEventRepository(session, ZlibCompressor())


def event(number: int, topic: str) -> Any:
    """An order as its event."""
    return Event(event_name=EVENT_NAME, topic=topic, payload=order(number))


async def fill(sessions: Any, engine: Any, topic: str, rows: int) -> dict[str, float]:
    """Its table, and the orders in it."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    used = Stopwatch()
    for start in range(0, rows, ROWS_A_TRANSACTION):
        async with sessions() as session:
            events = repository(session)
            for number in range(start, min(start + ROWS_A_TRANSACTION, rows)):
                events.add(event(number, topic))
            await events.commit()
    return used.read()


async def drain(sessions: Any, bootstrap: str) -> dict[str, float]:
    """Publish batch after batch, until one is empty."""
    used = Stopwatch()
    kafka = kafka_producer_factory(dsn=bootstrap)
    async with sessions() as session:
        producer = cqrs.EventProducer(KafkaMessageBroker(producer=kafka), repository(session))
        async for messages in producer.event_batch_generator():
            if not messages:
                break
            for message in messages:
                await producer.send_message(message)
            await producer.repository.commit()
    found = used.read()
    await kafka._producer.stop()  # it has no public way to close
    return found


async def insert(sessions: Any, topic: str, count: int) -> None:
    """One event in each transaction, again and again, when told to."""
    number = 0

    async def add() -> None:
        nonlocal number
        number += 1
        async with sessions() as session:
            events = repository(session)
            events.add(event(number, topic))
            await events.commit()

    while wait_for_word() == "go":
        say(**await measure_transactions(add, count))


@dataclass
class Command(cqrs.Request[None]):  # type: ignore[misc]
    """Asks for an order, or for nothing."""

    number: int


class EmptyHandler(cqrs.RequestHandler[Command]):  # type: ignore[misc]
    """Does nothing."""

    async def handle(self, request: Command) -> None:
        """See RequestHandler."""


class OrderHandler(cqrs.RequestHandler[Command]):  # type: ignore[misc]
    """Writes an event to the outbox and commits, as its documents do."""

    topic = ""

    def __init__(self, outbox: SqlAlchemyOutboxedEventRepository) -> None:
        self._outbox = outbox

    async def handle(self, request: Command) -> None:
        """See RequestHandler."""
        self._outbox.add(event(request.number, self.topic))
        await self._outbox.commit()


async def mediate(sessions: Any, topic: str, count: int) -> None:
    """Commands to a handler of the kind that is named, again and again."""
    OrderHandler.topic = topic
    container = di.Container()

    async def repositories() -> AsyncIterator[SqlAlchemyOutboxedEventRepository]:
        async with sessions() as session:
            yield repository(session)

    provider = Dependent(repositories, scope="request")
    container.bind(di.bind_by_type(provider, SqlAlchemyOutboxedEventRepository))
    handlers = {EMPTY: EmptyHandler, WITH_EVENT: OrderHandler}
    number = 0
    while (word := wait_for_word()) in handlers:
        handler = handlers[word]
        mediator = bootstrap(
            di_container=container,
            commands_mapper=lambda mapper, handler=handler: mapper.bind(Command, handler),
        )

        async def send(mediator: Any = mediator) -> None:
            nonlocal number
            number += 1
            await mediator.send(Command(number=number))

        times = count * EMPTY_TIMES if word == EMPTY else count
        say(**await measure_transactions(send, times))


async def run(argument: dict[str, Any]) -> None:
    """What the argument says."""
    cqrs.OutboxedEventMap.register(EVENT_NAME, Event)
    engine = create_async_engine(argument["url"], isolation_level="REPEATABLE READ")
    sessions = async_sessionmaker(engine)
    match argument["do"]:
        case "fill":
            say(**await fill(sessions, engine, argument["topic"], argument["rows"]))
        case "drain":
            say(ready=True)
            if wait_for_word():
                say(**await drain(sessions, argument["bootstrap"]))
        case "insert":
            make_lines()
            say(ready=True)
            await insert(sessions, argument["topic"], argument["count"])
        case "mediate":
            make_lines()
            say(ready=True)
            await mediate(sessions, argument["topic"], argument["count"])
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(run(json.loads(sys.argv[1])))
