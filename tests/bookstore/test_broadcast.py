"""
Broadcasts: only what is committed, to all who may hear it and are there.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from examples.bookstore.ws.constants import PkgID, RSPCode
from tests.bookstore.site import (
    NOBODY,
    Site,
    ask,
    frame,
    held_commit,
    make_book,
    nothing_more,
    receive,
)

CHANGES = [
    (PkgID.CREATE_BOOK, {"title": "Dawn", "author_id": 1}, PkgID.BOOK_CREATED),
    (PkgID.UPDATE_BOOK, {"id": 1, "title": "Dawn"}, PkgID.BOOK_UPDATED),
    (PkgID.DELETE_BOOK, {"id": 1}, PkgID.BOOK_DELETED),
]


@pytest.mark.parametrize(("pkg_id", "data", "news"), CHANGES)
async def test_nothing_is_broadcast_before_the_commit(
    each_site: Site, pkg_id: PkgID, data: dict[str, Any], news: PkgID
) -> None:
    """
    While the COMMIT is held back nobody hears anything; once it has passed, everybody does.
    """
    await make_book(each_site)
    async with each_site.connect() as writer, each_site.connect() as listener:
        async with held_commit(each_site) as held:
            await writer.send(frame(pkg_id, data))
            await held.reached.wait()
            silent = await nothing_more(listener)
            held.go.set()
            told = await receive(listener)
        first, second = await receive(writer), await receive(writer)

    assert silent
    assert (told["pkg_id"], told["req_id"], told["status_code"]) == (news, NOBODY, RSPCode.OK)
    assert told["data"]["id"] == (2 if pkg_id is PkgID.CREATE_BOOK else 1)
    assert {first["pkg_id"], second["pkg_id"]} == {pkg_id, news}


@pytest.mark.parametrize(("pkg_id", "data", "news"), CHANGES)
async def test_what_is_rolled_back_is_never_broadcast(
    each_site: Site, pkg_id: PkgID, data: dict[str, Any], news: PkgID
) -> None:
    """
    The COMMIT fails: the caller learns it, nobody hears of the change, and a later one is heard.
    """
    await make_book(each_site)
    before = await each_site.outboxed()
    async with each_site.connect() as writer, each_site.connect() as listener:
        async with held_commit(each_site) as held:
            held.fails = True
            await writer.send(frame(pkg_id, data))
            await held.reached.wait()
            held.go.set()
            answer = await receive(writer)
        silent = await nothing_more(listener)
        after = await each_site.outboxed()
        await ask(writer, PkgID.UPDATE_BOOK, {"id": 1, "title": "Fledgling"})
        told = await receive(listener)

    assert (answer["pkg_id"], answer["status_code"]) == (pkg_id, RSPCode.ERROR)
    assert silent
    assert after == before
    assert told["data"] == {"id": 1, "title": "Fledgling", "action": "updated"}


async def test_a_command_over_http_is_broadcast_too(site: Site) -> None:
    """
    The news belong to the command, not to the door.
    """
    async with site.connect() as listener:
        book = await make_book(site)
        told = await receive(listener)

    assert told["pkg_id"] == PkgID.BOOK_CREATED
    assert told["data"] == {"id": book["id"], "title": "Kindred", "action": "created"}


async def test_a_command_that_is_refused_is_not_broadcast(site: Site) -> None:
    """
    The database refused it after the handler had begun.
    """
    await make_book(site)
    async with site.connect() as writer, site.connect() as listener:
        await ask(writer, PkgID.CREATE_BOOK, {"title": "Dawn", "author_id": 99})
        silent = await nothing_more(listener)

    assert silent


async def test_who_may_not_see_books_hears_nothing_of_them(site: Site) -> None:
    """
    A broadcast tells nobody what a request would not.
    """
    async with site.connect("create-book") as other, site.connect(additional_headers={}) as nobody:
        await make_book(site)
        silent = [await nothing_more(other), await nothing_more(nobody)]

    assert silent == [True, True]


async def test_who_comes_back_hears_again(site: Site) -> None:
    """
    A connection that is gone is forgotten, cleanly closed or not; the next one is like the first.
    """
    await make_book(site)
    closed = await site.connect()
    lost = await site.connect()
    await closed.close()
    lost.transport.abort()
    while len(site.bookstore.connections):
        await asyncio.sleep(0.001)
    await make_book(site, title="Dawn")
    async with site.connect() as listener:
        missed = await nothing_more(listener)
        await make_book(site, title="Imago")
        told = await receive(listener)

    assert missed
    assert told["data"]["title"] == "Imago"
    assert len(site.bookstore.connections) <= 1
