"""
The list of mutants that may survive, as far as it can be checked without a run of `make mutants`.
"""

from __future__ import annotations

import importlib
import inspect

import pytest

from tests.mutation import Mutant, explained, mutant, readable


@pytest.mark.parametrize("one", explained(), ids=lambda one: one.function)
def test_an_explained_mutant_changes_a_line_that_is_there(one: Mutant) -> None:
    """
    With a reason. Whoever edits the line looks at the reason again.
    """
    found: object = None
    parts = one.function.split(".")
    for depth in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:depth]))
        except ModuleNotFoundError:
            continue
        for name in parts[depth:]:
            found = getattr(found, name)
        break
    lines = " ".join(line.strip() for line in inspect.getsource(found).splitlines())

    assert one.was in lines
    assert one.now != one.was
    assert explained()[one]


def test_a_mutant_is_named_by_its_function_and_its_lines() -> None:
    """
    Its number changes with every edit of the function.
    """
    diff = (
        "--- a\n+++ b\n@@ -1 +1 @@\n def f():\n-    return (\n-        1\n-    )\n+    return 2\n"
    )

    assert mutant("a.b.x_f__mutmut_3", diff) == Mutant("a.b.f", "return ( 1 )", "return 2")
    assert readable("a.b.xǁClassǁ__init____mutmut_12") == "a.b.Class.__init__"
