"""
The user's view of the command side. Never run: mypy reads it, and each ignore must be needed.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Any, assert_type

from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

import outbox_relay
import outbox_relay.cqrs as cqrs
from outbox_relay import (
    NotificationEvent,
    Outbox,
)
from outbox_relay.cqrs.buses import CommandBus, EventPublisher, command_handler

misspelt = (
    cqrs.RequestMediatorr,  # type: ignore[attr-defined]
    outbox_relay.consumer.EventConsumerr,  # type: ignore[attr-defined]
)


class OrderPlaced(NotificationEvent, name="order.placed", topic="orders", key="order_id"):
    order_id: int


class PlaceOrder(cqrs.Request):
    total: int


class OrderRead(cqrs.Response):
    order_id: int


class ByProperty(cqrs.RequestHandler[PlaceOrder, OrderRead]):
    def __init__(self, session: AsyncSession, unit: cqrs.UnitOfWork) -> None:
        self._session, self._unit = session, unit
        self._events: list[cqrs.Event] = []

    @property
    def events(self) -> Sequence[cqrs.Event]:
        return self._events

    async def handle(self, request: PlaceOrder) -> OrderRead:
        assert_type(self._unit.session, AsyncSession)
        self._unit.after_commit(lambda: print(request.total))
        await self._unit.add(OrderPlaced(order_id=1), topic="orders")
        self._events.append(OrderPlaced(order_id=1))
        return OrderRead(order_id=1)


class ByAttribute(cqrs.RequestHandler[PlaceOrder, None]):
    def __init__(self) -> None:
        self.events: list[cqrs.Event] = []

    async def handle(self, request: PlaceOrder) -> None:
        self.events.append(OrderPlaced(order_id=request.total))


class WrongRequest(cqrs.RequestHandler[PlaceOrder, None]):
    async def handle(self, request: OrderRead) -> None:  # type: ignore[override]
        pass


class WrongResponse(cqrs.RequestHandler[PlaceOrder, None]):
    async def handle(self, request: PlaceOrder) -> int:  # type: ignore[override]
        return 1


class Streams(cqrs.StreamingRequestHandler[PlaceOrder, int]):
    async def handle(self, request: PlaceOrder) -> AsyncIterator[int]:
        yield request.total


class Notes(cqrs.EventHandler[OrderPlaced]):
    async def handle(self, event: OrderPlaced) -> None:
        assert_type(event.order_id, int)


def commands(mapper: cqrs.RequestMap) -> None:
    mapper.bind(PlaceOrder, ByProperty)
    mapper.bind(PlaceOrder, ByAttribute())  # type: ignore[arg-type]


def events(mapper: cqrs.EventMap) -> None:
    mapper.bind(OrderPlaced, Notes, after_commit=True)
    mapper.bind(OrderPlaced, Notes, True)  # type: ignore[call-arg]


async def mediators(engine: AsyncEngine) -> None:
    sessions = async_sessionmaker(engine)
    units = cqrs.UnitOfWorkFactory(sessions, Outbox(source="/shop"))
    sends = cqrs.bootstrap(
        commands_mapper=commands, domain_events_mapper=events, unit_of_work=units
    )
    assert_type(await sends.send(PlaceOrder(total=1)), Any)
    async for answer in sends.stream(PlaceOrder(total=1)):
        assert_type(answer, Any)
    cqrs.bootstrap(unit_of_work=sessions)
    cqrs.bootstrap(unit_of_work=engine)  # type: ignore[arg-type]
    cqrs.bootstrap_streaming(unit_of_work=units)
    async with units.begin() as unit:
        assert_type(unit, cqrs.UnitOfWork)
        await unit.add(1.5)  # type: ignore[arg-type]
    assert_type(cqrs.current_unit_of_work(), cqrs.UnitOfWork | None)


@command_handler(PlaceOrder)
class OnBus:
    def handle(self, command: PlaceOrder) -> int:
        return command.total


def test_handlers(handler: OnBus) -> None:
    assert_type(handler.handle(PlaceOrder(total=1)), int)


async def buses(engine: AsyncEngine) -> None:
    bus = CommandBus(unit_of_work=async_sessionmaker(engine))
    assert_type(await bus.dispatch(PlaceOrder(total=1)), Any)
    assert_type(bus.execute(PlaceOrder(total=1)), Any)
    await EventPublisher(unit_of_work=async_sessionmaker(engine)).publish_events([])
    CommandBus(unit_of_work=engine)  # type: ignore[arg-type]
