"""
docs/guide/doctor.md says what the code says: each code, and which test plants it.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from outbox_relay.doctor import Area, Finding, Severity
from outbox_relay.doctor.catalogue import KINDS, found

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "guide" / "doctor.md").read_text(encoding="utf-8")
ROWS = re.findall(
    r"^\| .+ \| \[`([a-z-]+)`\]\(#([a-z-]+)\) \| `(.+)::(\w+)` \|$", PAGE, re.MULTILINE
)


def test_every_code_has_a_section_of_its_name() -> None:
    """
    In the order of the areas, with area, severity and why it matters, word for word.
    """
    sections = re.findall(r"^### ([a-z-]+)\n\n(.+)$", PAGE, flags=re.MULTILINE)
    expected = [
        (code, f"**{kind.area}, {kind.severity.word}.** {kind.why}")
        for area in Area
        for code, kind in KINDS.items()
        if kind.area is area
    ]

    assert sections == expected


def test_every_section_says_what_to_do() -> None:
    """
    After why it matters.
    """
    bodies = re.findall(r"^### [a-z-]+\n\n.+\n\n(.+)$", PAGE, flags=re.MULTILINE)

    assert len(bodies) == len(KINDS)


def test_every_planted_fault_names_a_code_and_a_test() -> None:
    """
    Twenty or more of them, each in a test that is there.
    """
    missing = [
        f"{path}::{name}"
        for _, _, path, name in ROWS
        if name not in functions((ROOT / path).read_text(encoding="utf-8"))
    ]

    assert missing == []
    assert all(code == anchor and code in KINDS for code, anchor, _, _ in ROWS)
    assert len({code for code, *_ in ROWS}) >= 20
    assert PAGE.count("| `tests/") == len(ROWS)


def functions(source: str) -> set[str]:
    """The names of the functions in *source*."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.walk(ast.parse(source)) if isinstance(node, kinds)}


def test_findings_lead_to_their_sections() -> None:
    """
    The anchor is the code.
    """
    finding = found("clock-skew", "w", "m")

    assert finding.docs == "guide/doctor.md#clock-skew"
    assert (ROOT / "docs" / finding.docs.partition("#")[0]).is_file()


def test_the_page_names_every_field_of_a_finding() -> None:
    """
    And every severity.
    """
    finding = Finding(
        code="c", area=Area.WAKE, severity=Severity.NOTE, what="", why="", mend="", commands=()
    )

    assert all(f"`{field}`" in PAGE for field in finding.as_json())
    assert all(f"`{severity.word}`" in PAGE for severity in Severity)
