"""
The HTTP door: each command with its event, and what is refused leaves nothing behind.
"""

from __future__ import annotations

import time
import uuid

import jwt
import pytest
from websockets.exceptions import InvalidStatus

from examples.bookstore.auth import AUDIENCE, issue
from tests.bookstore.site import ALL_ROLES, SECRET, Site, make_book


async def test_each_command_writes_its_event_with_its_state(each_site: Site) -> None:
    """
    I1. What the handler saves and what it tells commit together.
    """
    book = await make_book(each_site)
    async with each_site.http() as client:
        updated = await client.patch(f"/books/{book['id']}", json={"title": "Kindred, again"})
        sold = await client.put(f"/sales/{uuid.uuid4()}", json={"book_id": book["id"], "copies": 3})
        other = await make_book(each_site, title="Dawn")
        deleted = await client.delete(f"/books/{other['id']}")
        found = await client.get(f"/books/{book['id']}")
        gone = await client.get(f"/books/{other['id']}")

    assert book["version"] == 1
    assert updated.json() == {**book, "title": "Kindred, again", "version": 2}
    assert sold.json()["total_cents"] == 2970
    assert deleted.status_code == 204
    assert found.json() == {**book, "title": "Kindred, again", "version": 3, "copies": 7}
    assert (gone.status_code, gone.json()) == (404, {"msg": "book 2 not found"})
    assert await each_site.outboxed() == [
        "author.created",
        "book.created",
        "book.updated",
        "book.sold",
        "book.created",
        "book.deleted",
    ]


REFUSED = [
    ("post", "/authors", {"name": "Octavia Butler"}, 409, "there is one with this name"),
    ("post", "/books", {"title": "Dawn", "author_id": 99}, 409, "a row that does not exist"),
    ("post", "/books", {"author_id": 1}, 422, "title: Field required"),
    ("post", "/books", {"title": " ", "author_id": 1}, 422, "title: String should have"),
    ("post", "/books", {"title": "D", "author_id": 1, "titel": 1}, 422, "titel: Extra inputs"),
    ("post", "/books", {"title": "D", "author_id": 1, "isbn": "1"}, 422, "isbn: String should"),
    ("post", "/books", {"title": "D", "author_id": 2**31}, 422, "author_id: Input should be"),
    ("patch", "/books/1", {}, 422, "nothing to change"),
    ("patch", "/books/1", {"title": None}, 422, "title may be left out, but not be null"),
    ("patch", "/books/1", {"title": "D", "version": 7}, 409, "its version is 1, not 7"),
    ("patch", "/books/99", {"title": "D"}, 404, "book 99 not found"),
    ("delete", "/books/99", None, 404, "book 99 not found"),
    ("put", "/sales/no-uuid", {"book_id": 1}, 422, "path.sale_id: Input should be a valid UUID"),
    ("put", f"/sales/{uuid.UUID(int=1)}", {"book_id": 1, "copies": 11}, 409, "10 copies left"),
    ("put", f"/sales/{uuid.UUID(int=1)}", {"book_id": 1, "copies": 0}, 422, "copies: Input"),
    ("get", "/books?page=0", None, 422, "page: Input"),
    ("get", "/books?per_page=0", None, 422, "per_page: Input"),
    ("get", "/books?per_page=101", None, 422, "per_page: Input"),
    ("get", "/books?page=x", None, 422, "page: Input"),
    ("get", "/books?author_id=0", None, 422, "author_id: Input"),
]


async def test_what_is_refused_leaves_nothing(site: Site) -> None:
    """
    The answer says why; no state has changed and no event is written.
    """
    await make_book(site)
    before = await _everything(site)
    wrong = []
    async with site.http() as client:
        for method, path, body, status, msg in REFUSED:
            answer = await client.request(method.upper(), path, json=body)
            if answer.status_code != status or msg not in answer.json()["msg"]:
                wrong.append((method, path, body, answer.status_code, answer.text))

    assert wrong == []
    assert await _everything(site) == before


