"""Handlers for the tests of mediators: they save, and return events of every form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

import outbox_relay.cqrs as cqrs
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
