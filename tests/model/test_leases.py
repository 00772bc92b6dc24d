"""
The lease and hand-over protocol has no state that breaks a promise: all of them are looked at.
"""

from __future__ import annotations

import re
import shutil

import pytest

from tests.model.search import MODEL, QUICK, WRONG, Search, search


@pytest.fixture(autouse=True)
def searcher() -> None:
    """Spin, and the compiler that it needs."""
    for program in ("spin", "gcc"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed; run: python -m tests.services.install")


@pytest.mark.parametrize("what", QUICK, ids=lambda what: what.name)
def test_no_state_breaks_a_promise(what: Search) -> None:
    """
    I2 to I6, for two relays that share lanes: no row is marked before its ack, none is left behind, keys
    keep their order, a stale term marks nothing, and a copy too many costs a fault.
    """
    found = search(what)

    assert found.broken == ""
    assert found.complete, found.text
    assert found.states > 500


@pytest.mark.parametrize("what", WRONG, ids=lambda what: what.wrong)
def test_a_wrong_protocol_is_found_out(what: Search) -> None:
    """
    Each rule that is left out breaks a promise in the model: it says something.
    """
    found = search(what)
    expected = "acceptance cycle" if what.progress else "assertion violated"

    assert expected in found.broken
    assert found.promise


def test_every_mistake_that_the_model_knows_is_tried() -> None:
    """
    The names in the model's first comment are those of the searches, and it asks for each.
    """
    text = MODEL.read_text()
    named = re.findall(r"^ \*   ([A-Z_]+) ", text, re.MULTILINE)

    assert sorted(named) == sorted(what.wrong for what in WRONG)
    assert [
        name for name in named if not re.search(rf"^#ifn?def {name}$", text, re.MULTILINE)
    ] == []
