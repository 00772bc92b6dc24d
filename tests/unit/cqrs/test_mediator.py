"""
The mediator: one handler for a request, and one fate for all that follows from it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

import outbox_relay.cqrs as cqrs
from outbox_relay import InvalidTopic, MissingKey, NotSerializable, Outbox
from outbox_relay.cqrs import dataclass_models
from tests.unit.cqrs.world import Account, AccountOpened, OpenAccount, OwnerSeen, World


class Broken(Exception):
    """What an application raises."""


class Opens(cqrs.RequestHandler[OpenAccount, int]):
    """Saves, and returns the events that `make` makes."""

    make: Any = staticmethod(lambda owner: [AccountOpened(owner=owner)])

    def __init__(self, session: AsyncSession) -> None:
        self._session = session
        self._events: list[Any] = []

    @property
    def events(self) -> Sequence[Any]:
        return self._events

    async def handle(self, request: OpenAccount) -> int:
        account = Account(owner=request.owner)
        self._session.add(account)
        await self._session.flush()
        self._events += self.make(request.owner)
        if request.owner == "broken":
            raise Broken
        return account.id


class Greets(cqrs.EventHandler[OwnerSeen]):
    """Saves too, in the session of its request."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def handle(self, event: OwnerSeen) -> None:
        self._session.add(Account(owner=f"greeted {event.owner}"))
        await self._session.flush()
        if event.owner == "ungreeted":
            raise Broken


def opening(make: Any) -> type[Opens]:
    """`Opens` with other events."""
    return type("OpensAnother", (Opens,), {"make": staticmethod(make)})


def mediator(
    shop: World, handler: type = Opens, *, after_commit: bool = False, **more: Any
) -> cqrs.RequestMediator:
    """Over the shop's units of work."""

    def events(mapper: cqrs.EventMap) -> None:
        mapper.bind(OwnerSeen, Greets, after_commit=after_commit)

    return cqrs.bootstrap(
        commands_mapper=lambda mapper: mapper.bind(OpenAccount, handler),
        domain_events_mapper=events,
        unit_of_work=shop.units,
        **more,
    )


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


@dataclass(frozen=True, kw_only=True)
class AsDataclass(dataclass_models.NotificationEvent, topic="accounts", key="owner"):
    """The dataclass form."""

    owner: str


FORMS = {
    "class": lambda owner: AccountOpened(owner=owner),
    "named": lambda owner: cqrs.NotificationEvent(
        event_topic="accounts", event_name="AccountOpened", payload={"owner": owner}
    ),
    "ecst": lambda owner: cqrs.ECSTEvent[dict[str, str]](
        event_name="AccountOpened", payload={"owner": owner}, topic="accounts", event_key=owner
    ),
    "dataclass": lambda owner: AsDataclass(owner=owner),
}


@pytest.mark.parametrize("form", FORMS)
async def test_every_form_of_event_is_stored_alike(shop: World, form: str) -> None:
    """
    Payload, id, topic; the documents' form has a key only where it says one.
    """
    import sqlalchemy as sa

    made: list[Any] = []

    def make(owner: str) -> list[Any]:
        made.append(FORMS[form](owner))
        return made[-1:]

    await mediator(shop, opening(make)).send(OpenAccount(owner="ann"))

    table = shop.units.outbox.table
    async with shop.engine.connect() as connection:
        [row] = (await connection.execute(sa.select(table))).mappings().all()
    name = {"class": "account.opened", "dataclass": "AsDataclass"}.get(form, "AccountOpened")
    assert bytes(row["payload"]) == b'{"owner":"ann"}'
    assert (row["topic"], row["event_name"]) == ("accounts", name)
    assert row["key"] == (None if form == "named" else b"ann")
    assert row["event_id"] == made[0].event_id


