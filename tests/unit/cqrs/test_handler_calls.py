"""
Calling a handler: nothing that it leaves is lost, and nothing is taken that it did not mean.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession

import outbox_relay.cqrs as cqrs
from outbox_relay.cqrs.buses import CommandBus, Registry
from tests.unit.cqrs.handlers import Broken, Opens, mediator, opening
from tests.unit.cqrs.world import Account, AccountOpened, OpenAccount, OwnerSeen, World


class Misspelt(Opens):
    @property
    def events(self) -> list[Any]:
        return self._evnts  # type: ignore[attr-defined,no-any-return]


async def test_an_error_in_events_is_not_taken_for_no_events(shop: World) -> None:
    """
    I1. An AttributeError of the property itself: the state is not committed without its events.
    """
    with pytest.raises(AttributeError, match="_evnts"):
        await mediator(shop, Misspelt).send(OpenAccount(owner="ann"))

    assert await shop.state() == ([], [])


async def test_events_may_be_made_in_handle(shop: World) -> None:
    """
    Before it the handler need not have them; None is none.
    """

    class Late(cqrs.RequestHandler[OpenAccount, None]):
        @property
        def events(self) -> Any:
            return self._late

        async def handle(self, request: OpenAccount) -> None:
            self._late = [AccountOpened(owner="ann")] if request.owner == "ann" else None

    await mediator(shop, Late).send(OpenAccount(owner="ann"))
    await mediator(shop, Late).send(OpenAccount(owner="none"))

    assert await shop.events() == [("account.opened", b"ann")]


class Streams(cqrs.StreamingRequestHandler[OpenAccount, int]):
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def handle(self, request: OpenAccount) -> AsyncIterator[int]:
        self._session.add(Account(owner=request.owner))
        yield 1


class Yields:
    def handle(self, request: OpenAccount) -> Iterator[int]:
        yield 1


async def test_a_generator_is_no_answer(shop: World) -> None:
    """
    Nothing of it has run, and once it runs nobody would commit what it does.
    """
    with pytest.raises(cqrs.InvalidHandler, match="`stream`"):
        await mediator(shop, Streams).send(OpenAccount(owner="ann"))
    bus = CommandBus(unit_of_work=shop.units, registry=Registry())
    bus.register_handler(OpenAccount, Yields())
    with pytest.raises(cqrs.InvalidHandler, match="is a generator"):
        await bus.dispatch(OpenAccount(owner="ann"))
    alone = CommandBus(registry=Registry())
    alone.register_handler(OpenAccount, Yields())
    with pytest.raises(cqrs.InvalidHandler, match="is a generator"):
        alone.execute(OpenAccount(owner="ann"))


@pytest.mark.parametrize("handler", [Streams, Yields])
def test_an_event_has_no_handler_that_yields(handler: type) -> None:
    """
    It would never run: refused when it is bound.
    """

    class Handler(handler):  # type: ignore[misc]
        __orig_bases__ = ()

    with pytest.raises(cqrs.InvalidHandler, match="would never run"):
        cqrs.EventMap().bind(OpenAccount, Handler)


async def test_an_event_that_is_none_of_ours_is_not_dropped(shop: World) -> None:
    """
    A class that should have been a NotificationEvent: the error says what to derive it from.
    """

    class OrderPlaced(BaseModel):
        order_id: int

    forgets = opening(lambda owner: [AccountOpened(owner=owner), OrderPlaced(order_id=1)])
    with pytest.raises(cqrs.NoWayOut, match=r"OrderPlaced has no handler.*NotificationEvent"):
        await mediator(shop, forgets).send(OpenAccount(owner="ann"))

    assert await shop.state() == ([], [])


async def test_a_bus_does_not_drop_events_that_a_handler_leaves(shop: World) -> None:
    """
    I1. A bus reads no `events`: the error says how to publish them, and nothing is committed.
    """
    bus = CommandBus(unit_of_work=shop.units, registry=Registry())
    bus.register_handler(OpenAccount, Opens)
    with pytest.raises(cqrs.NoWayOut, match=r"Opens leaves AccountOpened.*publish_events"):
        await bus.dispatch(OpenAccount(owner="ann"))

    class Tells:
        def __init__(self) -> None:
            self.events: list[Any] = []

        def handle(self, command: OpenAccount) -> None:
            self.events.append(AccountOpened(owner=command.owner))

    alone = CommandBus(registry=Registry())
    alone.register_handler(OpenAccount, Tells())
    with pytest.raises(cqrs.NoWayOut, match="Tells leaves AccountOpened"):
        alone.execute(OpenAccount(owner="ann"))

    assert await shop.state() == ([], [])


class Catches:
    """A middleware that answers itself when the handler fails; in a SAVEPOINT, if *in_savepoint*."""

    def __init__(self, *, in_savepoint: bool) -> None:
        self._in_savepoint = in_savepoint

    async def __call__(self, request: Any, handle: Callable[[Any], Any]) -> Any:
        try:
            if not self._in_savepoint:
                return await handle(request)
            async with cqrs.current_unit_of_work().session.begin_nested():
                return await handle(request)
        except Broken:
            return "caught"


async def test_a_middleware_cannot_commit_half_of_what_a_handler_did(shop: World) -> None:
    """
    I1. It caught the handler's error: state and events that were there before it are undone.
    """
    sends = mediator(shop, middlewares=[Catches(in_savepoint=False)])
    with pytest.raises(cqrs.RolledBack, match="Broken"):
        await sends.send(OpenAccount(owner="broken"))

    assert await shop.state() == ([], [])


async def test_a_middleware_may_answer_when_a_savepoint_has_undone_it(shop: World) -> None:
    """
    The handler's events are not taken either: it raised.
    """

    class Before:
        async def __call__(self, request: Any, handle: Callable[[Any], Any]) -> Any:
            unit = cqrs.current_unit_of_work()
            unit.session.add(Account(owner="before"))
            await unit.session.flush()
            return await handle(request)

    sends = mediator(shop, middlewares=[Before(), Catches(in_savepoint=True)])
    assert await sends.send(OpenAccount(owner="broken")) == "caught"
    assert await shop.state() == (["before"], [])

    assert await sends.send(OpenAccount(owner="ann")) == 3
    assert await shop.state() == (["before", "before", "ann"], ["account.opened"])


async def test_a_handler_that_is_tried_again_tells_once() -> None:
    """
    By a middleware, and without a unit of work: of the call that did not raise.
    """
    seen: list[str] = []

    class Second(cqrs.RequestHandler[OpenAccount, str]):
        def __init__(self) -> None:
            self.events: list[Any] = []

        async def handle(self, request: OpenAccount) -> str:
            self.events.append(OwnerSeen(owner=f"call {len(self.events) + 1}"))
            if len(self.events) == 1:
                raise Broken
            return "done"

    class Sees(cqrs.EventHandler[OwnerSeen]):
        async def handle(self, event: OwnerSeen) -> None:
            seen.append(event.owner)

    async def again(request: Any, handle: Callable[[Any], Any]) -> Any:
        try:
            return await handle(request)
        except Broken:
            return await handle(request)

    sends = cqrs.bootstrap(
        commands_mapper=lambda mapper: mapper.bind(OpenAccount, Second),
        domain_events_mapper=lambda mapper: mapper.bind(OwnerSeen, Sees),
        middlewares=[again],
    )
    assert await sends.send(OpenAccount(owner="ann")) == "done"
    assert seen == ["call 2"]


async def test_one_event_may_be_said_twice(shop: World) -> None:
    """
    The same object, by a handler of events too.
    """
    seen: list[str] = []
    once = OwnerSeen(owner="once")

    class First(cqrs.DomainEvent):
        pass

    class SaysAgain(cqrs.EventHandler[First]):
        def __init__(self) -> None:
            self.events: list[Any] = []

        async def handle(self, event: First) -> None:
            self.events += [once, once]

    class Sees(cqrs.EventHandler[OwnerSeen]):
        async def handle(self, event: OwnerSeen) -> None:
            seen.append(event.owner)

    def events(mapper: cqrs.EventMap) -> None:
        mapper.bind(First, SaysAgain)
        mapper.bind(OwnerSeen, Sees)

    sends = cqrs.bootstrap(
        commands_mapper=lambda mapper: mapper.bind(OpenAccount, opening(lambda _: [First()])),
        domain_events_mapper=events,
        unit_of_work=shop.units,
    )
    await sends.send(OpenAccount(owner="ann"))

    assert seen == ["once", "once"]
