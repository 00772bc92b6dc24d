"""
Buses: where a message goes, and what `execute` does for callers that cannot await.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock, Mock

import pytest
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

import outbox_relay.cqrs as cqrs
from outbox_relay.cqrs.aggregates import AggregateRoot
from outbox_relay.cqrs.buses import (
    BaseCommand,
    CommandBus,
    EventPublisher,
    QueryBus,
    Registry,
    ValidationError,
    command_handler,
    current_session,
)
from outbox_relay.cqrs.sync import run_blocking
from tests.unit.cqrs.world import Account, AccountOpened, World, world


@dataclass
class Open(BaseCommand):
    owner: str


@dataclass(frozen=True)
class Ask(BaseCommand):
    number: int

    def validate(self) -> None:
        if self.number < 0:
            raise ValidationError("number is negative")


class Opens:
    async def handle(self, command: Open) -> str:
        session = current_session()
        session.add(Account(owner=command.owner))
        await session.flush()
        return command.owner


class Doubles:
    def handle(self, query: Ask) -> int:
        return 2 * query.number


def test_a_message_has_one_handler() -> None:
    """
    Whether a decorator noted it or `register_handler` did.
    """
    registry = Registry()
    registry.command_handler(Open)(Opens)
    bus = CommandBus(registry=registry)

    with pytest.raises(cqrs.HandlerAlreadyBound, match="handled by Opens already"):
        bus.register_handler(Open, Opens())
    with pytest.raises(cqrs.HandlerAlreadyBound, match="Doubles cannot handle it too"):
        registry.command_handler(Open)(Doubles)
    registry.command_handler(Open)(Opens)  # the module was loaded again
    bus.register_handler(Ask, Doubles())
    with pytest.raises(cqrs.HandlerAlreadyBound):
        bus.register_handler(Ask, Doubles)
    with pytest.raises(cqrs.InvalidHandler, match="no method `handle`"):
        QueryBus(registry=registry).register_handler(Ask, object())


def test_the_decorators_note_for_every_bus() -> None:
    """
    Commands for command buses, and not for query buses.
    """

    @command_handler(Ask)
    class Noted(Doubles):
        pass

    assert Noted is not None
    assert CommandBus().execute(Ask(2)) == 4
    with pytest.raises(cqrs.HandlerNotFoundError):
        QueryBus().execute(Ask(2))


async def test_a_message_says_itself_that_it_is_wrong() -> None:
    """
    Before its handler is made. pydantic's own `validate` is another thing.
    """

    class Model(BaseModel):
        number: int

    made = []

    class Counts(Doubles):
        def __init__(self) -> None:
            made.append(1)

    bus = QueryBus(registry=Registry())
    bus.register_handler(Ask, Counts)
    bus.register_handler(Model, Doubles)
    with pytest.raises(ValidationError, match="negative"):
        await bus.dispatch(Ask(-1))
    assert made == []

    assert await bus.dispatch(Ask(1)) == 2
    assert await bus.dispatch(Model(number=3)) == 6


async def test_a_dispatch_is_one_transaction(shop: World) -> None:
    """
    What repositories save and what an EventPublisher publishes; it takes part by itself.
    """
    publisher = EventPublisher()

    class Publishes(Opens):
        async def handle(self, command: Open) -> str:
            answer = await super().handle(command)
            aggregate = AggregateRoot()
            aggregate.record(AccountOpened(owner=command.owner))
            await publisher.publish_events(aggregate.get_domain_events())
            aggregate.clear_domain_events()
            assert aggregate.get_domain_events() == []
            if command.owner == "broken":
                raise ZeroDivisionError
            return answer

    bus = CommandBus(unit_of_work=shop.units, registry=Registry())
    bus.register_handler(Open, Publishes())
    with pytest.raises(ZeroDivisionError):
        await bus.dispatch(Open("broken"))
    assert await bus.dispatch(Open("ann")) == "ann"

    assert await shop.state() == (["ann"], ["account.opened"])


async def test_published_by_itself_it_is_a_transaction_of_its_own(shop: World) -> None:
    """
    Where no dispatch is under way; without an outbox there is no way out.
    """
    await EventPublisher(unit_of_work=shop.units).publish_events([AccountOpened(owner="ann")])
    with pytest.raises(cqrs.NoWayOut):
        await EventPublisher().publish_events([AccountOpened(owner="ann")])

    assert await shop.events() == [("account.opened", b"ann")]


async def test_a_session_is_there_in_a_unit_of_work_only() -> None:
    """
    The error says how to have one.
    """
    with pytest.raises(LookupError, match="unit_of_work="):
        current_session()


async def test_execute_refuses_to_block_a_loop(shop: World) -> None:
    """
    With something to await it would stand still.
    """
    bus = CommandBus(unit_of_work=shop.units, registry=Registry())
    bus.register_handler(Open, Opens())
    with pytest.raises(cqrs.CqrsError, match="await `dispatch`"):
        bus.execute(Open("ann"))


def test_execute_serves_threads_with_one_loop() -> None:
    """
    Async handlers of all buses run in the same loop: connections of a pool belong to one.
    """
    loops = set()

    class Notes:
        async def handle(self, command: Open) -> str:
            await asyncio.sleep(0)
            loops.add(asyncio.get_running_loop())
            return command.owner

    buses: list[Any] = [CommandBus(registry=Registry()), QueryBus(registry=Registry())]
    for bus in buses:
        bus.register_handler(Open, Notes())
    answers: list[str] = []

    def work(bus: Any) -> None:
        answers.append(bus.execute(Open("ann")))

    threads = [threading.Thread(target=work, args=(bus,)) for bus in buses]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert answers == ["ann", "ann"]
    assert len(loops) == 1


def test_execute_passes_errors_on() -> None:
    """
    As `dispatch` does.
    """

    class Fails:
        async def handle(self, command: Open) -> None:
            raise ZeroDivisionError

    bus = CommandBus(registry=Registry())
    bus.register_handler(Open, Fails)
    with pytest.raises(ZeroDivisionError):
        bus.execute(Open("ann"))


async def test_a_decorator_that_comes_later_is_not_ignored() -> None:
    """
    Two handlers for one command are an error, whichever came first.
    """
    registry = Registry()
    bus = CommandBus(registry=registry)
    bus.register_handler(Ask, Doubles())
    registry.command_handler(Ask)(type("Triples", (Doubles,), {}))

    with pytest.raises(cqrs.HandlerAlreadyBound, match=r"handled by Doubles.*Triples"):
        await bus.dispatch(Ask(1))


async def test_a_check_that_must_be_awaited_is_refused() -> None:
    """
    Nobody would await it, and what is wrong would pass for right.
    """

    class Later:
        async def validate(self) -> None:
            raise ValidationError("never seen")

    bus = CommandBus(registry=Registry())
    bus.register_handler(Later, Doubles)
    with pytest.raises(cqrs.InvalidHandler, match=r"Later\.validate is async"):
        await bus.dispatch(Later())


def test_execute_awaits_what_only_turns_out_to_be_async() -> None:
    """
    An ordinary method that answers with a coroutine.
    """

    async def double(number: int) -> int:
        return 2 * number

    class Passes:
        def handle(self, query: Ask) -> Any:
            return double(query.number)

    bus = QueryBus(registry=Registry())
    bus.register_handler(Ask, Passes())

    assert bus.execute(Ask(2)) == 4


async def test_execute_within_a_unit_of_work_is_part_of_it(shop: World) -> None:
    """
    Its error dooms the whole, as that of `dispatch` does.
    """

    class Fails:
        def handle(self, query: Ask) -> None:
            current_session().add(Account(owner="half"))
            raise ZeroDivisionError

    bus = CommandBus(registry=Registry())
    bus.register_handler(Ask, Fails())
    with pytest.raises(cqrs.RolledBack, match="ZeroDivisionError"):  # noqa: PT012 - the block's end counts
        async with shop.units.begin():
            with pytest.raises(ZeroDivisionError):
                bus.execute(Ask(1))

    assert await shop.owners() == []


def test_a_bus_is_one_for_commands_or_for_queries() -> None:
    """
    What both share is no bus by itself.
    """
    from outbox_relay.cqrs import buses

    with pytest.raises(TypeError, match="abstract"):
        buses._Bus()  # type: ignore[abstract]


def test_each_execute_of_a_thread_is_a_transaction(tmp_path: Path) -> None:
    """
    Those that fail leave nothing, whoever runs beside them.
    """
    publisher = EventPublisher()

    class Publishes(Opens):
        async def handle(self, command: Open) -> str:
            answer = await super().handle(command)
            await publisher.publish_events([AccountOpened(owner=command.owner)])
            if int(command.owner) % 2:
                raise ZeroDivisionError
            return answer

    async def committed() -> tuple[list[str], list[str]]:
        async with world(url) as shop:
            return await shop.state()

    url = f"sqlite+aiosqlite:///{tmp_path / 'shop.db'}"
    assert asyncio.run(committed()) == ([], [])
    engine = create_async_engine(url)
    bus = CommandBus(unit_of_work=async_sessionmaker(engine), registry=Registry())
    bus.register_handler(Open, Publishes())
    failed: list[str] = []

    def work(owner: str) -> None:
        try:
            bus.execute(Open(owner))
        except ZeroDivisionError:
            failed.append(owner)

    threads = [threading.Thread(target=work, args=(str(number),)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run_blocking(engine.dispose())
    owners, events = asyncio.run(committed())

    assert sorted(failed) == ["1", "3", "5"]
    assert sorted(owners) == ["0", "2", "4"]
    assert events == ["account.opened"] * 3


def test_who_interrupts_execute_ends_what_it_waits_for() -> None:
    """
    Ctrl-C at a command line: the handler is cancelled, and its transaction with it.
    """
    cancelled = threading.Event()
    caller = threading.get_ident()

    class Waits:
        async def handle(self, command: Open) -> None:
            try:
                while sys._current_frames()[caller].f_code.co_name != "wait":
                    await asyncio.sleep(0)
                os.kill(os.getpid(), signal.SIGINT)
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.set()
                raise

    bus = CommandBus(registry=Registry())
    bus.register_handler(Open, Waits)
    # A shell that starts the tests in the background lets them ignore it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            bus.execute(Open("ann"))
    finally:
        signal.signal(signal.SIGINT, before)

    assert cancelled.wait(30)


@pytest.mark.parametrize("handler", [Mock(), MagicMock()])
async def test_a_handler_may_be_any_object(handler: Any) -> None:
    """
    Its `events` may be something else: that of a mock is a mock.
    """
    handler.handle = Doubles().handle
    bus = QueryBus(registry=Registry())
    bus.register_handler(Ask, handler)

    assert await bus.dispatch(Ask(2)) == 4
    assert bus.execute(Ask(2)) == 4
