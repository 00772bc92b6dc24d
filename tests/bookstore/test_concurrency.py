"""
Several clients at one book: no update is lost, no copy is sold twice.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter

from examples.bookstore.ws.constants import PkgID, RSPCode
from tests.bookstore.site import Site, ask, held_commit, make_book


async def test_two_updates_at_once_both_hold(each_site: Site) -> None:
    """
    The second waits for the first's COMMIT, and then changes what the first has left.
    """
    await make_book(each_site)
    async with each_site.http() as client, each_site.connect() as socket:
        async with held_commit(each_site) as held:
            first = asyncio.create_task(client.patch("/books/1", json={"title": "Dawn"}))
            await held.reached.wait()
            second = asyncio.create_task(ask(socket, PkgID.UPDATE_BOOK, {"id": 1, "copies": 3}))
            held.go.set()
            by_http, by_frame = (await first).json(), (await second)["data"]
        book = (await client.get("/books/1")).json()

    assert (by_http["title"], by_http["version"]) == ("Dawn", 2)
    assert (by_frame["title"], by_frame["copies"], by_frame["version"]) == ("Dawn", 3, 3)
    assert book == by_frame
    assert (await each_site.outboxed()).count("book.updated") == 2


async def test_of_two_who_saw_one_version_one_is_refused(each_site: Site) -> None:
    """
    Who says which version it has seen overwrites nothing that it has not seen.
    """
    await make_book(each_site)
    async with each_site.connect() as one, each_site.connect() as other:
        answers = await asyncio.gather(
            ask(one, PkgID.UPDATE_BOOK, {"id": 1, "version": 1, "title": "Dawn"}),
            ask(other, PkgID.UPDATE_BOOK, {"id": 1, "version": 1, "title": "Imago"}),
        )
        book = (await ask(one, PkgID.GET_BOOK, {"id": 1}))["data"]

    kept = [answer for answer in answers if answer["status_code"] == RSPCode.OK]
    refused = [answer for answer in answers if answer["status_code"] == RSPCode.CONFLICT]
    assert (len(kept), len(refused)) == (1, 1)
    assert book == kept[0]["data"]
    assert (await each_site.outboxed()).count("book.updated") == 1


async def test_no_copy_is_sold_twice(each_site: Site) -> None:
    """
    Twenty clients at both doors, ten copies: ten buy one, ten are refused, and ten events say so.
    """
    await make_book(each_site, copies=10)
    async with each_site.http() as client, each_site.connect() as socket_a:
        sockets = [socket_a, *[await each_site.connect() for _ in range(9)]]

        async def over_http() -> bool:
            answer = await client.put(f"/sales/{uuid.uuid4()}", json={"book_id": 1})
            return answer.status_code == 200

        async def over_websocket(number: int) -> bool:
            sale = {"sale_id": str(uuid.uuid4()), "book_id": 1}
            answer = await ask(sockets[number], PkgID.SELL_BOOK, sale)
            return answer["status_code"] == RSPCode.OK

        sold = await asyncio.gather(
            *(over_http() for _ in range(10)), *(over_websocket(number) for number in range(10))
        )
        book = (await client.get("/books/1")).json()
        for socket in sockets:
            await socket.close()

    assert Counter(sold) == {True: 10, False: 10}
    assert (book["copies"], book["version"]) == (0, 11)
    assert (await each_site.outboxed()).count("book.sold") == 10
    assert await each_site.rows("SELECT COUNT(*), SUM(copies) FROM sales") == [(10, 10)]


async def test_one_sale_asked_for_at_both_doors_at_once_happens_once(each_site: Site) -> None:
    """
    Who repeats a request whose answer is slow gets the answer of the first.
    """
    await make_book(each_site)
    sale = str(uuid.uuid4())
    async with each_site.http() as client, each_site.connect() as socket:
        by_http, by_frame = await asyncio.gather(
            client.put(f"/sales/{sale}", json={"book_id": 1, "copies": 2}),
            ask(socket, PkgID.SELL_BOOK, {"sale_id": sale, "book_id": 1, "copies": 2}),
        )

    assert by_http.json() == by_frame["data"]
    assert await each_site.rows("SELECT copies FROM books") == [(8,)]
    assert (await each_site.outboxed()).count("book.sold") == 1
