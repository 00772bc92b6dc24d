"""
The router by package id, and the tool that lists and adds handlers.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from jsonschema import SchemaError

from examples.bookstore.auth import NOBODY, Identity
from examples.bookstore.store import Bookstore
from examples.bookstore.ws.constants import PkgID, RSPCode
from examples.bookstore.ws.frames import RequestModel, ResponseModel
from examples.bookstore.ws.router import PackageRouter, load_handlers
from examples.bookstore.ws.tool import Refused, new_handler
from tests.bookstore.site import frame

ROOT = Path(__file__).resolve().parents[2]
STORE = cast(Bookstore, SimpleNamespace(settings=SimpleNamespace(max_frame_bytes=1000)))


async def handler(request: RequestModel, _: Bookstore) -> ResponseModel:
    """Says what it was told."""
    return ResponseModel.success(request.pkg_id, request.req_id, request.data)


async def test_a_json_schema_may_be_a_dict() -> None:
    """
    The answer names the member and what is wrong with it.
    """
    router = PackageRouter()
    schema = {"type": "object", "required": ["id"], "properties": {"id": {"type": "integer"}}}
    router.register(PkgID.GET_BOOK, json_schema=schema)(handler)
    good = await router.answer(frame(PkgID.GET_BOOK, {"id": 1}), NOBODY, STORE)
    bad = await router.answer(frame(PkgID.GET_BOOK, {"id": "x"}), NOBODY, STORE)

    assert (good.status_code, good.data) == (RSPCode.OK, {"id": 1})
    assert bad.status_code == RSPCode.INVALID_DATA
    assert bad.data == {"msg": "$.id: 'x' is not of type 'integer'"}


async def test_all_named_roles_are_needed() -> None:
    """
    In any order; more do no harm.
    """
    router = PackageRouter()
    router.register(PkgID.GET_BOOK, roles=["a", "b"])(handler)
    statuses = [
        (
            await router.answer(frame(PkgID.GET_BOOK), Identity("x", frozenset(roles), None), STORE)
        ).status_code.name
        for roles in ["", "a", "b", "ba", "abc"]
    ]

    assert statuses == ["PERMISSION_DENIED"] * 3 + ["OK"] * 2


def test_a_wrong_registration_stops_the_start() -> None:
    """
    Two handlers for one package, a function that is not async, roles that are a text, no schema.
    """
    router = PackageRouter()
    router.register(PkgID.GET_BOOK)(handler)

    with pytest.raises(ValueError, match=r"GET_BOOK.* has a handler already: handler"):
        router.register(PkgID.GET_BOOK)(handler)
    with pytest.raises(TypeError, match="must be an async function"):
        router.register(PkgID.GET_BOOKS)(cast(Any, lambda request: None))
    with pytest.raises(TypeError, match=r"roles must be a list, such as \['admin'\]"):
        router.register(PkgID.GET_BOOKS, roles="admin")
    with pytest.raises(SchemaError):
        router.register(PkgID.GET_BOOKS, json_schema={"type": "nonsense"})


def make(
    target: str, *variables: str, folder: Path = ROOT, answers: str = ""
) -> subprocess.CompletedProcess[str]:
    """`make -C examples/bookstore TARGET`."""
    return subprocess.run(
        ["make", "-s", "-C", "examples/bookstore", target, f"PYTHON={sys.executable}", *variables],
        cwd=folder,
        capture_output=True,
        text=True,
        input=answers,
        check=False,
    )


def test_the_list_has_every_package() -> None:
    """
    `make ws-handlers`: number, name, roles, schema and handler.
    """
    done = make("ws-handlers")

    assert done.returncode == 0, done.stderr
    listed = [re.split(r"  +", line) for line in done.stdout.splitlines()]
    assert listed[0] == ["pkg_id", "name", "roles", "schema", "handler"]
    assert [row[1] for row in listed[1:]] == [
        package.pkg_id.name for package in load_handlers().registrations()
    ]
    assert ["6", "DELETE_BOOK", "delete-book, admin", "DeleteBook"] in [row[:4] for row in listed]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The example in a folder that may be written to."""
    shutil.copytree(
        ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__")
    )
    (tmp_path / "outbox_relay").symlink_to(ROOT / "outbox_relay")
    (tmp_path / "pyproject.toml").symlink_to(ROOT / "pyproject.toml")
    return tmp_path


