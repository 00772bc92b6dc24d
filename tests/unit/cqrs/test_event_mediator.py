"""
Events from elsewhere: all their handlers, in one unit of work.
"""

from __future__ import annotations

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

import outbox_relay.cqrs as cqrs
from tests.unit.cqrs.handlers import Broken
from tests.unit.cqrs.world import Account, AccountOpened, OwnerSeen, World


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
