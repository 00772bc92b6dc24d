"""
Streaming: each response reaches the caller once its step is committed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

import outbox_relay.cqrs as cqrs
from outbox_relay.cqrs.unit_of_work import current_unit_of_work
from tests.unit.cqrs.world import Account, AccountOpened, OwnerSeen, World


class OpenMany(cqrs.Request):
    owners: list[str]


class OpensMany(cqrs.StreamingRequestHandler[OpenMany, str]):
    def __init__(self, session: AsyncSession) -> None:
        self._session = session
        self._events: list[Any] = []
        self.closed = False

    @property
    def events(self) -> list[Any]:
        return self._events

    async def handle(self, request: OpenMany) -> AsyncIterator[str]:
        for owner in request.owners:
            self._session.add(Account(owner=owner))
            await self._session.flush()
            self._events.append(AccountOpened(owner=owner))
            if owner == "broken":
                raise ZeroDivisionError
            yield owner
        self._events.append(AccountOpened(owner="the end"))


class Forgets(OpensMany):
    def clear_events(self) -> None:
        self._events.clear()


def streaming(shop: World, handler: type = OpensMany, **more: Any) -> cqrs.StreamingRequestMediator:
    return cqrs.bootstrap_streaming(
        commands_mapper=lambda mapper: mapper.bind(OpenMany, handler),
        unit_of_work=shop.units,
        **more,
    )


@pytest.mark.parametrize("handler", [OpensMany, Forgets])
async def test_each_response_comes_after_its_commit(shop: World, handler: type) -> None:
    """
    With its events, each of them once; what follows the last response is committed too.
    """
    seen = []
    async for owner in streaming(shop, handler).stream(OpenMany(owners=["ann", "bob"])):
        seen.append((owner, await shop.owners(), [key for _, key in await shop.events()]))
        assert current_unit_of_work() is None

    assert seen == [
        ("ann", ["ann"], [b"ann"]),
        ("bob", ["ann", "bob"], [b"ann", b"bob"]),
    ]
    assert [key for _, key in await shop.events()] == [b"ann", b"bob", b"the end"]


async def test_an_error_undoes_its_own_step(shop: World) -> None:
    """
    What was answered before stays; the stream ends.
    """
    seen = []

    async def read() -> None:
        async for owner in streaming(shop).stream(OpenMany(owners=["ann", "broken", "eve"])):
            seen.append(owner)

    with pytest.raises(ZeroDivisionError):
        await read()

    assert seen == ["ann"]
    assert await shop.state() == (["ann"], ["account.opened"])


async def test_a_stream_that_is_left_is_closed(shop: World) -> None:
    """
    What was not answered is not committed.
    """
    async with aclosing(streaming(shop).stream(OpenMany(owners=["ann", "bob"]))) as owners:
        async for _ in owners:
            break

    assert await shop.state() == (["ann"], ["account.opened"])


async def test_domain_events_of_a_step_are_handled_in_it(shop: World) -> None:
    """
    Or after its commit, as their bind says.
    """
    seen: list[Any] = []

    class Sees(OpensMany):
        async def handle(self, request: OpenMany) -> AsyncIterator[str]:
            self._events.append(OwnerSeen(owner="ann"))
            yield "ann"

    class Notes(cqrs.EventHandler[OwnerSeen]):
        async def handle(self, event: OwnerSeen) -> None:
            seen.append(event.owner)

    def events(mapper: cqrs.EventMap) -> None:
        mapper.bind(OwnerSeen, Notes, after_commit=True)

    stream = streaming(shop, Sees, domain_events_mapper=events).stream(OpenMany(owners=[]))
    async for owner in stream:
        assert seen == [owner]


async def test_without_a_unit_of_work_it_streams_as_well() -> None:
    """
    Middlewares stand around its beginning.
    """

    class Counts(cqrs.StreamingRequestHandler[OpenMany, str]):
        async def handle(self, request: OpenMany) -> AsyncIterator[str]:
            for owner in request.owners:
                yield owner

    mediator = cqrs.bootstrap_streaming(
        commands_mapper=lambda mapper: mapper.bind(OpenMany, Counts),
        middlewares=[cqrs.LoggingMiddleware()],
    )
    assert [one async for one in mediator.stream(OpenMany(owners=["a", "b"]))] == ["a", "b"]


async def test_a_handler_that_answers_once_is_refused() -> None:
    """
    The error says what it is for.
    """

    class Once(cqrs.RequestHandler[OpenMany, int]):
        async def handle(self, request: OpenMany) -> int:
            return 1

    mediator = cqrs.bootstrap_streaming(commands_mapper=lambda mapper: mapper.bind(OpenMany, Once))
    with pytest.raises(cqrs.InvalidHandler, match="`send`"):
        await anext(mediator.stream(OpenMany(owners=[])))
    assert await mediator.send(OpenMany(owners=[])) == 1


def test_a_diagram_shows_what_handles_what() -> None:
    """
    Requests, events, what runs after the commit, and what leaves the process.
    """

    class Notes(cqrs.EventHandler[Any]):
        async def handle(self, event: Any) -> None:
            pass

    def events(mapper: cqrs.EventMap) -> None:
        mapper.bind(OwnerSeen, Notes, after_commit=True)
        mapper.bind(AccountOpened, Notes)

    mediator = cqrs.bootstrap(
        commands_mapper=lambda mapper: mapper.bind(OpenMany, OpensMany),
        domain_events_mapper=events,
    )
    lines = cqrs.mermaid(mediator).splitlines()
    here, world = "tests_unit_cqrs_test_streaming", "tests_unit_cqrs_world"
    notes = f"{here}_test_a_diagram_shows_what_handles_what__locals__Notes"

    assert lines == [
        "flowchart LR",
        f'    {here}_OpenMany["OpenMany"] --> {here}_OpensMany["OpensMany"]',
        f'    {world}_OwnerSeen(["OwnerSeen"]) -. after commit .-> {notes}["Notes"]',
        f'    {world}_AccountOpened(["AccountOpened"]) --> {notes}["Notes"]',
        f'    {world}_AccountOpened(["AccountOpened"]) --> outbox[(outbox)]',
    ]
    assert cqrs.mermaid(mediator.request_map) == "\n".join(lines[:2]) + "\n"


async def test_each_step_may_have_a_task_of_its_own(shop: World) -> None:
    """
    Whoever takes the next response: what the step sends and publishes is part of it.
    """
    inner = cqrs.bootstrap(unit_of_work=shop.units)

    class Sends(OpensMany):
        async def handle(self, request: OpenMany) -> AsyncIterator[str]:
            for owner in request.owners:
                await inner.send(OpenMany(owners=[owner]))
                if owner == "broken":
                    raise ZeroDivisionError
                yield owner

    class Opened(cqrs.RequestHandler[OpenMany, None]):
        def __init__(self, session: AsyncSession) -> None:
            self._session = session

        async def handle(self, request: OpenMany) -> None:
            self._session.add(Account(owner=request.owners[0]))
            await self._session.flush()

    inner.request_map.bind(OpenMany, Opened)
    async with aclosing(
        streaming(shop, Sends).stream(OpenMany(owners=["ann", "broken"]))
    ) as owners:
        assert await anext(owners) == "ann"
        with pytest.raises(ZeroDivisionError):
            await asyncio.create_task(owners.__anext__())

    assert await shop.owners() == ["ann"]


async def test_one_event_in_two_steps_is_two_events(shop: World) -> None:
    """
    The same object, said again.
    """
    seen: list[str] = []
    once = OwnerSeen(owner="once")

    class Says(OpensMany):
        async def handle(self, request: OpenMany) -> AsyncIterator[str]:
            for owner in request.owners:
                self._events.append(once)
                yield owner

    class Notes(cqrs.EventHandler[OwnerSeen]):
        async def handle(self, event: OwnerSeen) -> None:
            seen.append(event.owner)

    mediator = streaming(
        shop, Says, domain_events_mapper=lambda mapper: mapper.bind(OwnerSeen, Notes)
    )
    assert [one async for one in mediator.stream(OpenMany(owners=["a", "b"]))] == ["a", "b"]
    assert seen == ["once", "once"]


async def test_a_step_that_rolled_back_tells_of_nothing(shop: World) -> None:
    """
    Its event would be there without the state; the steps before it stand.
    """

    class Undoes(OpensMany):
        def __init__(self, session: AsyncSession, unit: cqrs.UnitOfWork) -> None:
            super().__init__(session)
            self._unit = unit

        async def handle(self, request: OpenMany) -> AsyncIterator[str]:
            async for owner in super().handle(request):
                if owner == "undone":
                    await self._unit.rollback()
                yield owner

    mediator = streaming(shop, Undoes)
    answers = mediator.stream(OpenMany(owners=["ann", "undone"]))
    assert await anext(answers) == "ann"
    with pytest.raises(cqrs.RolledBack, match="AccountOpened"):
        await anext(answers)

    assert await shop.state() == (["ann"], ["account.opened"])


async def test_a_step_after_one_that_rolled_back_tells_of_its_own(shop: World) -> None:
    """
    What was undone is over with its step.
    """

    class Undoes(cqrs.StreamingRequestHandler[OpenMany, str]):
        def __init__(self, unit: cqrs.UnitOfWork) -> None:
            self._unit = unit
            self.events: list[Any] = []

        async def handle(self, request: OpenMany) -> AsyncIterator[str]:
            self._unit.session.add(Account(owner="undone"))
            await self._unit.session.flush()
            await self._unit.rollback()
            yield "undone"
            self._unit.session.add(Account(owner="ann"))
            self.events.append(AccountOpened(owner="ann"))
            yield "ann"

    mediator = streaming(shop, Undoes)
    assert [one async for one in mediator.stream(OpenMany(owners=[]))] == ["undone", "ann"]
    assert await shop.state() == (["ann"], ["account.opened"])
