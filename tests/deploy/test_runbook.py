"""
Every alert: its fault is planted on a real relay, the alert fires in a real Prometheus, the commands of
its section in the runbook mend it, and the alert ends. `make runbook` runs this and prints how long
each took; `cases.py` holds the faults.

Times in the alerts are divided by a factor. No alert had to be left out.
"""

from __future__ import annotations

import re
import shutil
import time

import pytest

from tests.deploy.account import Seen
from tests.deploy.cases import CASES
from tests.deploy.runbook import ALERTS, blocks, faster
from tests.deploy.world import World, wait_until

ANY_FIRING = 'ALERTS{alertstate="firing"}'


@pytest.fixture
def world(request, installed_wheel, kafka, topic_name, tmp_path):
    """As the case wants it, with a relay that begins its work."""
    case = request.param
    server = request.getfixturevalue(case.server)
    kafka.create_topic(topic_name, partitions=2)
    made = World(
        tmp_path,
        installed_wheel.command,
        mariadb=server,
        database=server.create_database(),
        kafka=kafka,
        topic=topic_name,
        factor=case.factor,
        settings=case.settings.format(topic=topic_name),
        **case.relay,
    )
    try:
        if case.is_migrated:
            made.migrate()
            case.before(made)
            made.write_for_ever()
        made.relay.start()
        for _ in range(case.relays - 1):
            made.one_more_relay()
        yield made
    finally:
        server.heal()
        kafka.heal()
        made.end()


@pytest.mark.parametrize(
    ("case", "world"),
    [pytest.param(case, case, id=case.name) for case in CASES],
    indirect=["world"],
)
def test_the_runbook_mends_what_the_alert_tells(case, world, record_property):
    """
    Fault, alert, the section's commands as printed, and the alert ends.
    """
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed; run: python -m tests.deploy.install")
    firing = f'ALERTS{{alertname="{case.alert}", alertstate="firing"}}'
    with world.watched() as prometheus:
        if case.is_migrated:
            prometheus.wait_for("sum(outbox_relay_lanes_owned) == 64")
            prometheus.wait_for("sum(outbox_relay_published_total) > 0")
            # It was nobody's while the relay started.
            wait_until(prometheus, ANY_FIRING)
        planted = time.monotonic()
        case.fault(world)
        prometheus.wait_for(firing)
        fired = time.monotonic()
        with world.operator() as operator:
            for block in blocks(case.alert, "Look"):
                operator.run(block)
            mending = time.monotonic()
            for block in blocks(case.alert, "Mend"):
                operator.run(block)
        wait_until(prometheus, firing)
        mended = time.monotonic()
    seen = Seen(
        alert=case.alert,
        fault=case.what,
        factor=case.factor,
        fires=fired - planted,
        mended=mended - mending,
    )
    record_property(Seen.PROPERTY, seen.as_text())


def test_every_alert_has_a_case():
    """
    An alert that nobody ever saw firing may be one that cannot.
    """
    assert set(re.findall(r"- alert: (\w+)", ALERTS)) == {case.alert for case in CASES}


@pytest.mark.parametrize("alert", sorted({case.alert for case in CASES}))
def test_every_section_mends_by_a_command(alert):
    """
    Words alone help nobody at three in the morning.
    """
    assert blocks(alert, "Look")
    assert blocks(alert, "Mend")


def test_times_are_divided_and_nothing_else():
    """
    What is hurried is the same alert otherwise.
    """
    text = "for: 5m\nexpr: rate(x[1h]) > 300 # seconds\nand x offset 30m > 300\n"

    assert faster(text, 60) == (
        "for: 5000ms\nexpr: rate(x[60000ms]) > 5.0\nand x offset 30000ms > 300\n"
    )
