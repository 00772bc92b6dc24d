"""
docs/reference/documents.md: the tests that it names exist, and none of the documents is left out.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "documents.md"
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def test_every_test_of_the_table_exists() -> None:
    """
    By its file and its name.
    """
    named = NAMED.findall(PAGE.read_text())

    assert len(named) > 30
    assert [
        f"{path}::{name}"
        for path, name in named
        if not (ROOT / path).is_file()
        or not re.search(rf"^(async )?def {name}\(", (ROOT / path).read_text(), re.MULTILINE)
    ] == []


def test_every_test_of_the_documents_is_in_the_table() -> None:
    """
    What runs their examples is shown.
    """
    named = {path for path, _ in NAMED.findall(PAGE.read_text())}
    files = {
        str(path.relative_to(ROOT)) for path in (ROOT / "tests" / "documents").glob("test_*.py")
    }

    assert files - named == set()
