"""
docs/architecture.md speaks of what is there: its tests, its modules, its promises.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
TEXT = (DOCS / "architecture.md").read_text(encoding="utf-8")
PROMISES = [f"I{number}" for number in range(1, 12)]

TEST = re.compile(r"(tests/[\w/]+\.py)::(\w+)")
PATH = re.compile(r"`((?:outbox_relay|migrations|tests|docs)/[\w./-]*|config\.example\.toml)`")
PICTURED = re.compile(r"\b(?:outbox|relay|store|brokers)/[a-z_]+")
LINK = re.compile(r"\]\(([^)#:]+)\)")


@cache
def names_in(path: str) -> frozenset[str]:
    """The names of the test functions in a file."""
    file = ROOT / path
    if not file.is_file():
        return frozenset()
    return frozenset(
        node.name
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
    )


def row_of(promise: str) -> str:
    """The row of the table of promises."""
    [row] = [line for line in TEXT.splitlines() if line.startswith(f"| {promise} |")]
    return row


def test_every_test_that_is_named_exists() -> None:
    """
    A test that was renamed or removed no longer holds a promise.
    """
    named = TEST.findall(TEXT)

    assert [f"{path}::{name}" for path, name in named if name not in names_in(path)] == []


@pytest.mark.parametrize("promise", PROMISES)
def test_every_promise_has_a_test(promise: str) -> None:
    """
    What nothing holds is no promise.
    """
    assert TEST.findall(row_of(promise)) != []


def test_no_other_promise_is_made() -> None:
    """
    The table has I1 to I11, in this order.
    """
    assert re.findall(r"^\| (I\d+) \|", TEXT, flags=re.MULTILINE) == PROMISES


def test_every_path_that_is_named_exists() -> None:
    """
    Modules, folders and pages, also those of the picture.
    """
    picture = TEXT.split("```")[1]
    named = PATH.findall(TEXT) + [f"outbox_relay/{path}.py" for path in PICTURED.findall(picture)]

    assert len(named) > len(PROMISES)
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_module_of_the_relay_core_has_a_line() -> None:
    """
    Whoever carries the code on finds each of its files in the table of parts.
    """
    modules = [
        str(path.relative_to(ROOT))
        for part in ("relay", "store", "brokers", "outbox")
        for path in sorted((ROOT / "outbox_relay" / part).glob("*.py"))
        if path.name not in ("__init__.py", "options.py")
    ]

    assert [path for path in modules if f"`{path}`" not in TEXT] == []


def pages() -> list[Path]:
    """Every page of the documentation."""
    return sorted(DOCS.rglob("*.md"))


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(DOCS)))
def test_every_link_between_pages_leads_somewhere(page: Path) -> None:
    """
    Relative links, such as to a decision.
    """
    links = LINK.findall(page.read_text(encoding="utf-8"))

    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_index_names_every_page() -> None:
    """
    docs/README.md has a line for each page.
    """
    index = DOCS / "README.md"
    linked = {(DOCS / link).resolve() for link in LINK.findall(index.read_text(encoding="utf-8"))}

    assert [str(page.relative_to(DOCS)) for page in pages() if page not in linked | {index}] == []
