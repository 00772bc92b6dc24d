"""
docs/failures.md: a row for each failure, with a test, and with what is really logged and measured.
"""

from __future__ import annotations

import re
from pathlib import Path

from tests.unit.test_architecture_docs import DOCS, ROOT, TEST, names_in

TEXT = (DOCS / "failures.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (\d+) \|(.*)\|$", TEXT, flags=re.MULTILINE)
FAILURES = 57
WORD = re.compile(r"`([a-z_]+)`")


def sources() -> str:
    """Everything that the relay may say."""
    files = sorted((ROOT / "outbox_relay").rglob("*.py"))
    return "\n".join(path.read_text(encoding="utf-8") for path in files)


def test_every_failure_has_one_row():
    """
    1 to 57, in this order.
    """
    assert [int(number) for number, _ in ROWS] == list(range(1, FAILURES + 1))


def test_every_failure_has_a_test_that_exists():
    """
    What no test shows is a hope.
    """
    without = [number for number, row in ROWS if not TEST.findall(row)]
    missing = [f"{path}::{name}" for path, name in TEST.findall(TEXT) if name not in names_in(path)]

    assert (without, missing) == ([], [])


def test_what_an_operator_sees_is_said_by_the_relay():
    """
    Log events and metrics are spelt as they are.
    """
    code = sources()
    said = {word for _, row in ROWS for word in WORD.findall(row.split("|")[2]) if "_" in word}
    unknown = [
        w for w in said if f'"{w.removeprefix("outbox_relay_").removesuffix("_total")}"' not in code
    ]

    assert unknown == []
    assert len(said) > FAILURES // 3


def test_links_lead_somewhere():
    """
    The page stands beside the others.
    """
    links = re.findall(r"\]\(([^)#]+)", TEXT)

    assert [link for link in links if not (Path(DOCS) / link).exists()] == []