REFUSED: dict[str, tuple[Any, type[Exception], str]] = {
    "no topic": (
        lambda _: cqrs.ECSTEvent(event_name="RoomClosed", payload={}),
        InvalidTopic,
        "RoomClosed.*default_topic",
    ),
    "payload": (
        lambda _: cqrs.NotificationEvent(event_name="n", event_topic="t", payload={"x": object()}),
        NotSerializable,
        "event 'n'",
    ),
    "not a number": (
        lambda _: cqrs.NotificationEvent(
            event_name="n", event_topic="t", payload={"x": float("nan")}
        ),
        NotSerializable,
        "NaN",
    ),
    "key": (
        lambda _: type("Keyed", (AccountOpened,), {"__annotations__": {"owner": str | None}})(
            owner=None
        ),
        MissingKey,
        "'owner' is None",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_an_event_that_cannot_be_written_rolls_back(shop: World, case: str) -> None:
    """
    The error names the event, and the state is not committed without it.
    """
    make, error, text = REFUSED[case]
    one_more = opening(lambda owner: [AccountOpened(owner=owner), make(owner)])

    with pytest.raises(error, match=text):
        await mediator(shop, one_more).send(OpenAccount(owner="ann"))

    assert await shop.state() == ([], [])


async def test_events_without_a_topic_go_to_the_default_one(shop: World) -> None:
    """
    Where the outbox has one.
    """
    units = cqrs.UnitOfWorkFactory(shop.units.sessions, Outbox(default_topic="rooms"))
    closes = opening(lambda _: [cqrs.ECSTEvent(event_name="RoomClosed", payload={})])
    await mediator(World(shop.engine, units), closes).send(OpenAccount(owner="ann"))

    assert await shop.events() == [("RoomClosed", None)]


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
    A plain one, without a base of ours; events of no handler are no error.
    """

    @dataclass
    class Ask:
        number: int

    class Answers:
        events = ()

        async def handle(self, request: Ask) -> int:
            self.events = [object()]
            return request.number + 1

    sends = cqrs.bootstrap(queries_mapper=lambda mapper: mapper.bind(Ask, Answers))

    assert await sends.send(Ask(1)) == 2


async def test_an_event_for_others_needs_a_way_out(shop: World) -> None:
    """
    Without outbox and broker it would be lost without a word.
    """

    class Tells(cqrs.RequestHandler[OpenAccount, None]):
        def __init__(self) -> None:
            self.events = []  # type: ignore[misc]

        async def handle(self, request: OpenAccount) -> None:
            self.events.append(AccountOpened(owner=request.owner))  # type: ignore[attr-defined]

    sends = cqrs.bootstrap(commands_mapper=lambda mapper: mapper.bind(OpenAccount, Tells))
    with pytest.raises(cqrs.NoWayOut, match=r"AccountOpened.*unit_of_work"):
        await sends.send(OpenAccount(owner="ann"))


class RecordingBroker:
    """Keeps what it is given, and says when the state was committed."""

    def __init__(self) -> None:
        self.messages: list[cqrs.Message] = []

    async def send_message(self, message: cqrs.Message) -> None:
        self.messages.append(message)


class Tells(cqrs.RequestHandler[OpenAccount, None]):
    """An event of each form."""

    def __init__(self) -> None:
        self._events: list[Any] = []

    @property
    def events(self) -> Sequence[Any]:
        return self._events

    async def handle(self, request: OpenAccount) -> None:
        self._events += [FORMS[form](request.owner) for form in FORMS]
        if request.owner == "broken":
            raise Broken
        if request.owner == "object":
            self._events.append(
                cqrs.NotificationEvent(event_name="n", event_topic="t", payload=object())
            )


async def test_a_broker_is_told_directly_with_one_warning() -> None:
    """
    Once for a mediator, however many events; nothing is sent after an error of the handler.
    """
    broker = RecordingBroker()
    sends = cqrs.bootstrap(
        commands_mapper=lambda mapper: mapper.bind(OpenAccount, Tells), message_broker=broker
    )
    with pytest.warns(cqrs.DirectPublishWarning, match="unit_of_work") as warned:  # noqa: PT031
        await sends.send(OpenAccount(owner="ann"))
        await sends.send(OpenAccount(owner="bob"))
    with pytest.raises(Broken):
        await sends.send(OpenAccount(owner="broken"))

    assert len(warned) == 1
    assert len(broker.messages) == 8


async def test_a_broker_is_told_nothing_if_one_event_cannot_be_encoded() -> None:
    """
    All are encoded before the first is sent.
    """
    broker = RecordingBroker()
    sends = cqrs.bootstrap(
        commands_mapper=lambda mapper: mapper.bind(OpenAccount, Tells), message_broker=broker
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cqrs.DirectPublishWarning)
        with pytest.raises(NotSerializable, match="event 'n'"):
            await sends.send(OpenAccount(owner="object"))

    assert broker.messages == []


async def test_outbox_and_broker_are_one_too_many(shop: World) -> None:
    """
    The relay publishes what the outbox has.
    """
    with pytest.raises(TypeError, match="unit_of_work or message_broker"):
        cqrs.bootstrap(unit_of_work=shop.units, message_broker=RecordingBroker())


async def test_the_envelope_has_the_documents_fields() -> None:
    """
    message_type, message_name, message_id, payload; the payload has the event's id too.
    """
    import json

    from outbox_relay.cqrs.message_brokers.protocol import message_of

    made = [FORMS[form]("ann") for form in FORMS]
    messages = [json.loads(message_of(event).to_json()) for event in made]

    for event, message in zip(made, messages, strict=True):
        assert list(message) == ["message_type", "message_name", "message_id", "payload"]
        assert message["message_id"] == message["payload"]["event_id"] == str(event.event_id)
    assert [message["message_type"] for message in messages] == [
        "notification_event",
        "notification_event",
        "ecst_event",
        "notification_event",
    ]
    assert messages[0]["payload"]["owner"] == "ann"
    assert messages[1]["payload"]["payload"] == {"owner": "ann"}
    assert messages[3]["payload"].keys() == {"event_id", "event_timestamp", "owner"}


async def test_a_handler_with_events_of_before_is_refused() -> None:
    """
    A container that gives the same handler twice would let its events out twice.
    """
    once = Tells()

    class Always:
        async def resolve(self, type_: Any) -> Any:
            return once

    sends = cqrs.bootstrap(
        Always(),
        commands_mapper=lambda mapper: mapper.bind(OpenAccount, Tells),
        message_broker=RecordingBroker(),
    )
    with pytest.warns(cqrs.DirectPublishWarning):
        await sends.send(OpenAccount(owner="ann"))
    with pytest.raises(cqrs.StaleEvents, match="new handler"):
        await sends.send(OpenAccount(owner="ann"))


async def test_middlewares_stand_around_the_handler(shop: World) -> None:
    """
    The first one outermost, all inside the transaction; they may answer themselves.
    """
    calls: list[str] = []

    class Notes:
        def __init__(self, name: str) -> None:
            self.name = name

        async def __call__(self, request: Any, handle: cqrs.Middleware) -> Any:
            calls.append(f"{self.name} before")
            response = await handle(request)  # type: ignore[call-arg, arg-type]
            calls.append(f"{self.name} after")
            return response

    class Fails:
        async def __call__(self, request: Any, handle: Any) -> Any:
            await handle(request)
            if request.owner == "undone":
                raise Broken

    sends = mediator(shop, middlewares=[Notes("1"), Notes("2"), Fails(), cqrs.LoggingMiddleware()])
    await sends.send(OpenAccount(owner="ann"))
    with pytest.raises(Broken):
        await sends.send(OpenAccount(owner="undone"))

    assert calls[:4] == ["1 before", "2 before", "2 after", "1 after"]
    assert await shop.state() == (["ann"], ["account.opened"])


async def test_events_from_elsewhere_go_to_all_their_handlers(shop: World) -> None:
    """
    In one unit of work. An event that nobody handles is an error: it would be lost.
    """

    class Copies(cqrs.EventHandler[AccountOpened]):
        def __init__(self, session: AsyncSession) -> None:
            self._session = session

        async def handle(self, event: AccountOpened) -> None:
            self._session.add(Account(owner=event.owner))

    class Fails(cqrs.EventHandler[AccountOpened]):
        async def handle(self, event: AccountOpened) -> None:
            if event.owner == "broken":
                raise Broken

    from outbox_relay.cqrs.events import bootstrap

    def events(mapper: cqrs.EventMap) -> None:
        mapper.bind(AccountOpened, Copies)
        mapper.bind(AccountOpened, Fails)

    takes = bootstrap.bootstrap(events_mapper=events, unit_of_work=shop.units)
    await takes.send(AccountOpened(owner="ann"))
    with pytest.raises(Broken):
        await takes.send(AccountOpened(owner="broken"))
    with pytest.raises(cqrs.HandlerNotFoundError, match="OwnerSeen"):
        await takes.send(OwnerSeen(owner="ann"))

    assert await shop.state() == (["ann"], [])