CALL = """
import asyncio
from types import SimpleNamespace
from examples.bookstore.auth import Identity
from examples.bookstore.ws.constants import PkgID
from examples.bookstore.ws.router import load_handlers
store = SimpleNamespace(settings=SimpleNamespace(max_frame_bytes=1000))
frame = '{"pkg_id": %d, "req_id": "00000000-0000-0000-0000-000000000001", "data": {"id": 7}}'
for roles in ({"rate-book"}, {"rate-book", "admin"}):
    answer = asyncio.run(load_handlers().answer(
        frame % PkgID.RATE_BOOK, Identity("x", frozenset(roles), None), store))
    print(answer.pkg_id, answer.status_code.name, answer.data)
"""


def test_a_new_handler_is_served_at_once(copy: Path) -> None:
    """
    `make new-ws-handler` writes it from the template: it has a number, its roles and its schema, and
    passes the same checks as the rest.
    """
    new = make("new-ws-handler", "NAME=rate_book", "ROLES=rate-book admin", folder=copy)
    listed = make("ws-handlers", folder=copy)
    called = subprocess.run(
        [sys.executable, "-c", CALL], cwd=copy, capture_output=True, text=True, check=False
    )
    checked = [
        subprocess.run(
            [sys.executable, "-m", "ruff", *check, "examples/bookstore/ws"],
            cwd=copy,
            capture_output=True,
            text=True,
            check=False,
        )
        for check in (["check", "--no-cache"], ["format", "--no-cache", "--check"])
    ]

    assert new.returncode == 0, new.stderr
    assert "rate_book_handler.py is written; RATE_BOOK has its number" in new.stdout
    assert re.search(r"^10 +RATE_BOOK +rate-book, admin +RateBook ", listed.stdout, re.MULTILINE)
    assert called.stdout.splitlines() == [
        "10 PERMISSION_DENIED {'msg': 'missing role: admin'}",
        "10 OK {'id': 7}",
    ]
    assert [check.returncode for check in checked] == [0, 0], [check.stdout for check in checked]


def test_without_a_name_it_asks(copy: Path) -> None:
    """
    For the name and the roles; who answers nothing learns what to say.
    """
    asked = make("new-ws-handler", folder=copy, answers="rate_book\nrate-book\n")
    nobody = make("new-ws-handler", folder=copy)

    assert "RATE_BOOK has its number" in asked.stdout, asked.stderr
    assert nobody.returncode != 0
    assert "no name was given: NAME=rate_book" in nobody.stderr


@pytest.mark.parametrize(
    ("name", "roles", "text"),
    [
        ("create_book", [], "CREATE_BOOK is there already"),
        ("book_created", [], "BOOK_CREATED is there already"),
        ("Rate-Book", [], "'Rate-Book' is no name for a handler"),
        ("class", [], "'class' is no name for a handler"),
        ("rate_book", ['x"]'], "is no role"),
    ],
)
def test_a_name_that_is_none_writes_nothing(
    copy: Path, name: str, roles: list[str], text: str
) -> None:
    """
    It says why.
    """
    folder = copy / "examples" / "bookstore" / "ws"
    before = {path: path.read_bytes() for path in folder.rglob("*.py")}
    with pytest.raises(Refused, match=re.escape(text)):
        new_handler(name, roles, folder=folder)

    assert {path: path.read_bytes() for path in folder.rglob("*.py")} == before
