"""
The WebSocket door: frames, roles, schemas, and what becomes of a frame that is none.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError
from websockets.exceptions import ConnectionClosed

from examples.bookstore import auth
from examples.bookstore.app import create_app
from examples.bookstore.settings import Settings
from examples.bookstore.ws.constants import PkgID, RSPCode
from examples.bookstore.ws.router import load_handlers
from tests.bookstore.site import (
    ALL_ROLES,
    NOBODY,
    SECRET,
    Site,
    ask,
    frame,
    make_book,
    receive,
)


async def test_the_commands_are_those_of_http(each_site: Site) -> None:
    """
    I1. The same handlers, the same events, the same rows.
    """
    async with each_site.connect("create-author", "create-book", "view-books") as maker:
        author = await ask(maker, PkgID.CREATE_AUTHOR, {"name": "Octavia Butler"})
        fields = {"title": "Kindred", "author_id": 1, "isbn": "978-0807083697", "copies": 10}
        book = await ask(maker, PkgID.CREATE_BOOK, fields)
        found = await ask(maker, PkgID.GET_BOOK, {"id": 1})
        page = await ask(maker, PkgID.GET_BOOKS, {"per_page": 1, "filters": {"author_id": 1}})
    async with each_site.connect("update-book", "sell-book", "delete-book", "admin") as changer:
        updated = await ask(changer, PkgID.UPDATE_BOOK, {"id": 1, "title": "Kindred, again"})
        sale = {"sale_id": str(uuid.uuid4()), "book_id": 1, "copies": 2}
        sold = await ask(changer, PkgID.SELL_BOOK, sale)
        stays = await ask(changer, PkgID.DELETE_BOOK, {"id": 1})
    async with each_site.http() as client:
        over_http = (await client.get("/books/1")).json()

    assert author["data"] == {"id": 1, "name": "Octavia Butler"}
    assert (book["pkg_id"], book["status_code"]) == (PkgID.CREATE_BOOK, RSPCode.OK)
    assert found["data"] == book["data"]
    assert page["data"] == [book["data"]]
    assert page["meta"] == {"page": 1, "per_page": 1, "total": 1, "pages": 1}
    assert updated["data"] == {**book["data"], "title": "Kindred, again", "version": 2}
    assert sold["data"] == {"id": sale["sale_id"], "book_id": 1, "copies": 2, "total_cents": 0}
    assert stays["status_code"] == RSPCode.INVALID_DATA
    assert over_http == {**updated["data"], "copies": 8, "version": 3}
    assert await each_site.outboxed() == [
        "author.created",
        "book.created",
        "book.updated",
        "book.sold",
    ]


def _frames() -> dict[str, tuple[str | bytes, str]]:
    some_id = str(uuid.uuid4())
    return {
        "not JSON": ("{", "the frame is not JSON"),
        "no text": (b"\xff\xfe", "the frame is not JSON"),
        "a surrogate": ('{"pkg_id": 1, "req_id": "\\ud800"}', "the frame is not JSON"),
        "too deep": ("[" * 30_000, "the frame is not JSON"),
        "a list": ("[]", "the frame is not a request"),
        "no req_id": ('{"pkg_id": 1}', "req_id: Field required"),
        "no pkg_id": (json.dumps({"req_id": some_id}), "pkg_id: Field required"),
        "the id of broadcasts": (frame(1, req_id=NOBODY), "req_id: all zeros"),
        "data is no object": (json.dumps({"pkg_id": 1, "req_id": some_id, "data": []}), "data: "),
        "too large": (frame(1, {"x": "x" * 70_000}), "at most 65536 are read"),
    }


async def test_a_frame_that_cannot_be_read_is_answered(site: Site) -> None:
    """
    Invalid data, in an answer to nobody that says what is wrong; the connection goes on.
    """
    wrong = []
    async with site.connect() as socket:
        for kind, (sent, msg) in _frames().items():
            await socket.send(sent)
            answer = await receive(socket)
            told = (answer["pkg_id"], answer["req_id"], answer["status_code"])
            if told != (0, NOBODY, RSPCode.INVALID_DATA) or msg not in answer["data"]["msg"]:
                wrong.append((kind, answer))
        after = await ask(socket, PkgID.GET_AUTHORS)

    assert wrong == []
    assert after["status_code"] == RSPCode.OK


async def test_a_frame_in_bytes_is_read_as_text(site: Site) -> None:
    """
    JSON is JSON.
    """
    async with site.connect() as socket:
        await socket.send(frame(PkgID.GET_AUTHORS).encode())
        answer = await receive(socket)

    assert (answer["pkg_id"], answer["status_code"]) == (PkgID.GET_AUTHORS, RSPCode.OK)


async def test_a_frame_beyond_every_measure_ends_the_connection(site: Site) -> None:
    """
    It is not even read: 1009, as RFC 6455 has it.
    """
    async with site.connect() as socket:
        await socket.send("x" * (1024 * 1024 + 1))
        with pytest.raises(ConnectionClosed) as closed:
            await receive(socket)

    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009


REFUSED: list[tuple[int, dict[str, Any], RSPCode, str]] = [
    (99, {}, RSPCode.INVALID_DATA, "no handler for pkg_id 99"),
    (-1, {}, RSPCode.INVALID_DATA, "no handler for pkg_id -1"),
    (PkgID.BOOK_CREATED, {}, RSPCode.INVALID_DATA, "no handler for pkg_id 101"),
    (PkgID.CREATE_BOOK, {"author_id": 1}, RSPCode.INVALID_DATA, "title: Field required"),
    (PkgID.CREATE_BOOK, {"title": "D", "author_id": 9}, RSPCode.INVALID_DATA, "does not exist"),
    (PkgID.CREATE_AUTHOR, {"name": "Octavia Butler"}, RSPCode.INVALID_DATA, "there is one"),
    (PkgID.GET_BOOKS, {"filters": {"titel": ""}}, RSPCode.INVALID_DATA, "filters.titel: Extra"),
    (PkgID.GET_BOOKS, {"per_page": 101}, RSPCode.INVALID_DATA, "per_page: Input"),
    (PkgID.UPDATE_BOOK, {"id": 1}, RSPCode.INVALID_DATA, "nothing to change"),
    (PkgID.UPDATE_BOOK, {"id": 9, "title": "D"}, RSPCode.ERROR, "book 9 not found"),
    (PkgID.UPDATE_BOOK, {"id": 1, "title": "D", "version": 7}, RSPCode.CONFLICT, "read it again"),
    (PkgID.DELETE_BOOK, {}, RSPCode.INVALID_DATA, "id: Field required"),
    (PkgID.DELETE_BOOK, {"id": 9}, RSPCode.ERROR, "book 9 not found"),
]


async def test_what_is_refused_leaves_nothing(site: Site) -> None:
    """
    Each request gets its own answer, with a status and a reason.
    """
    await make_book(site)
    before = (await site.rows("SELECT * FROM books"), await site.outboxed())
    wrong = []
    async with site.connect() as socket:
        for pkg_id, data, status, msg in REFUSED:
            await socket.send(frame(pkg_id, data))
            answer = await receive(socket)
            if (answer["pkg_id"], answer["status_code"]) != (pkg_id, status) or msg not in answer[
                "data"
            ]["msg"]:
                wrong.append((pkg_id, data, answer))

    assert wrong == []
    assert (await site.rows("SELECT * FROM books"), await site.outboxed()) == before


async def test_each_package_asks_for_every_one_of_its_roles(site: Site) -> None:
    """
    With one role missing nothing is looked at, not even the data; without a token anybody's remains.
    """
    answers = {}
    for package in load_handlers().registrations():
        for role in package.roles:
            others = [other for other in ALL_ROLES if other != role]
            async with site.connect(*others) as socket:
                answers[package.pkg_id, role] = await ask(socket, package.pkg_id, {"nonsense": 1})
    async with site.connect(additional_headers={}) as socket:
        nobodys = await ask(socket, PkgID.CREATE_AUTHOR, {"name": "x"})
        anybodys = await ask(socket, PkgID.GET_AUTHORS)

    assert len(answers) == 8
    for (_, role), answer in answers.items():
        assert answer["status_code"] == RSPCode.PERMISSION_DENIED
        assert answer["data"]["msg"] == f"missing role: {role}"
    assert nobodys["status_code"] == RSPCode.PERMISSION_DENIED
    assert anybodys["status_code"] == RSPCode.OK


def test_both_doors_ask_for_the_same_roles() -> None:
    """
    A command that is open at one door is not locked at the other.
    """
    by_http = {}
    app = create_app(Settings(database_url="sqlite+aiosqlite://", jwt_secret=SECRET))
    for route in _routes(app):
        asked = [
            dependency.call.__name__.removeprefix("requires ").split(", ")
            for dependency in route.dependant.dependencies
            if dependency.call.__name__.startswith("requires ")
        ]
        by_http[route.name] = set(asked[0]) if asked else set()
    by_frame = {
        package.handler.__name__.removesuffix("_handler"): set(package.roles)
        for package in load_handlers().registrations()
    }

    assert by_frame.pop("get_paginated_authors") == by_frame["get_authors"]
    assert {name: by_http.get(name) for name in by_frame} == by_frame


def _routes(app: Any) -> list[Any]:
    routes = []
    for route in app.routes:
        inner = getattr(route, "original_router", None)
        routes += _routes(inner) if inner is not None else [route]
    return [route for route in routes if hasattr(route, "dependant")]


async def test_a_browser_gives_its_token_as_a_subprotocol(site: Site) -> None:
    """
    It can set no header; a token in the address would be in every log.
    """
    token = auth.issue(SECRET, "view-books")
    async with site.connect(additional_headers={}, subprotocols=["bearer", token]) as socket:
        answer = await ask(socket, PkgID.GET_BOOKS)

    assert socket.subprotocol == "bearer"
    assert answer["status_code"] == RSPCode.OK


async def test_a_token_ends_within_a_connection(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The connection outlives it, its rights do not.
    """
    async with site.connect() as socket:
        before = await ask(socket, PkgID.GET_BOOKS)
        now = auth.time.time()
        monkeypatch.setattr(auth.time, "time", lambda: now + 3601)
        after = await ask(socket, PkgID.GET_BOOKS)

    assert before["status_code"] == RSPCode.OK
    assert after["status_code"] == RSPCode.PERMISSION_DENIED
    assert "the token has expired" in after["data"]["msg"]


