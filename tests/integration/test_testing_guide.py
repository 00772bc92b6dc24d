"""
docs/guide/testing.md: its files run as they stand, in a test run of their own.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pages import blocks

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "guide" / "testing.md"


def guide_files() -> dict[str, str]:
    """Name -> text of each file of the page."""
    return {block.file: block.text for block in blocks(GUIDE, "python") if block.file}


def test_the_guides_files_run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Every test of the page passes, with the fixtures that its conftest.py asks for.
    """
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    files = guide_files()
    for name, text in files.items():
        pytester.path.joinpath(name).write_text(text)
    pytester.makeini("[pytest]\nasyncio_mode = auto\n")

    result = pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider")

    result.assert_outcomes(passed=sum(text.count("def test_") for text in files.values()))


def test_a_run_that_does_not_ask_loads_nothing(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Having the package installed adds nothing to a test run: no import, no fixture.
    """
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makepyfile(
        """
        import sys

        def test_it(request):
            assert [name for name in sys.modules if name.startswith("outbox_relay")] == []
        """
    )

    pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider").assert_outcomes(passed=1)
