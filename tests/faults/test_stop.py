"""
SIGTERM while something is wrong: the process leaves within its budget.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from outbox_relay.schema import Status
from tests.faults.network import Link
from tests.faults.site import DEFAULTS, Site, Sites, until

STOP_SECONDS = 3.0
SLACK_SECONDS = 1.0
"""The promise: stop_seconds and one more."""

UNDER_WAY_SECONDS = 1.0


def missing_topic(site: Site) -> None:
    """Half of the rows are for a topic that is gone."""
    site.kafka.delete_topic(site.topic)


def both(first: Callable[[Link], None]) -> Callable[[Site], None]:
    """The same on both links."""

    def spoil(site: Site) -> None:
        first(site.broker)
        first(site.database)

    return spoil


def on_broker(fault: Callable[[Link], None]) -> Callable[[Site], None]:
    return lambda site: fault(site.broker)


def on_database(fault: Callable[[Link], None]) -> Callable[[Site], None]:
    return lambda site: fault(site.database)


@dataclass(frozen=True)
class Trouble:
    """One fault. *answers* if both servers still answer, however slowly: then nothing is repeated."""

    spoil: Callable[[Site], None]
    answers: bool = False


TROUBLES = {
    "none": Trouble(lambda _: None, answers=True),
    "broker cut": Trouble(on_broker(Link.cut)),
    "broker reset": Trouble(on_broker(Link.reset)),
    "broker black hole": Trouble(on_broker(Link.black_hole)),
    "broker swallows acks": Trouble(on_broker(Link.swallow_replies)),
    "broker slow": Trouble(on_broker(Link.delay), answers=True),
    "topic gone": Trouble(missing_topic),
    "database cut": Trouble(on_database(Link.cut)),
    "database black hole": Trouble(on_database(Link.black_hole)),
    "database loses replies": Trouble(on_database(Link.lose_replies)),
    # What is under way takes some statements, one after the other: they must fit the budget.
    "database slow": Trouble(on_database(lambda link: link.delay(50)), answers=True),
    "both black holes": Trouble(both(Link.black_hole)),
}


@pytest.fixture
def stopped(sites: Sites, mariadb) -> dict[str, tuple[Site, float, int]]:
    """A relay for each trouble, in the middle of its work: how long each took to leave, and its code."""
    # With the deadlines of the defaults, so that nothing but the budget of the stop is short.
    settings = {**DEFAULTS, "stop_seconds": STOP_SECONDS}
    made = {n: sites.make(n.replace(" ", "-"), mariadb, **settings) for n in TROUBLES}
    for site in made.values():
        site.relay.start()
        site.write(50)
    for site in made.values():
        site.wait_until_relayed()
    for name, trouble in TROUBLES.items():
        made[name].write(500)
        trouble.spoil(made[name])
        made[name].write(500)
    time.sleep(UNDER_WAY_SECONDS)
    found = {}
    for name, site in made.items():
        site.relay.running.terminate()
        found[name] = (site, time.monotonic())
    ended: dict[str, tuple[Site, float, int]] = {}

    def all_ended() -> bool:
        for name, (site, asked) in found.items():
            code = site.relay.running.poll()
            if code is not None and name not in ended:
                ended[name] = (site, time.monotonic() - asked, code)
        return len(ended) == len(found)

    until(all_ended, seconds=30)
    return ended


@pytest.mark.alone
def test_a_stop_fits_its_budget_under_each_of_twelve_faults(stopped, capsys):
    """
    I6, I9. Gone with code 0 within stop_seconds and a second, whatever broker and database do. Where both
    answer, what was under way is settled and marked: the next relay repeats nothing.
    """
    for site, _, _ in stopped.values():
        site.broker.cure()
        site.database.cure()
    well = [name for name, trouble in TROUBLES.items() if trouble.answers]
    for name in well:
        stopped[name][0].relay.start()
    for name in well:
        stopped[name][0].wait_until_relayed()
    repeated = {name: stopped[name][0].account().duplicates for name in well}

    with capsys.disabled():
        print()
        for name, (_, seconds, _) in stopped.items():
            print(f"  {name:24}{seconds:6.2f} s")
    assert {name: code for name, (_, _, code) in stopped.items()} == dict.fromkeys(TROUBLES, 0)
    late = {n: s for n, (_, s, _) in stopped.items() if s > STOP_SECONDS + SLACK_SECONDS}
    assert late == {}
    assert repeated == dict.fromkeys(well, 0)
    for site, _, _ in stopped.values():
        assert Status.DEAD not in site.statuses()
