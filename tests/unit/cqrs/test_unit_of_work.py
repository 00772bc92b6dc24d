"""
The unit of work: one transaction, its events, and what is called after the commit.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

import outbox_relay.cqrs as cqrs
from outbox_relay import MissingKey, Outbox
from outbox_relay.cqrs.buses import CommandBus, EventPublisher, Registry, current_session
from outbox_relay.cqrs.unit_of_work import UnitOfWork, current_unit_of_work
from tests.unit.cqrs.handlers import Broken
from tests.unit.cqrs.world import Account, AccountOpened, OpenAccount, World


async def test_state_and_events_commit_together(shop: World) -> None:
    """
    The end of the block commits both, the state first.
    """
    async with shop.units.begin() as unit:
        unit.session.add(Account(owner="ann"))
        await unit.add(AccountOpened(owner="ann"))

    assert await shop.state() == (["ann"], ["account.opened"])


async def test_an_exception_rolls_back_both(shop: World) -> None:
    """
    And goes on to the caller as it is.
    """
    with pytest.raises(Broken):  # noqa: PT012 - the block's end counts
        async with shop.units.begin() as unit:
            unit.session.add(Account(owner="ann"))
            await unit.add(AccountOpened(owner="ann"))
            raise Broken

    assert await shop.state() == ([], [])


async def test_an_event_that_is_refused_rolls_back(shop: World) -> None:
    """
    An event that cannot be written is an error like any other.
    """
    with pytest.raises(MissingKey):  # noqa: PT012 - the block's end counts
        async with shop.units.begin() as unit:
            unit.session.add(Account(owner="ann"))
            await unit.add({"owner": "ann"}, name="n", topic="t")

    assert await shop.state() == ([], [])


async def test_a_session_that_is_not_used_connects_nowhere() -> None:
    """
    A request that needs no database costs none.
    """
    nowhere = create_async_engine("sqlite+aiosqlite:////nowhere/at/all.db")
    called = []
    async with cqrs.UnitOfWorkFactory(async_sessionmaker(nowhere)).begin() as unit:
        unit.after_commit(lambda: called.append(1))

    assert called == [1]


async def test_a_unit_within_a_unit_is_that_one(shop: World) -> None:
    """
    One transaction, which the outermost block ends.
    """
    called = []
    with pytest.raises(Broken):  # noqa: PT012 - the block's end counts
        async with shop.units.begin() as outer:
            async with shop.units.begin() as inner:
                assert inner is outer
                inner.session.add(Account(owner="ann"))
                inner.after_commit(lambda: called.append(1))
            raise Broken

    assert (called, await shop.owners()) == ([], [])


async def test_a_part_that_failed_takes_the_whole_along(shop: World) -> None:
    """
    Its error was caught, but what it had written is in the transaction: nothing may commit.
    """
    with pytest.raises(cqrs.RolledBack, match="Broken") as caught:  # noqa: PT012 - the block's end counts
        async with shop.units.begin() as outer:
            outer.session.add(Account(owner="outer"))
            try:
                async with shop.units.begin() as inner:
                    await inner.add(AccountOpened(owner="ann"))
                    raise Broken
            except Broken:
                pass

    assert isinstance(caught.value.__cause__, Broken)
    assert await shop.state() == ([], [])


async def test_another_task_has_a_unit_of_its_own(shop: World) -> None:
    """
    A session serves one task; and a task that outlives its request must not commit half of it.
    """

    async def other() -> UnitOfWork:
        assert current_unit_of_work() is None
        async with shop.units.begin() as unit:
            return unit

    async with shop.units.begin() as unit:
        assert current_unit_of_work() is unit
        assert await asyncio.create_task(other()) is not unit
    assert current_unit_of_work() is None


async def test_two_databases_have_two_units(shop: World) -> None:
    """
    Also with one outbox, which is no connection: what is written in one goes to no other.
    """
    elsewhere = create_async_engine("sqlite+aiosqlite://")
    others = cqrs.UnitOfWorkFactory(async_sessionmaker(elsewhere), shop.units.outbox)
    async with shop.units.begin() as unit:
        async with others.begin() as other:
            assert other is not unit
            assert other.session.bind is elsewhere
        assert current_unit_of_work() is unit
    await elsewhere.dispose()


async def test_two_outboxes_have_two_units(shop: World) -> None:
    """
    Their events are written as each of them says.
    """
    others = cqrs.UnitOfWorkFactory(shop.units.sessions, Outbox(source="/other"))
    async with shop.units.begin() as unit, others.begin() as other:
        assert other is not unit


async def test_factories_of_the_same_sessions_make_the_same_unit(shop: World) -> None:
    """
    I1. A mediator and a publisher that were each given the session maker share one transaction.
    """
    publisher = EventPublisher(unit_of_work=shop.units.sessions)

    class Fails:
        async def handle(self, command: OpenAccount) -> None:
            await publisher.publish_events([AccountOpened(owner=command.owner)])
            raise Broken

    bus = CommandBus(unit_of_work=shop.units.sessions, registry=Registry())
    bus.register_handler(OpenAccount, Fails())
    with pytest.raises(Broken):
        await bus.dispatch(OpenAccount(owner="ann"))
    async with (
        cqrs.UnitOfWorkFactory(shop.units.sessions).begin() as unit,
        cqrs.UnitOfWorkFactory(shop.units.sessions).begin() as same,
    ):
        assert same is unit

    assert await shop.events() == []


@pytest.mark.parametrize("what", ["engine", "session"])
async def test_what_makes_no_units_is_refused(shop: World, what: str) -> None:
    """
    When the mediator, bus or publisher is made; the error says what to pass.
    """
    wrong: Any = shop.engine if what == "engine" else shop.units.sessions()
    for make in (cqrs.bootstrap, cqrs.EventEmitter, CommandBus, EventPublisher):
        with pytest.raises(TypeError, match=r"pass a UnitOfWorkFactory"):
            make(unit_of_work=wrong)


async def test_a_thread_is_in_no_unit_of_work(shop: World) -> None:
    """
    It inherits the context, but no session may serve two threads: the error says what to do.
    """
    async with shop.units.begin():
        assert await asyncio.to_thread(current_unit_of_work) is None
        with pytest.raises(LookupError, match=r"units\.begin"):
            await asyncio.to_thread(current_session)


async def test_the_session_commits_with_its_unit_only(shop: World) -> None:
    """
    A handler that commits by itself would part the state from its events.
    """
    with pytest.raises(cqrs.CommitRefused, match=r"unit\.commit"):  # noqa: PT012 - the block's end counts
        async with shop.units.begin() as unit:
            unit.session.add(Account(owner="ann"))
            await unit.session.commit()
    assert await shop.owners() == []

    async with shop.units.begin() as unit:
        async with unit.session.begin_nested():
            unit.session.add(Account(owner="ann"))
        await unit.commit()
        unit.session.add(Account(owner="bob"))
    assert await shop.owners() == ["ann", "bob"]


async def test_other_sessions_commit_as_ever(shop: World) -> None:
    """
    The refusal is for sessions of a unit of work, and only while it is open.
    """
    async with shop.units.begin() as unit:
        pass
    unit.session.add(Account(owner="later"))
    await unit.session.commit()
    await unit.session.close()

    assert await shop.owners() == ["later"]


async def test_a_cancelled_unit_rolls_back(shop: World) -> None:
    """
    Wherever it was; the connection goes back to the pool without a transaction.
    """
    begun = asyncio.Event()
    called = []

    async def work() -> None:
        async with shop.units.begin() as unit:
            unit.after_commit(lambda: called.append(1))
            unit.session.add(Account(owner="ann"))
            await unit.add(AccountOpened(owner="ann"))
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert called == []
    assert await shop.state() == ([], [])


async def test_only_async_sessions_will_do(shop: World) -> None:
    """
    The error says what to pass.
    """
    from sqlalchemy.orm import Session

    units = cqrs.UnitOfWorkFactory(Session)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="async_sessionmaker"):
        async with units.begin():
            pass


async def test_it_is_a_dependency_of_fastapi(shop: World) -> None:
    """
    With scope="function" the commit comes before the response: its failure is the response.
    """
    import httpx
    from fastapi import Depends, FastAPI, HTTPException

    app = FastAPI()
    begun = Depends(shop.units, scope="function")
    at_response: list[list[str]] = []

    @app.middleware("http")
    async def note(request, call_next):
        response = await call_next(request)
        at_response.append(await shop.owners())
        return response

    @app.post("/{owner}")
    async def post(owner: str, unit: UnitOfWork = begun) -> str:
        unit.session.add(Account(owner=owner))
        await unit.add(AccountOpened(owner=owner))
        if owner == "bad":
            raise HTTPException(409)
        return owner

    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
        assert (await client.post("/ann")).status_code == 200
        assert (await client.post("/bad")).status_code == 409

    assert at_response == [["ann"], ["ann"]]
    assert await shop.state() == (["ann"], ["account.opened"])


async def test_a_session_class_of_ones_own_will_do(shop: World) -> None:
    """
    As any maker of AsyncSessions.
    """

    class Mine(AsyncSession):
        pass

    units = cqrs.UnitOfWorkFactory(lambda: Mine(shop.engine))
    async with units.begin() as unit:
        assert isinstance(unit.session, Mine)


async def test_an_event_comes_after_the_state_that_it_tells_of(shop: World) -> None:
    """
    I4. The locks of the state's rows are what keeps two transactions on one key in order: also what
    the session has not flushed yet is written first.
    """
    written: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        written.append(statement.split()[2])

    sa.event.listen(shop.engine.sync_engine, "before_cursor_execute", note)
    async with shop.units.begin() as unit:
        unit.session.add(Account(owner="ann"))
        await unit.add(AccountOpened(owner="ann"))

    assert written == ["accounts", "outbox"]


async def test_the_session_is_closed_by_its_own_close(shop: World) -> None:
    """
    An application's session may have something to do there; and what it loaded is let go.
    """
    closed: list[str] = []

    class OwnSession(AsyncSession):
        async def close(self) -> None:
            closed.append("own")
            await super().close()

    units = cqrs.UnitOfWorkFactory(async_sessionmaker(shop.engine, class_=OwnSession))
    async with units.begin() as own:
        own.session.add(Account(owner="ann"))
    async with shop.units.begin() as plain:
        plain.session.add(Account(owner="bob"))

    assert closed == ["own"]
    assert list(own.session.identity_map) == list(plain.session.identity_map) == []
