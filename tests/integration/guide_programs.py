"""The programs of a page of docs/guide: blocks whose first line names a file."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from tests.pages import blocks


def programs(page: str) -> dict[str, str]:
    """File name -> text, of *page*."""
    return {
        block.file: block.text
        for block in blocks(f"docs/guide/{page}", "python", "toml")
        if block.file
    }


def imported(
    page: str, name: str, folder: Path, patch: pytest.MonkeyPatch, text: str | None = None
) -> ModuleType:
    """The program *name* of *page*, or *text* instead, as a module of its own."""
    (folder / f"{name}.py").write_text(text or programs(page)[f"{name}.py"])
    patch.syspath_prepend(folder)
    sys.modules.pop(name, None)
    return import_module(name)
