"""
The container of our own: what it makes, and what it says of what it cannot.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

import outbox_relay.cqrs as cqrs
from tests.unit.cqrs.test_containers import (
    Accounts,
    Clock,
    Connection,
    First,
    Stopped,
    plain,
)


async def test_ours_says_what_is_missing() -> None:
    """
    An annotation, a bind, or an end of a circle.
    """
    container = cqrs.PlainContainer()

    class Silent:
        def __init__(self, what) -> None:
            pass

    class Text:
        def __init__(self, name: str, size: int = 3) -> None:
            self.name = name

    with pytest.raises(cqrs.HandlerNotResolved, match=r"what 'what' is: annotate"):
        await container.resolve(Silent)
    with pytest.raises(cqrs.HandlerNotResolved, match="nothing is bound to str"):
        await container.resolve(Text)
    with pytest.raises(cqrs.HandlerNotResolved, match="First -> Second -> First"):
        await container.resolve(First)
    container.bind(str, lambda: "ann")
    assert (await container.resolve(Text)).name == "ann"
    container.bind(Clock, Stopped)
    one, other = [await container.resolve(Clock) for _ in range(2)]
    assert one is not other


@dataclass
class AsDataclass:
    accounts: Accounts
    size: int = 3


async def test_a_dataclass_is_made_by_its_fields() -> None:
    """
    Those without a default.
    """
    container = plain()
    container.bind(AsyncSession, object())

    assert isinstance((await container.resolve(AsDataclass)).accounts.clock, Stopped)


def test_what_would_have_to_be_awaited_is_refused() -> None:
    """
    When it is bound: the handler would get a coroutine.
    """

    async def connect() -> Connection:
        return Connection()

    with pytest.raises(TypeError, match="connect is async"):
        cqrs.PlainContainer().bind(Connection, connect)
