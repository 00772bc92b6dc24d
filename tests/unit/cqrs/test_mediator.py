"""
The mediator: one handler for a request, and one fate for all that follows from it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import async_sessionmaker

import outbox_relay.cqrs as cqrs
from tests.unit.cqrs.handlers import Broken, Opens, mediator, opening
from tests.unit.cqrs.world import AccountOpened, OpenAccount, OwnerSeen, World


async def test_state_and_events_of_a_request_commit_together(shop: World) -> None:
    """
    What the handler saved, and the notification events that it returns, through the outbox.
    """
    answer = await mediator(shop).send(OpenAccount(owner="ann"))

    assert answer == 1
    assert await shop.owners() == ["ann"]
    assert await shop.events() == [("account.opened", b"ann")]


async def test_an_error_of_the_handler_rolls_back_all(shop: World) -> None:
    """
    It goes to the caller as it is; neither state nor event is left.
    """
    with pytest.raises(Broken):
        await mediator(shop).send(OpenAccount(owner="broken"))

    assert await shop.state() == ([], [])


async def test_domain_events_are_handled_in_the_same_transaction(shop: World) -> None:
    """
    Their handlers get the session of the request; their error rolls it back.
    """
    both = opening(lambda owner: [AccountOpened(owner=owner), OwnerSeen(owner=owner)])

    await mediator(shop, both).send(OpenAccount(owner="ann"))
    with pytest.raises(Broken):
        await mediator(shop, both).send(OpenAccount(owner="ungreeted"))

    assert await shop.state() == (["ann", "greeted ann"], ["account.opened"])


async def test_domain_events_may_be_handled_after_the_commit(
    shop: World, caplog: pytest.LogCaptureFixture
) -> None:
    """
    In a unit of work of their own: their error undoes what they wrote, and not the request.
    """
    both = opening(lambda owner: [AccountOpened(owner=owner), OwnerSeen(owner=owner)])
    later = mediator(shop, both, after_commit=True)

    await later.send(OpenAccount(owner="ann"))
    await later.send(OpenAccount(owner="ungreeted"))
    with pytest.raises(Broken):
        await later.send(OpenAccount(owner="broken"))

    assert await shop.state() == (["ann", "greeted ann", "ungreeted"], ["account.opened"] * 2)
    assert "Greets of OwnerSeen" in caplog.text


async def test_events_of_event_handlers_follow(shop: World) -> None:
    """
    In the same transaction, and through the same outbox.
    """

    class Announces(cqrs.EventHandler[OwnerSeen]):
        def __init__(self) -> None:
            self.events: list[Any] = []

        async def handle(self, event: OwnerSeen) -> None:
            self.events.append(AccountOpened(owner=event.owner))

    seen = opening(lambda owner: [OwnerSeen(owner=owner), OwnerSeen(owner="second")])
    sends = cqrs.bootstrap(
        commands_mapper=lambda mapper: mapper.bind(OpenAccount, seen),
        domain_events_mapper=lambda mapper: mapper.bind(OwnerSeen, Announces),
        unit_of_work=shop.units,
    )
    await sends.send(OpenAccount(owner="ann"))

    assert await shop.events() == [("account.opened", b"ann"), ("account.opened", b"second")]


async def test_a_request_within_a_request_is_part_of_it(shop: World) -> None:
    """
    One transaction: the outer one's error takes the inner one's events along.
    """
    inner = mediator(shop)

    class OpensTwo(Opens):
        async def handle(self, request: OpenAccount) -> int:
            await inner.send(OpenAccount(owner="inner"))
            return await super().handle(request)

    outer = mediator(shop, OpensTwo)
    with pytest.raises(Broken):
        await outer.send(OpenAccount(owner="broken"))
    assert await shop.state() == ([], [])

    await outer.send(OpenAccount(owner="ann"))
    assert await shop.state() == (["inner", "ann"], ["account.opened"] * 2)


async def test_a_session_maker_is_unit_of_work_enough(shop: World) -> None:
    """
    The outbox has its defaults then.
    """
    sends = cqrs.bootstrap(
        commands_mapper=lambda mapper: mapper.bind(OpenAccount, Opens),
        unit_of_work=async_sessionmaker(shop.engine),
    )
    await sends.send(OpenAccount(owner="ann"))

    assert await shop.state() == (["ann"], ["account.opened"])


async def test_handlers_may_be_ordinary_functions(shop: World) -> None:
    """
    Of requests and of events.
    """

    class Twice(cqrs.RequestHandler[OpenAccount, str]):
        events = (OwnerSeen(owner="x"),)

        def __init__(self) -> None:
            self.events = []

        def handle(self, request: OpenAccount) -> str:  # type: ignore[override]
            self.events.append(OwnerSeen(owner=request.owner))
            return request.owner * 2

    seen = []

    class Sees(cqrs.EventHandler[OwnerSeen]):
        def handle(self, event: OwnerSeen) -> None:  # type: ignore[override]
            seen.append(event.owner)

    sends = cqrs.bootstrap(
        queries_mapper=lambda mapper: mapper.bind(OpenAccount, Twice),
        domain_events_mapper=lambda mapper: mapper.bind(OwnerSeen, Sees),
    )

    assert await sends.send(OpenAccount(owner="ha")) == "haha"
    assert seen == ["ha"]


async def test_any_class_may_be_a_request_and_an_event() -> None:
    """
    A plain one, without a base of ours. A domain event of no handler is no error.
    """
    seen: list[object] = []

    class Asked:
        pass

    class Sees:
        def handle(self, event: Asked) -> None:
            seen.append(event)

    @dataclass
    class Ask:
        number: int

    class Answers:
        events = ()

        async def handle(self, request: Ask) -> int:
            self.events = [Asked(), OwnerSeen(owner="nobody handles it")]
            return request.number + 1

    sends = cqrs.bootstrap(
        queries_mapper=lambda mapper: mapper.bind(Ask, Answers),
        domain_events_mapper=lambda mapper: mapper.bind(Asked, Sees),
    )

    assert await sends.send(Ask(1)) == 2
    assert len(seen) == 1


async def test_many_requests_at_once_do_not_mix(shop: World) -> None:
    """
    One mediator, a task for each request, every second one fails: each has its own fate, and within
    each the request that it sends shares it.
    """
    inner = mediator(shop)

    class OpensTwo(Opens):
        async def handle(self, request: OpenAccount) -> int:
            await asyncio.sleep(0)
            await inner.send(OpenAccount(owner=f"inner {request.owner}"))
            answer = await super().handle(request)
            if int(request.owner) % 2:
                raise Broken
            return answer

    outer = mediator(shop, OpensTwo)
    requests = [outer.send(OpenAccount(owner=str(number))) for number in range(12)]
    answers = await asyncio.gather(*requests, return_exceptions=True)

    kept = [str(number) for number in range(0, 12, 2)]
    assert [isinstance(answer, Broken) for answer in answers] == [False, True] * 6
    assert sorted(await shop.owners()) == sorted([*kept, *(f"inner {one}" for one in kept)])
    keys = [(key or b"").decode() for _, key in await shop.events()]
    assert sorted(keys) == sorted(await shop.owners())


async def test_without_a_unit_of_work_what_comes_later_comes_at_the_end() -> None:
    """
    Of a request that succeeded, and not of one that failed after the event was seen.
    """
    seen: list[str] = []

    class Says(cqrs.RequestHandler[OpenAccount, None]):
        def __init__(self) -> None:
            self.events: list[OwnerSeen] = []

        async def handle(self, request: OpenAccount) -> None:
            self.events.append(OwnerSeen(owner=request.owner))

    class Later(cqrs.EventHandler[OwnerSeen]):
        async def handle(self, event: OwnerSeen) -> None:
            seen.append(event.owner)

    class Fails(cqrs.EventHandler[OwnerSeen]):
        async def handle(self, event: OwnerSeen) -> None:
            assert event.owner not in seen
            if event.owner == "broken":
                raise Broken

    def events(mapper: cqrs.EventMap) -> None:
        mapper.bind(OwnerSeen, Later, after_commit=True)
        mapper.bind(OwnerSeen, Fails)

    sends = cqrs.bootstrap(
        commands_mapper=lambda mapper: mapper.bind(OpenAccount, Says), domain_events_mapper=events
    )
    await sends.send(OpenAccount(owner="ann"))
    with pytest.raises(Broken):
        await sends.send(OpenAccount(owner="broken"))

    assert seen == ["ann"]
