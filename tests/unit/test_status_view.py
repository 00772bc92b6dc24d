"""
What `status` says of counts and times.
"""

from __future__ import annotations

import doctest

from outbox_relay.cli import status_view


def test_the_examples_run():
    """
    What a docstring shows is so.
    """
    found = doctest.testmod(status_view)

    assert found.attempted > 0
    assert found.failed == 0


def test_a_count_is_a_word():
    """
    One row is one row; where counting ends, there may be more.
    """
    assert [status_view._rows_text(count) for count in (0, 1, 2_000, 100_000)] == [
        "0 rows",
        "1 row",
        "2,000 rows",
        "100,000 rows or more",
    ]
