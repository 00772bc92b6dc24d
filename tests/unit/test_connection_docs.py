"""
The guide's sums follow from what one relay holds.
"""

from __future__ import annotations

import re
from pathlib import Path

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guide" / "connections.md"
HELD = {
    state: (int(database), int(brokers))
    for state, database, brokers in re.findall(
        r"^\| (active|standby|standby that was active) \| (\d+) \| (\d+)\D",
        GUIDE.read_text(encoding="utf-8"),
        re.MULTILINE,
    )
}
"""Of one relay, by what it does: to the database, to the broker. Counted in tests/integration."""

BROKERS = 3


def test_the_sums_are_right() -> None:
    """
    Every active relay holds its connections, every other one a standby's.
    """
    rows = re.findall(
        r"^\|[^|]+\| (40) \| (\d+) \| (\d+) \| ([\d,]+) \| ([\d,]+) \|$", GUIDE.read_text(), re.M
    )
    active, standby = HELD["active"][0], HELD["standby"][0]

    assert len(rows) == 4
    for _, relays, busy, database, brokers in rows:
        idle = int(relays) - int(busy)
        assert int(database.replace(",", "")) == int(busy) * active + idle * standby
        assert int(brokers.replace(",", "")) == int(busy) * BROKERS


def test_a_standby_costs_one_connection() -> None:
    """
    Whether or not it was active: standbys are as many as pods.
    """
    assert HELD["standby"] == (1, 0)
    assert HELD["standby that was active"][0] == 1
