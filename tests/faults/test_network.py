"""
What the network does to a relay under load: between it and its broker, and between it and its database.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.faults.network import FAULTS, Link
from tests.faults.site import SETTINGS, Site, Sites, assert_all_is_well

QUICK = ("reset", "black hole", "reply lost", "half-open")
"""Those that `make test` plays."""

FAULT_SECONDS = 4.0
"""Longer than a publish deadline, a statement and a lease may take."""


@pytest.fixture(scope="module")
def troubled(installed_wheel, toxiproxy, far_kafka, mariadb, postgresql, tmp_path_factory):
    """Three relays, each with the link that will be spoiled."""
    sites = Sites(installed_wheel.command, toxiproxy, far_kafka, tmp_path_factory.mktemp("net"))
    made = [
        (sites.make("broker", mariadb), "broker"),
        (sites.make("mariadb", mariadb), "database"),
        (sites.make("postgresql", postgresql), "database"),
    ]
    found: list[tuple[Site, Link]] = [(site, getattr(site, link)) for site, link in made]
    for site, _ in found:
        site.start()
    yield found
    sites.end()


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(fault, id=name, marks=() if name in QUICK else pytest.mark.long)
        for name, fault in FAULTS.items()
    ],
)
def test_a_sick_network_loses_and_inverts_nothing(
    troubled: list[tuple[Site, Link]], fault: Callable[[Link], None]
):
    """
    I2, I3, I4, I6, I8. Whatever happens to requests and replies, everything arrives in order once the
    network is well, no event is given up, and no more is repeated than was under way when an outcome was
    unknown. The relay needs no restart.
    """
    pids = [site.relay.running.pid for site, _ in troubled]
    for site, _ in troubled:
        site.write(20)
        site.wait_until_relayed(seconds=30)
    repeated = {site.name: site.account().duplicates for site, _ in troubled}
    unknown = {site.name: site.unknown_outcomes() for site, _ in troubled}

    for site, link in troubled:
        site.write(400)
        fault(link)
        site.write(400)
    time.sleep(FAULT_SECONDS)
    for site, link in troubled:
        link.cure()
        site.write(50)

    for site, _ in troubled:
        site.wait_until_relayed(seconds=30)
        windows = 1 + site.unknown_outcomes() - unknown[site.name]
        most = repeated[site.name] + windows * SETTINGS["in_flight_rows"]
        assert_all_is_well(site, most_duplicates=most)
    assert [site.relay.running.pid for site, _ in troubled] == pids
    assert [site.relay.running.poll() for site, _ in troubled] == [None] * 3