@pytest.mark.parametrize(
    "error", [RuntimeError("a bug"), OperationalError("SELECT", {}, OSError())]
)
async def test_a_handler_that_fails_rolls_back(
    site: Site, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """
    The caller learns that it failed and no secret of ours; what the handler had saved is gone.
    """
    await make_book(site)

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("examples.bookstore.command_handlers.book_model", fail)
    async with site.connect() as socket:
        answer = await ask(socket, PkgID.UPDATE_BOOK, {"id": 1, "title": "Changed"})
        others = await ask(socket, PkgID.GET_AUTHORS)

    assert answer["status_code"] == RSPCode.ERROR
    assert answer["data"]["msg"] in {
        "internal error",
        "the database does not answer: try again later",
    }
    assert others["status_code"] == RSPCode.OK
    assert await site.rows("SELECT title, version FROM books") == [("Kindred", 1)]
    assert await site.outboxed() == ["author.created", "book.created"]


async def test_a_client_that_leaves_has_its_command_finished(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    State and event are both there, though nobody hears the answer.
    """
    await make_book(site)
    begun, gone = asyncio.Event(), asyncio.Event()
    lock_book = "examples.bookstore.command_handlers.lock_book"
    from examples.bookstore.command_handlers import lock_book as lock

    async def lock_late(*arguments: Any) -> Any:
        begun.set()
        await gone.wait()
        return await lock(*arguments)

    monkeypatch.setattr(lock_book, lock_late)
    socket = await site.connect()
    await socket.send(frame(PkgID.UPDATE_BOOK, {"id": 1, "title": "Changed"}))
    await begun.wait()
    await socket.close()
    gone.set()
    while len(site.bookstore.connections):
        await asyncio.sleep(0.001)

    assert await site.rows("SELECT title, version FROM books") == [("Changed", 2)]
    assert (await site.outboxed())[-1] == "book.updated"
