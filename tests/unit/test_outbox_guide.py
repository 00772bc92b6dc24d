"""
docs/guide/library.md: its examples run as they stand.
"""

from __future__ import annotations

import ast
import inspect
import sqlite3
from pathlib import Path

import pytest

from tests.pages import blocks

GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "library.md"


async def test_the_guides_examples_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Every Python block and the SQL block, in their order, on an empty SQLite file.
    """
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "guide"}
    for language, block in (
        (block.language, block.text) for block in blocks(GUIDE, "python", "sql")
    ):
        if language == "sql":
            with sqlite3.connect("shop.db") as connection:
                connection.execute(block)
            continue
        code = compile(block, str(GUIDE), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        result = eval(code, names)
        if inspect.iscoroutine(result):
            await result
    await names["engine"].dispose()  # type: ignore[attr-defined]

    with sqlite3.connect("shop.db") as connection:
        rows = connection.execute(
            "SELECT event_name, key, codec FROM outbox ORDER BY id"
        ).fetchall()

    assert rows == [
        ("order.placed", b"1", 0),
        ("order.placed", b"1", 0),
        ("order.placed", b"1", 0),
        ("order.placed", b"2", 0),
        ("order.paid", b"1", 0),
        ("label.printed", None, 0),
        ("order.forgotten", b"1", 3),
        ("order.placed", None, 0),
        ("order.placed", b"1", 0),
    ]
    assert "nobody said whether it has a key" in capsys.readouterr().out
