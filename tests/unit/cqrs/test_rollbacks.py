"""
What is undone is told to nobody: rollbacks, SAVEPOINTs and commits in the midst of a unit of work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.util import await_only

import outbox_relay.cqrs as cqrs
from tests.unit.cqrs.handlers import Broken, Opens, mediator
from tests.unit.cqrs.world import Account, AccountOpened, OpenAccount, World


class Acts(Opens):
    """Opens an account, says so, and then does `act` with its unit of work."""

    act: Callable[[cqrs.UnitOfWork], Awaitable[Any]]

    def __init__(self, session: AsyncSession, unit: cqrs.UnitOfWork) -> None:
        super().__init__(session)
        self._unit = unit

    async def handle(self, request: OpenAccount) -> int:
        answer = await super().handle(request)
        await type(self).act(self._unit)
        return answer


def acting(act: Callable[[cqrs.UnitOfWork], Awaitable[Any]]) -> type[Acts]:
    """`Acts` with another act."""
    return type("ActsAnother", (Acts,), {"act": staticmethod(act)})


def quiet(act: Callable[[cqrs.UnitOfWork], Awaitable[Any]]) -> type[Acts]:
    """The same, and it says nothing."""
    return type("ActsQuietly", (acting(act),), {"make": staticmethod(lambda _: [])})


async def close(unit: cqrs.UnitOfWork) -> None:
    async with unit.session:
        pass


async def commit(unit: cqrs.UnitOfWork) -> None:
    await unit.commit()
    raise Broken


ENDS: dict[str, Callable[[cqrs.UnitOfWork], Awaitable[Any]]] = {
    "session.commit": lambda unit: unit.session.commit(),
    "session.rollback": lambda unit: unit.session.rollback(),
    "session.close": close,
    "unit.commit": commit,
    "unit.rollback": lambda unit: unit.rollback(),
}


@pytest.mark.parametrize("end", ENDS)
async def test_a_handler_that_ends_its_transaction_tells_of_nothing(shop: World, end: str) -> None:
    """
    I1. Its events would be written without the state, or the state without its events.
    """
    sends = mediator(shop, acting(ENDS[end]))
    error = cqrs.CommitRefused if end.endswith("commit") else cqrs.RolledBack
    with pytest.raises(error):
        await sends.send(OpenAccount(owner="ann"))

    assert await shop.state() == ([], [])


@pytest.mark.parametrize("end", ENDS)
async def test_a_part_that_ends_the_transaction_dooms_the_whole(shop: World, end: str) -> None:
    """
    I1. What the outer handler had saved would be gone, and its events would tell of it. So it is also
    if the part returns none itself, and if its error is caught.
    """
    inner = mediator(shop, quiet(ENDS[end]))

    async def send_inner(_: cqrs.UnitOfWork) -> None:
        with suppress(cqrs.CqrsError, Broken):
            await inner.send(OpenAccount(owner="inner"))

    for outer in (acting(send_inner), quiet(send_inner)):
        with pytest.raises(cqrs.RolledBack):
            await mediator(shop, outer).send(OpenAccount(owner="outer"))

    assert await shop.state() == ([], [])


async def test_a_handler_may_undo_all_and_answer(shop: World) -> None:
    """
    With `unit.rollback()`, and without events; what it saves after that is committed.
    """

    class Undoes(cqrs.RequestHandler[OpenAccount, str]):
        def __init__(self, unit: cqrs.UnitOfWork) -> None:
            self._unit = unit

        async def handle(self, request: OpenAccount) -> str:
            self._unit.session.add(Account(owner="undone"))
            await self._unit.session.flush()
            await self._unit.rollback()
            self._unit.session.add(Account(owner="kept"))
            return "undone"

    assert await mediator(shop, Undoes).send(OpenAccount(owner="ann")) == "undone"
    assert await shop.state() == (["kept"], [])


@pytest.mark.parametrize("end", ["session.rollback", "session.close"])
async def test_a_session_that_is_closed_without_a_word_saves_nothing_unseen(
    shop: World, end: str
) -> None:
    """
    The handler would answer that it is done: the request fails, also without an event.
    """
    with pytest.raises(cqrs.RolledBack, match=r"unit\.rollback"):
        await mediator(shop, quiet(ENDS[end])).send(OpenAccount(owner="ann"))


@pytest.mark.parametrize("end", ["session.rollback", "session.close", "unit.rollback"])
async def test_what_is_rolled_back_calls_nobody(shop: World, end: str) -> None:
    """
    Whoever rolled back; what is said after that is called.
    """
    called: list[str] = []
    async with shop.units.begin() as unit:
        unit.session.add(Account(owner="undone"))
        await unit.session.flush()
        unit.after_commit(lambda: called.append("undone"))
        await ENDS[end](unit)
        unit.session.add(Account(owner="ann"))
        unit.after_commit(lambda: called.append("ann"))

    assert called == ["ann"]
    assert await shop.owners() == ["ann"]


async def test_a_savepoint_takes_along_whom_to_call(shop: World) -> None:
    """
    Its own, and those of SAVEPOINTs within it that were released; not what was said before or after.
    """
    called: list[str] = []
    async with shop.units.begin() as unit:
        unit.session.add(Account(owner="ann"))
        await unit.session.flush()
        unit.after_commit(lambda: called.append("before"))
        with pytest.raises(Broken):  # noqa: PT012 - the block's end counts
            async with unit.session.begin_nested():
                unit.after_commit(lambda: called.append("in the savepoint"))
                async with unit.session.begin_nested():
                    unit.after_commit(lambda: called.append("released"))
                raise Broken
        async with unit.session.begin_nested():
            unit.after_commit(lambda: called.append("kept"))
        unit.after_commit(lambda: called.append("after"))

    assert called == ["before", "kept", "after"]


async def test_a_part_that_failed_in_a_savepoint_is_forgotten_with_it(shop: World) -> None:
    """
    The way that RolledBack names: state, events and calls of the part are undone, and the rest stands.
    """
    called: list[str] = []

    async def tell(unit: cqrs.UnitOfWork) -> None:
        unit.after_commit(lambda: called.append("inner"))
        raise Broken

    inner = mediator(shop, acting(tell))

    async def send_inner(unit: cqrs.UnitOfWork) -> None:
        try:
            async with unit.session.begin_nested():
                await inner.send(OpenAccount(owner="inner"))
        except Broken:
            unit.after_commit(lambda: called.append("outer"))

    await mediator(shop, acting(send_inner)).send(OpenAccount(owner="outer"))

    assert called == ["outer"]
    assert await shop.state() == (["outer"], ["account.opened"])


async def test_a_failure_that_is_caught_within_a_savepoint_dooms_all_the_same(shop: World) -> None:
    """
    The SAVEPOINT was released, so what the part had written is still there.
    """
    inner = mediator(shop)

    async def send_inner(unit: cqrs.UnitOfWork) -> None:
        async with unit.session.begin_nested():
            with suppress(Broken):
                await inner.send(OpenAccount(owner="broken"))

    with pytest.raises(cqrs.RolledBack, match="Broken"):
        await mediator(shop, acting(send_inner)).send(OpenAccount(owner="outer"))

    assert await shop.state() == ([], [])


async def test_what_comes_after_the_end_is_refused(shop: World) -> None:
    """
    A task that outlives its request, and a callback: nobody would commit the event.
    """
    refused: list[str] = []

    async def late() -> None:
        with pytest.raises(cqrs.UnitEnded, match="an event comes when"):
            await unit.add(AccountOpened(owner="ann"))
        with pytest.raises(cqrs.UnitEnded, match="a commit comes when"):
            await unit.commit()
        refused.append("late")

    async with shop.units.begin() as unit:
        unit.after_commit(late)
    await late()
    with pytest.raises(cqrs.UnitEnded, match="a callback comes when"):
        unit.after_commit(late)

    assert refused == ["late", "late"]
    assert await shop.events() == []


async def test_a_callback_may_say_what_comes_next(shop: World) -> None:
    """
    The commit is done, so that is called too, after those that were there before.
    """
    called: list[str] = []

    def say() -> None:
        called.append("first")
        unit.after_commit(lambda: called.append("third"))

    async with shop.units.begin() as unit:
        unit.after_commit(say)
        unit.after_commit(lambda: called.append("second"))

    assert called == ["first", "second", "third"]


async def test_a_callback_that_ends_the_session_stops_nobody(shop: World) -> None:
    """
    It may read by it, and close it.
    """
    called: list[str] = []

    async def look() -> None:
        async with unit.session as session:
            called.append(str((await session.get(Account, 1)).owner))

    async with shop.units.begin() as unit:
        unit.session.add(Account(owner="ann"))
        unit.after_commit(look)
        unit.after_commit(lambda: called.append("next"))

    assert called == ["ann", "next"]


async def test_a_task_that_is_cancelled_calls_the_rest(shop: World) -> None:
    """
    It is committed, so they are owed the call; then the task ends as cancelled.
    """
    called: list[str] = []
    begun = asyncio.Event()

    async def wait() -> None:
        begun.set()
        await asyncio.Event().wait()

    async def work() -> None:
        async with shop.units.begin() as unit:
            unit.session.add(Account(owner="ann"))
            unit.after_commit(wait)
            unit.after_commit(lambda: called.append("rest"))

    task = asyncio.create_task(work())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert called == ["rest"]
    assert await shop.owners() == ["ann"]


async def test_tasks_of_a_handler_have_units_of_their_own(shop: World) -> None:
    """
    `gather` starts tasks: what they send is committed by itself, whatever becomes of the handler.
    """
    inner = mediator(shop)

    async def gather(unit: cqrs.UnitOfWork) -> None:
        await unit.rollback()  # SQLite lets one write at a time
        await asyncio.gather(inner.send(OpenAccount(owner="alone")))
        raise Broken

    with pytest.raises(Broken):
        await mediator(shop, acting(gather)).send(OpenAccount(owner="outer"))

    assert await shop.state() == (["alone"], ["account.opened"])


async def test_a_part_that_ran_out_of_time_dooms_the_whole(shop: World) -> None:
    """
    It was cancelled half-way, and its TimeoutError was caught.
    """

    limit = asyncio.timeout(None)

    async def wait(_: cqrs.UnitOfWork) -> None:
        limit.reschedule(asyncio.get_running_loop().time())
        await asyncio.Event().wait()

    slow = mediator(shop, acting(wait))

    async def send_slow(_: cqrs.UnitOfWork) -> None:
        with suppress(TimeoutError):
            async with limit:
                await slow.send(OpenAccount(owner="slow"))

    with pytest.raises(cqrs.RolledBack, match="CancelledError"):
        await mediator(shop, acting(send_slow)).send(OpenAccount(owner="outer"))

    assert await shop.state() == ([], [])


async def test_a_stream_that_is_left_undoes_what_its_handler_does_at_the_end(shop: World) -> None:
    """
    Nobody commits a handler's `finally`.
    """

    class Counts(cqrs.StreamingRequestHandler[OpenAccount, int]):
        def __init__(self, session: AsyncSession) -> None:
            self._session = session
            self.events: list[Any] = []

        async def handle(self, request: OpenAccount) -> Any:
            try:
                yield 1
                yield 2
            finally:
                self._session.add(Account(owner="left"))
                self.events.append(AccountOpened(owner="left"))
                await self._session.flush()

    sends = cqrs.bootstrap(
        commands_mapper=lambda mapper: mapper.bind(OpenAccount, Counts), unit_of_work=shop.units
    )
    async with aclosing(sends.stream(OpenAccount(owner="ann"))) as answers:
        assert await anext(answers) == 1

    assert await shop.state() == ([], [])


async def test_who_is_cancelled_in_the_midst_of_the_commit_tells_nobody(shop: World) -> None:
    """
    Nobody knows whether it came through: state and events are equal, and no callback says that it did.
    """
    called: list[str] = []
    reached = asyncio.Event()
    dialect = shop.engine.sync_engine.dialect
    commit = dialect.do_commit

    def do_commit(connection: Any) -> None:
        if not reached.is_set():
            reached.set()
            await_only(asyncio.Event().wait())
        commit(connection)

    async def work() -> None:
        async with shop.units.begin() as unit:
            unit.session.add(Account(owner="ann"))
            await unit.add(AccountOpened(owner="ann"))
            unit.after_commit(lambda: called.append("told"))

    dialect.do_commit = do_commit  # type: ignore[method-assign]
    task = asyncio.create_task(work())
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with shop.units.begin() as unit:
        unit.session.add(Account(owner="next"))

    assert called == []
    assert await shop.state() == (["next"], [])
