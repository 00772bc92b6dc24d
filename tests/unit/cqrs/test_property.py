"""
The unit of work, whatever requests do: what is visible is what was committed.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncSession

import outbox_relay.cqrs as cqrs
from tests.unit.cqrs.world import Account, AccountOpened, OwnerSeen, world

FAIL = (
    *("handler", "domain event", "encoding", "middleware", "commit", "nested", "caught"),
    *("swallowed", "session.rollback", "session.close", "session.commit", "unit.commit"),
)
SUCCEED = ("none", "savepoint")
PLACES = (*FAIL, *SUCCEED)


class Do(cqrs.Request):
    """Open an account; fail at *place*."""

    owner: str
    place: str
    inner: Do | None = None


class Failed(Exception):
    """At the place that was named."""


class Unwritable(AccountOpened):
    weight: Any


class Does(cqrs.RequestHandler[Do, None]):
    def __init__(self, session: AsyncSession, unit: cqrs.UnitOfWork) -> None:
        self._session, self._unit = session, unit
        self._events: list[Any] = []

    @property
    def events(self) -> Sequence[Any]:
        return self._events

    async def handle(self, request: Do) -> None:
        self._session.add(Account(owner=request.owner))
        self._unit.after_commit(lambda: TOLD.append(request.owner))
        self._events += [AccountOpened(owner=request.owner), OwnerSeen(owner=request.place)]
        if request.inner is not None:
            await MEDIATORS[-1].send(request.inner)
        match request.place:
            case "handler" | "swallowed":
                raise Failed
            case "caught":
                with suppress(Failed):
                    await MEDIATORS[-1].send(Do(owner="never", place="handler"))
            case "savepoint":
                with suppress(Failed):
                    async with self._session.begin_nested():
                        await MEDIATORS[-1].send(Do(owner="never", place="domain event"))
            case "session.rollback":
                await self._session.rollback()
            case "session.close":
                await self._session.close()
            case "session.commit":
                await self._session.commit()
            case "unit.commit":
                await self._unit.commit()
            case "encoding":
                self._events.append(Unwritable(owner=request.owner, weight=object()))
            case "nested":
                await MEDIATORS[-1].send(Do(owner="never", place="handler"))
            case "commit":
                self._session.add(Account(id=1, owner="taken"))


class Sees(cqrs.EventHandler[OwnerSeen]):
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def handle(self, event: OwnerSeen) -> None:
        if event.owner == "domain event":
            await self._session.flush()
            raise Failed


class Fails:
    async def __call__(self, request: Do, handle: Any) -> Any:
        try:
            await handle(request)
        except Failed:
            if request.place != "swallowed":
                raise
        if request.place == "middleware":
            raise Failed


TOLD: list[str] = []
MEDIATORS: list[cqrs.RequestMediator] = []

places = st.sampled_from(PLACES)
requests = st.lists(st.tuples(places, st.none() | places), min_size=1, max_size=6)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(requests)
def test_what_is_visible_is_what_was_committed(plan: list[tuple[str, str | None]]) -> None:
    """
    Accounts, events and the calls after the commit are the same, and those of the requests that
    succeeded, wherever the others failed.
    """
    asyncio.run(check(plan))


async def check(plan: list[tuple[str, str | None]]) -> None:
    """Send the requests of *plan*, and compare."""
    TOLD.clear()
    with tempfile.TemporaryDirectory() as folder:
        async with world(f"sqlite+aiosqlite:///{Path(folder) / 'shop.db'}") as shop:
            async with shop.units.begin() as unit:
                unit.session.add(Account(id=1, owner="first"))
            mediator = cqrs.bootstrap(
                commands_mapper=lambda mapper: mapper.bind(Do, Does),
                domain_events_mapper=lambda mapper: mapper.bind(OwnerSeen, Sees),
                middlewares=[Fails()],
                unit_of_work=shop.units,
            )
            MEDIATORS[:] = [mediator]
            expected: list[str] = []
            for number, (place, inner) in enumerate(plan):
                names = [f"outer{number}", *([] if inner is None else [f"inner{number}"])]
                nested = None if inner is None else Do(owner=names[1], place=inner)
                try:
                    await mediator.send(Do(owner=names[0], place=place, inner=nested))
                except Exception:  # noqa: BLE001 - of whatever kind: it is rolled back
                    assert {place, inner} & set(FAIL)
                else:
                    assert {place, inner} <= {*SUCCEED, None}
                    expected += names
            assert sorted((await shop.owners())[1:]) == sorted(expected)
            keys = [(key or b"").decode() for _, key in await shop.events()]
            assert sorted(keys) == sorted(TOLD) == sorted(expected)
