"""
The events that a handler returns: how each form is stored, and which are refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

import outbox_relay.cqrs as cqrs
from outbox_relay import InvalidTopic, MissingKey, NotSerializable, Outbox
from outbox_relay.cqrs import dataclass_models
from tests.unit.cqrs.handlers import FORMS, RecordingBroker, Tells, mediator, opening
from tests.unit.cqrs.world import AccountOpened, OpenAccount, World


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Slotted(dataclass_models.NotificationEvent, name="owner.seen", topic="t", key="owner"):
    """The decorator makes such a class twice."""

    owner: str | None


@dataclass(frozen=True, kw_only=True)
class OfSlotted(Slotted, key="nobody"):
    """Inherits the topic, and has a name and a key of its own."""


def test_a_dataclass_event_keeps_its_name() -> None:
    """
    With slots too: under another name no consumer would know it.
    """
    described = Slotted(owner="ann").describe()

    assert (described.name, described.topic, described.key) == ("owner.seen", "t", "ann")
    assert (OfSlotted.event_name, OfSlotted.event_topic) == ("OfSlotted", "t")


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (Slotted(owner=None), r"event 'owner.seen'.*'owner' is None: flush"),
        (OfSlotted(owner="ann"), r"'nobody' is none of its fields.*owner"),
    ],
)
async def test_a_dataclass_event_is_not_written_without_its_key(
    shop: World, event: Any, text: str
) -> None:
    """
    An id that the database has not given yet: it would lose its order without a word.
    """
    with pytest.raises(MissingKey, match=text):
        await mediator(shop, opening(lambda _: [event])).send(OpenAccount(owner="ann"))

    assert await shop.state() == ([], [])
