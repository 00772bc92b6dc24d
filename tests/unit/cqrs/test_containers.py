"""
Containers: ours, and those of di and dishka as they are.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

import di
import dishka
import pytest
from di.dependent import Dependent
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

import outbox_relay.cqrs as cqrs
from outbox_relay import Outbox
from outbox_relay.cqrs.container import adapted
from outbox_relay.cqrs.container.di import DIContainer
from outbox_relay.cqrs.container.dishka import DishkaContainer
from tests.unit.cqrs.world import Account, OpenAccount, OwnerSeen, World


class Clock(Protocol):
    def now(self) -> int: ...


class Stopped:
    def now(self) -> int:
        return 42


class Accounts:
    def __init__(self, session: AsyncSession, clock: Clock) -> None:
        self.session = session
        self.clock = clock


class Opens(cqrs.RequestHandler[OpenAccount, int]):
    def __init__(self, accounts: Accounts, unit: cqrs.UnitOfWork) -> None:
        self._accounts = accounts
        self._unit = unit
        self._events: list[Any] = []

    @property
    def events(self) -> list[Any]:
        return self._events

    async def handle(self, request: OpenAccount) -> int:
        assert self._unit.session is self._accounts.session
        self._accounts.session.add(Account(owner=request.owner))
        self._events += [OwnerSeen(owner=request.owner)] * 2
        return self._accounts.clock.now()


class Notes(cqrs.EventHandler[OwnerSeen]):
    """Remembers its events, so that a handler given twice would let them out twice."""

    made: int = 0

    def __init__(self, accounts: Accounts) -> None:
        Notes.made += 1
        self.events: list[Any] = []  # type: ignore[misc]
        self._accounts = accounts

    async def handle(self, event: OwnerSeen) -> None:
        self._accounts.session.add(Account(owner=f"seen {event.owner}"))


CLOSED: list[str] = []


def plain() -> Any:
    container = cqrs.PlainContainer()
    container.bind(Clock, Stopped())
    return container


def of_di() -> Any:
    container = di.Container()
    stopped = Stopped()
    container.bind(di.bind_by_type(Dependent(lambda: stopped, scope="singleton"), Clock))
    return container


def of_dishka() -> Any:
    provider = dishka.Provider(scope=dishka.Scope.REQUEST)
    provider.provide(lambda: Stopped(), provides=Clock)  # noqa: PLW0108 - dishka wants a callable
    provider.provide_all(Accounts, Opens, Notes)
    provider.from_context(AsyncSession)
    provider.from_context(cqrs.UnitOfWork)
    return dishka.make_async_container(provider)


CONTAINERS: dict[str, Callable[[], Any]] = {"plain": plain, "di": of_di, "dishka": of_dishka}


@pytest.mark.parametrize("kind", CONTAINERS)
async def test_handlers_are_made_with_the_session_of_their_request(shop: World, kind: str) -> None:
    """
    Also deep below: what a handler asks for asks for the session in turn. Of two events of one kind
    each has a handler of its own, but from dishka, whose scope keeps what it has made.
    """
    Notes.made = 0
    mediator = cqrs.bootstrap(
        CONTAINERS[kind](),
        commands_mapper=lambda mapper: mapper.bind(OpenAccount, Opens),
        domain_events_mapper=lambda mapper: mapper.bind(OwnerSeen, Notes),
        unit_of_work=shop.units,
    )

    assert [await mediator.send(OpenAccount(owner=owner)) for owner in ("ann", "bob")] == [42, 42]
    assert await shop.owners() == ["ann", "seen ann", "seen ann", "bob", "seen bob", "seen bob"]
    assert Notes.made == (2 if kind == "dishka" else 4)


@pytest.mark.parametrize("kind", CONTAINERS)
async def test_what_cannot_be_made_is_named(kind: str) -> None:
    """
    Without a unit of work nobody lends a session.
    """

    with pytest.raises(cqrs.HandlerNotResolved, match=r"NoClock|Asks"):
        await adapted(CONTAINERS[kind]()).resolve(Asks)


class NoClock(Protocol):
    def now(self) -> int: ...


class Asks:
    def __init__(self, clock: NoClock) -> None:
        pass


async def test_any_object_that_resolves_is_a_container() -> None:
    """
    And what does not is refused, with what would do.
    """

    class Mine:
        async def resolve(self, type_: Any) -> Any:
            return type_()

    mine = Mine()
    assert adapted(mine) is mine
    with pytest.raises(TypeError, match="PlainContainer"):
        adapted(object())


class Connection:
    pass


class Pool:
    pass


class Handler:
    def __init__(self, connection: Connection, pool: Pool) -> None:
        self.connection, self.pool = connection, pool


async def test_di_keeps_singletons_and_closes_requests() -> None:
    """
    A singleton is made once; a generator of a request is closed at its end.
    """
    closed = []

    async def connect() -> AsyncIterator[Connection]:
        yield Connection()
        closed.append("connection")

    async def pool() -> AsyncIterator[Pool]:
        yield Pool()
        closed.append("pool")

    container = di.Container()
    container.bind(di.bind_by_type(Dependent(connect, scope="request"), Connection))
    container.bind(di.bind_by_type(Dependent(pool, scope="singleton"), Pool))
    ours = DIContainer()
    with pytest.raises(cqrs.CqrsError, match="attach_external_container"):
        await ours.resolve(Handler)
    ours.attach_external_container(container)

    one, other = await ours.resolve(Handler), await ours.resolve(Handler)
    assert one.pool is other.pool
    assert one.connection is not other.connection
    assert closed == ["connection", "connection"]
    await ours.close()
    assert closed[2:] == ["pool"]


async def test_dishka_closes_its_request_scope(shop: World) -> None:
    """
    Before the commit: what it closes may still write.
    """
    closed: list[list[str]] = []

    async def accounts(session: AsyncSession, clock: Clock) -> AsyncIterator[Accounts]:
        yield Accounts(session, clock)
        closed.append(await shop.owners())

    provider = dishka.Provider(scope=dishka.Scope.REQUEST)
    provider.provide(lambda: Stopped(), provides=Clock)  # noqa: PLW0108
    provider.provide(accounts)
    provider.provide(Opens)
    provider.from_context(AsyncSession)
    provider.from_context(cqrs.UnitOfWork)
    mediator = cqrs.bootstrap(
        DishkaContainer(dishka.make_async_container(provider)),
        commands_mapper=lambda mapper: mapper.bind(OpenAccount, Opens),
        unit_of_work=shop.units,
    )
    await mediator.send(OpenAccount(owner="ann"))

    assert closed == [[]]
    assert await shop.owners() == ["ann"]


class First:
    def __init__(self, second: Second) -> None:
        pass


class Second:
    def __init__(self, first: First) -> None:
        pass


class Named(Protocol):
    def name(self) -> str: ...


class ByAccounts:
    def __init__(self, accounts: Accounts) -> None:
        self.accounts = accounts

    def name(self) -> str:
        return "ann"


class OpensNamed(cqrs.RequestHandler[OpenAccount, None]):
    def __init__(self, named: Named) -> None:
        self._named = named

    async def handle(self, request: OpenAccount) -> None:
        self._named.accounts.session.add(Account(owner=self._named.name()))  # type: ignore[attr-defined]


async def test_what_stands_for_a_protocol_gets_the_session_of_its_request(shop: World) -> None:
    """
    A class that is bound is made as handlers are, with what the unit of work lends.
    """
    container = plain()
    container.bind(Named, ByAccounts)
    mediator = cqrs.bootstrap(
        container,
        commands_mapper=lambda mapper: mapper.bind(OpenAccount, OpensNamed),
        unit_of_work=shop.units,
    )
    await mediator.send(OpenAccount(owner="ann"))

    assert await shop.owners() == ["ann"]


async def test_a_circle_through_a_bind_is_named() -> None:
    """
    As one without.
    """
    container = cqrs.PlainContainer()
    container.bind(Named, AsksForNamed)
    with pytest.raises(cqrs.HandlerNotResolved, match="AsksForNamed -> AsksForNamed"):
        await container.resolve(AsksForNamed)


class AsksForNamed:
    def __init__(self, named: Named) -> None:
        pass


async def test_dishka_names_what_is_lent_to_nobody() -> None:
    """
    Declared as lent, but there is no unit of work.
    """
    with pytest.raises(cqrs.HandlerNotResolved, match="Opens"):
        async with adapted(of_dishka()).open_scope({}) as scope:  # type: ignore[attr-defined]
            await scope.resolve(Opens)


@pytest.mark.parametrize("kind", ["plain", "di"])
@pytest.mark.parametrize("lent", [AsyncSession, Session, cqrs.UnitOfWork, Outbox])
async def test_nobody_makes_a_session_that_no_request_commits(kind: str, lent: type) -> None:
    """
    Without a unit of work what a handler adds to it would be gone without a word.
    """
    handler = type("Handler", (), {"__init__": _asking_for(lent)})
    with pytest.raises(cqrs.HandlerNotResolved, match=r"unit_of_work=|nothing is bound to"):
        await adapted(CONTAINERS[kind]()).resolve(handler)


def _asking_for(kind: type) -> Any:
    def __init__(self: Any, asked: Any) -> None:  # noqa: N807
        pass

    __init__.__annotations__["asked"] = kind
    return __init__


@pytest.mark.parametrize("kind", ["plain", "di"])
async def test_annotations_that_cannot_be_read_are_named(kind: str) -> None:
    """
    What they name was imported for type checkers alone.
    """
    handler = type("Handler", (), {"__init__": _asking_for("Unknown")})  # type: ignore[arg-type]
    with pytest.raises(cqrs.HandlerNotResolved, match=r"Handler.*'Unknown'"):
        await adapted(CONTAINERS[kind]()).resolve(handler)


async def test_a_singleton_of_di_is_one_for_mediator_and_emitter() -> None:
    """
    As the documents build them, each with the container itself.
    """

    class Manager:
        pass

    class Tells(cqrs.RequestHandler[OpenAccount, Any]):
        def __init__(self, manager: Any) -> None:
            self.manager = manager
            self.events = [OwnerSeen(owner="x")][:0]

        async def handle(self, request: OpenAccount) -> Any:
            self.events.append(OwnerSeen(owner=request.owner))
            return self.manager

    Tells.__init__.__annotations__["manager"] = Manager
    container = di.Container()
    container.bind(di.bind_by_type(Dependent(Manager, scope="singleton"), Manager))
    requests = cqrs.RequestMap()
    requests.bind(OpenAccount, Tells)
    one = cqrs.RequestMediator(requests, container, cqrs.EventEmitter(None, container))
    other = cqrs.RequestMediator(requests, container, cqrs.EventEmitter(None, container))

    assert await one.send(OpenAccount(owner="a")) is await other.send(OpenAccount(owner="a"))
