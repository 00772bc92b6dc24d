"""
Middlewares: what stands around a handler, inside its transaction.
"""

from __future__ import annotations

from typing import Any

import pytest

import outbox_relay.cqrs as cqrs
from tests.unit.cqrs.handlers import Broken, mediator
from tests.unit.cqrs.world import OpenAccount, World


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
