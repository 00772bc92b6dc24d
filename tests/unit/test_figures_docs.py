"""
docs/sizing.md and docs/comparison.md invent no figure: what their tables show as measured stands in docs/benchmarks.md.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
BENCHMARKS = (DOCS / "benchmarks.md").read_text(encoding="utf-8")
COMMAND = re.compile(r"`(python -m benchmarks [^`]+)`")
FIGURE = re.compile(r"\d[\d,]*(?:\.\d+)?")

MEASURED = {
    "sizing.md": ["What one relay does", "Memory", "What the application pays"],
    "comparison.md": ["Measured"],
}
"""The sections whose tables hold nothing but measurements, by page."""


def section(page: str, heading: str) -> str:
    """The text below a heading of a page, up to the next of its rank."""
    text = (DOCS / page).read_text(encoding="utf-8")
    [part] = [part for part in text.split("\n## ") if part.startswith(f"{heading}\n")]
    return part


def figures(text: str) -> set[str]:
    """The figures in the cells of its tables but the first, which says what was measured."""
    rows = [line for line in COMMAND.sub("", text).splitlines() if line.startswith("| ")]
    return {
        figure for row in rows for cell in row.split("|")[2:] for figure in FIGURE.findall(cell)
    }


@pytest.mark.parametrize(
    ("page", "heading"), [(page, heading) for page in MEASURED for heading in MEASURED[page]]
)
def test_figures_are_those_of_the_benchmarks(page, heading):
    """
    After a new run the page that quotes it is changed too.
    """
    shown = figures(section(page, heading))

    assert shown
    assert shown - set(FIGURE.findall(BENCHMARKS)) == set()


@pytest.mark.parametrize("page", MEASURED)
def test_commands_are_those_that_measured(page):
    """
    Whoever wants to see it again runs the very command that the benchmarks name.
    """
    named = set(COMMAND.findall((DOCS / page).read_text(encoding="utf-8")))

    assert named
    assert named - set(COMMAND.findall(BENCHMARKS)) == set()