async def test_a_body_that_is_not_json_is_refused(site: Site) -> None:
    """
    It says so.
    """
    async with site.http() as client:
        answer = await client.post(
            "/authors", content=b"{", headers={"content-type": "application/json"}
        )

    assert answer.status_code == 422
    assert "JSON decode error" in answer.json()["msg"]


async def test_an_author_or_book_that_is_in_use_stays(each_site: Site) -> None:
    """
    The database refuses, which the caller learns as invalid data.
    """
    book = await make_book(each_site)
    async with each_site.http() as client:
        await client.put(f"/sales/{uuid.uuid4()}", json={"book_id": book["id"]})
        answer = await client.delete(f"/books/{book['id']}")
        found = await client.get(f"/books/{book['id']}")

    assert answer.status_code == 409
    assert "others refer to it" in answer.json()["msg"]
    assert found.status_code == 200
    assert (await each_site.outboxed())[-1] == "book.sold"


async def test_an_update_changes_what_is_given_and_nothing_else(site: Site) -> None:
    """
    Null takes an ISBN away; a field that is left out stays.
    """
    book = await make_book(site, isbn="978-0807083697")
    async with site.http() as client:
        first = await client.patch(f"/books/{book['id']}", json={"price_cents": 1290})
        second = await client.patch(f"/books/{book['id']}", json={"isbn": None, "version": 2})

    assert first.json() == {**book, "price_cents": 1290, "version": 2}
    assert second.json() == {**book, "price_cents": 1290, "isbn": None, "version": 3}


async def test_a_sale_that_is_asked_for_twice_happens_once(site: Site) -> None:
    """
    Who lost the answer asks again: the same answer, no second event, and no change.
    """
    book = await make_book(site)
    sale = f"/sales/{uuid.uuid4()}"
    async with site.http() as client:
        first = await client.put(sale, json={"book_id": book["id"], "copies": 2})
        again = await client.put(sale, json={"book_id": book["id"], "copies": 2})
        other = await client.put(sale, json={"book_id": book["id"], "copies": 3})
        found = await client.get(f"/books/{book['id']}")

    assert again.json() == first.json()
    assert (other.status_code, "other data" in other.json()["msg"]) == (409, True)
    assert (found.json()["copies"], found.json()["version"]) == (8, 2)
    assert (await site.outboxed()).count("book.sold") == 1


async def test_pages_come_with_their_place_among_all(site: Site) -> None:
    """
    A page after the last one is empty; its total is still right.
    """
    for number in range(5):
        await make_book(site, title=f"Book {number}")
    async with site.http() as client:
        first = (await client.get("/books", params={"per_page": 2})).json()
        last = (await client.get("/books", params={"per_page": 2, "page": 3})).json()
        beyond = (await client.get("/books", params={"per_page": 2, "page": 4})).json()

    assert [book["title"] for book in first["data"]] == ["Book 0", "Book 1"]
    assert first["meta"] == {"page": 1, "per_page": 2, "total": 5, "pages": 3}
    assert [book["title"] for book in last["data"]] == ["Book 4"]
    assert (beyond["data"], beyond["meta"]["total"]) == ([], 5)


async def test_filters_hold_together(each_site: Site) -> None:
    """
    A part of the title, in either case; what is special in SQL means itself.
    """
    await make_book(each_site, title="100 % Wolf")
    await make_book(each_site, title="1000 Wolves")
    async with each_site.http() as client:
        await client.post("/authors", json={"name": "Other"})
        await make_book(each_site, title="A wolf", author_id=2)
        percent = (await client.get("/books", params={"title": "100 %"})).json()
        both = (await client.get("/books", params={"title": "WOL", "author_id": 1})).json()

    assert [book["title"] for book in percent["data"]] == ["100 % Wolf"]
    assert [book["title"] for book in both["data"]] == ["100 % Wolf", "1000 Wolves"]
    assert both["meta"]["total"] == 2


