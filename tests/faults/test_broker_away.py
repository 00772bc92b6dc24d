"""
A broker that is away for a while, and how soon the relay goes on once it is back.

AWAY_SECONDS=1,15,60,600 says for how long; `make faults` runs the long ones.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import pytest

from outbox_relay.schema import Status
from tests.faults.network import Link
from tests.faults.site import DEFAULTS, SETTINGS, Site, Sites, assert_all_is_well

AWAY_SECONDS = [float(text) for text in os.environ.get("AWAY_SECONDS", "1,15").split(",")]
ROWS_A_SECOND = 50
LATEST_SECONDS = 10.0
"""An order of magnitude, on machines that have much else to do: docs/reliability.md has the figures."""

WAYS: dict[str, Callable[[Link], None]] = {"refuses": Link.cut, "is silent": Link.black_hole}


def resumed(site: Site) -> float:
    """Seconds from now, the broker being back, until the next row is produced."""
    before = site.statuses().get(Status.PRODUCED, 0)
    started = time.monotonic()
    site.write(1)
    while site.statuses().get(Status.PRODUCED, 0) <= before:
        assert time.monotonic() < started + 60, site.relay.log.read_text()[-3000:]
        time.sleep(0.01)
    return time.monotonic() - started


@pytest.mark.timeout(300 + 2 * max(AWAY_SECONDS))
@pytest.mark.parametrize("seconds", AWAY_SECONDS)
def test_an_outage_costs_nothing_however_long_it_lasts(sites: Sites, mariadb, seconds, capsys):
    """
    I2, I6, I8. With the deadlines and pauses of the defaults: nothing lost, inverted or given up, idle
    and under load, and the relay goes on by itself as soon as the broker is back.
    """
    made: dict[str, Site] = {}
    for way in WAYS:
        for load in ("idle", "busy"):
            name = f"{way}, {load}"
            folder = name.replace(", ", "-").replace(" ", "-")
            site = made[name] = sites.make(folder, mariadb, **DEFAULTS)
            site.relay.start()
            site.write(20)
    for site in made.values():
        site.wait_until_relayed()

    ended = time.monotonic() + seconds
    for name, site in made.items():
        WAYS[name.partition(",")[0]](site.broker)
        site.write(1 if name.endswith("idle") else 500)
    while time.monotonic() < ended:
        for name, site in made.items():
            if name.endswith("busy"):
                site.write(ROWS_A_SECOND)
        time.sleep(max(0.0, min(1.0, ended - time.monotonic())))
    took = {}
    for name, site in made.items():
        site.broker.cure()
        took[name] = resumed(site)

    with capsys.disabled():
        print()
        for name, site in made.items():
            drained = site.wait_until_relayed(seconds=120)
            print(
                f"  away {seconds:g} s, {name:16} goes on after {took[name]:5.2f} s, "
                f"{drained:5.1f} s more until all {site.written} events are produced"
            )
    assert max(took.values()) < LATEST_SECONDS
    for site in made.values():
        assert_all_is_well(site, most_duplicates=SETTINGS["in_flight_rows"])
        assert site.relay.running.poll() is None
