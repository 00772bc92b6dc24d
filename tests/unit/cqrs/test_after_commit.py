"""
What a unit of work calls after its commit.
"""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from tests.unit.cqrs.handlers import Broken
from tests.unit.cqrs.world import Account, World


async def test_callbacks_run_after_the_commit_in_their_order(shop: World) -> None:
    """
    Each sees what was committed; sync and async ones alike.
    """
    seen: list[object] = []

    async def look() -> None:
        seen.append(await shop.owners())

    async with shop.units.begin() as unit:
        unit.after_commit(look)
        unit.after_commit(lambda: seen.append("second"))
        unit.session.add(Account(owner="ann"))
        await unit.session.flush()
        assert seen == []

    assert seen == [["ann"], "second"]


async def test_callbacks_are_never_called_after_a_rollback(shop: World) -> None:
    """
    Neither after an exception, nor after `rollback`, nor when the commit itself fails.
    """
    called: list[str] = []

    with pytest.raises(Broken):  # noqa: PT012 - the block's end counts
        async with shop.units.begin() as unit:
            unit.after_commit(lambda: called.append("exception"))
            raise Broken
    async with shop.units.begin() as unit:
        unit.after_commit(lambda: called.append("rollback"))
        await unit.rollback()
    with pytest.raises(sa.exc.IntegrityError):  # noqa: PT012 - the block's end counts
        async with shop.units.begin() as unit:
            unit.after_commit(lambda: called.append("commit"))
            unit.session.add(Account(id=1, owner="ann"))
            await unit.session.execute(sa.insert(Account).values(id=1, owner="bob"))
    with pytest.raises(sa.exc.IntegrityError):  # noqa: PT012 - the block's end counts
        async with shop.units.begin() as unit:
            unit.after_commit(lambda: called.append("flush of the commit"))
            await unit.session.execute(sa.insert(Account).values(id=1, owner="bob"))
            unit.session.add(Account(id=1, owner="ann"))

    assert called == []
    assert await shop.state() == ([], [])


async def test_an_error_of_a_callback_is_logged_and_the_rest_is_called(
    shop: World, caplog: pytest.LogCaptureFixture
) -> None:
    """
    The commit is done: an exception would tell the caller that it is not.
    """
    called = []

    def broken() -> None:
        raise Broken("no socket")

    async with shop.units.begin() as unit:
        unit.session.add(Account(owner="ann"))
        unit.after_commit(broken)
        unit.after_commit(lambda: called.append(1))

    assert called == [1]
    assert await shop.owners() == ["ann"]
    assert "the commit stands" in caplog.text
    assert "no socket" in caplog.text


async def test_what_a_callback_begins_is_another_unit(shop: World) -> None:
    """
    The unit that called it is committed.
    """

    async def again() -> None:
        async with shop.units.begin() as unit:
            unit.session.add(Account(owner="bob"))

    async with shop.units.begin() as unit:
        unit.session.add(Account(owner="ann"))
        unit.after_commit(again)

    assert await shop.owners() == ["ann", "bob"]


async def test_the_connection_goes_back_whatever_a_callback_does(shop: World) -> None:
    """
    It may read by the session: that ends with the unit.
    """
    pool = shop.engine.sync_engine.pool
    out: list[str] = []
    sa.event.listen(pool, "checkout", lambda *_: out.append("out"))
    sa.event.listen(pool, "checkin", lambda *_: out.pop())

    async def read() -> None:
        await unit.session.scalar(sa.select(Account.owner))

    async with shop.units.begin() as unit:
        unit.session.add(Account(owner="ann"))
        unit.after_commit(read)

    assert out == []