async def test_a_total_is_right_after_each_commit(site: Site) -> None:
    """
    It is kept between two requests, and counted anew once books came, changed or went.
    """

    async def total(**filters: str) -> int:
        answer = await client.get("/books", params=filters)
        found: int = answer.json()["meta"]["total"]
        return found

    async with site.http() as client:
        totals = [await total()]
        book = await make_book(site)
        totals.append(await total())
        wolves = [await total(title="wolf")]
        await client.patch(f"/books/{book['id']}", json={"title": "Wolf"})
        wolves.append(await total(title="wolf"))
        totals.append(await total())  # kept now, so that only the delete makes it count again
        await client.delete(f"/books/{book['id']}")
        totals.append(await total())

    assert totals == [0, 1, 1, 0]
    assert wolves == [0, 1]


async def test_a_rolled_back_command_leaves_the_total_kept(site: Site) -> None:
    """
    Only a commit makes the store count again.
    """
    await make_book(site)
    async with site.http() as client:
        await client.get("/books")
        kept = dict(site.bookstore.counts._counts)
        await client.post("/books", json={"title": "Dawn", "author_id": 99})

    assert site.bookstore.counts._counts == kept


def _tokens() -> dict[str, str]:
    soon = int(time.time()) + 100
    claims = {"sub": "x", "aud": AUDIENCE, "exp": soon, "roles": list(ALL_ROLES)}
    return {
        "expired": issue(SECRET, *ALL_ROLES, seconds=-10),
        "another key": issue("another secret of thirty-two bytes", *ALL_ROLES),
        "no signature": jwt.encode(claims, None, algorithm="none"),
        "another audience": jwt.encode({**claims, "aud": "x"}, SECRET),
        "for ever": jwt.encode({k: v for k, v in claims.items() if k != "exp"}, SECRET),
        "roles are text": jwt.encode({**claims, "roles": "admin"}, SECRET),
        "no token": "abc",
    }


async def test_a_token_that_is_not_one_of_ours_opens_nothing(site: Site) -> None:
    """
    At neither door.
    """
    answers = {}
    async with site.http() as client:
        for kind, token in _tokens().items():
            header = {"authorization": f"Bearer {token}"}
            answers[kind] = await client.get("/books", headers=header)
            with pytest.raises(InvalidStatus, match="HTTP 401"):
                await site.connect(additional_headers=header)

    assert {answer.status_code for answer in answers.values()} == {401}
    assert {answer.headers["www-authenticate"] for answer in answers.values()} == {"Bearer"}
    assert answers["expired"].json() == {"msg": "the token has expired: ask for a new one"}


async def test_without_a_token_there_is_what_is_for_anybody(site: Site) -> None:
    """
    The authors, and nothing else.
    """
    async with site.http() as client:
        del client.headers["authorization"]
        authors = await client.get("/authors")
        books = await client.get("/books")
        wrong = await client.get("/books", headers={"authorization": "Basic abc"})

    assert authors.status_code == 200
    assert (books.status_code, wrong.status_code) == (401, 401)


async def test_every_role_is_needed(site: Site) -> None:
    """
    One of two is not enough; the answer names what is missing.
    """
    book = await make_book(site)
    answers = []
    for roles in [("delete-book",), ("admin",), ("delete-book", "admin")]:
        async with site.http(*roles) as client:
            answers.append(await client.delete(f"/books/{book['id']}"))

    assert [answer.status_code for answer in answers] == [403, 403, 204]
    assert answers[0].json() == {"msg": "missing role: admin"}


async def _everything(site: Site) -> list[object]:
    return [
        await site.rows("SELECT * FROM authors ORDER BY id"),
        await site.rows("SELECT * FROM books ORDER BY id"),
        await site.rows("SELECT * FROM sales ORDER BY id"),
        await site.outboxed(),
    ]
