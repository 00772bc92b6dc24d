"""
The clock of the relay's machine jumps: libfaketime, on the relay's process alone.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.faults.site import SETTINGS, Site, Sites, assert_all_is_well
from tests.services.faketime import FakeClock
from tests.services.process import MissingPartError

HOUR = 3600


@pytest.fixture
def start_with(monkeypatch, tmp_path: Path):
    """Starts a site's relay with a clock of its own."""

    def start(site: Site, *, monotonic: bool) -> FakeClock:
        clock = FakeClock(tmp_path, monotonic=monotonic)
        try:
            environment = clock.environment
        except MissingPartError as missing:
            pytest.skip(str(missing))
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            site.start()
        return clock

    return start


def under_load(site: Site, clock: FakeClock, jumps: tuple[int, ...]) -> None:
    """Events before, between and after the jumps; each is given longer than a lease to do harm."""
    for seconds in (0, *jumps):
        clock.jump(seconds)
        until = time.monotonic() + 1.2 * SETTINGS["lease_seconds"]
        while time.monotonic() < until:
            site.write(50)
            time.sleep(0.2)


def test_a_jump_of_the_wall_clock_costs_nothing(sites: Sites, mariadb, start_with):
    """
    I5. Leases go by the database's clock, deadlines by one that only goes forward: an hour ahead and an
    hour back end no term and repeat nothing.
    """
    site = sites.make("wall", mariadb)
    clock = start_with(site, monotonic=False)

    under_load(site, clock, (HOUR, -HOUR))

    site.wait_until_relayed()
    assert_all_is_well(site, most_duplicates=0)
    assert len(site.relay.logged("lease_acquired")) == 1
    # A lease that is not renewed in time lets nothing be marked.
    assert not site.relay.logged("mark_failed")
    site.relay.stop()


def test_a_machine_that_was_suspended_trusts_no_lease(sites: Sites, mariadb, start_with):
    """
    I4, I5, I6. All clocks jump ahead, as after a suspension, and each deadline has passed at once: the
    relay renews before it publishes on, and repeats what was under way at most.
    """
    site = sites.make("suspended", mariadb)
    clock = start_with(site, monotonic=True)

    under_load(site, clock, (HOUR, 30 * HOUR))

    site.wait_until_relayed()
    assert_all_is_well(site, most_duplicates=2 * SETTINGS["in_flight_rows"])
    site.relay.stop()
