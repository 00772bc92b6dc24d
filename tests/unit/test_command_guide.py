"""
docs/guide/command-handlers.md: its examples run as they stand.
"""

from __future__ import annotations

import ast
import inspect
import sqlite3
from pathlib import Path

import pytest

import outbox_relay.cqrs as cqrs
from tests.pages import texts

GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "command-handlers.md"


async def test_the_guides_examples_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Every Python block in its order, on an empty SQLite file.
    """
    monkeypatch.chdir(tmp_path)
    # The container looks up annotations in the module of a class.
    names: dict[str, object] = {"__name__": "guide"}
    for block in texts(GUIDE, "python"):
        code = compile(block, str(GUIDE), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        result = eval(code, names)
        if inspect.iscoroutine(result):
            await result
    await names["engine"].dispose()  # type: ignore[attr-defined]

    with sqlite3.connect("shop.db") as connection:
        events = connection.execute("SELECT event_name, key FROM outbox ORDER BY id").fetchall()
        customers = connection.execute("SELECT name, orders FROM customers").fetchall()
    assert events == [
        ("order.placed", b"1"),
        ("order.placed", b"2"),
        ("order.cancelled", b"1"),
        ("order.placed", b"3"),
        ("order.placed", b"4"),
    ]
    assert customers == [("ann", 1)]
    said = capsys.readouterr().out.splitlines()
    assert said[:5] == [
        "nothing is for free",
        "1 order",
        "order.placed in the outbox",
        "told everybody",
        "0 7",
    ]
    assert said[5:8] == ["committed 3", "committed 4", "flowchart LR"]


def test_the_guide_names_every_error() -> None:
    """
    Each error of the command side that a user may meet has a line.
    """
    text = GUIDE.read_text()
    names = [
        name
        for name in cqrs.__all__
        if isinstance(found := getattr(cqrs, name), type)
        and issubclass(found, cqrs.CqrsError | cqrs.DirectPublishWarning)
        and found is not cqrs.CqrsError
    ]

    assert [name for name in names if f"`{name}`" not in text and name not in text] == []
