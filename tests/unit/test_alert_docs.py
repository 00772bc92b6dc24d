"""
The alerts speak of metrics that are exported, and each has its section in the guide.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from outbox_relay.metrics import Metrics

ROOT = Path(__file__).resolve().parents[2]
ALERTS = (ROOT / "deploy" / "prometheus" / "alerts.yml").read_text(encoding="utf-8")
RUNBOOK = (ROOT / "docs" / "guide" / "runbook.md").read_text(encoding="utf-8")
TESTS = (ROOT / "deploy" / "prometheus" / "alerts.test.yml").read_text(encoding="utf-8")
METRICS = (ROOT / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8")
EXPRESSIONS = "\n".join(re.findall(r"expr: \|\n((?: {10}.*\n)+)", ALERTS))
NAMES = re.findall(r"- alert: (\w+)", ALERTS)


def exported_series() -> set[str]:
    """The names that Prometheus stores of a relay."""
    found = set()
    for family in Metrics().registry.collect():
        ends = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"]}
        found |= {family.name + end for end in ends.get(family.type, [""])}
    return found


def test_alerts_use_exported_metrics() -> None:
    """
    An alert on a metric that was renamed never fires.
    """
    assert len(NAMES) > 0
    assert set(re.findall(r"outbox_relay_\w+", EXPRESSIONS)) <= exported_series()


def test_every_alert_has_a_section_of_its_name() -> None:
    """
    Whoever is woken up finds what it means and what to do, in the order of the file.
    """
    assert re.findall(r"^## (\w+)$", RUNBOOK, flags=re.MULTILINE) == NAMES
    assert re.findall(r"^\| \[(\w+)\]", RUNBOOK, flags=re.MULTILINE) == NAMES


def test_every_alert_leads_to_its_section() -> None:
    """
    The annotation's anchor is the section's.
    """
    found = re.findall(r"runbook_url: docs/guide/runbook.md#(\w+)", ALERTS)

    assert found == [name.lower() for name in NAMES]


@pytest.mark.parametrize("name", NAMES)
def test_every_section_says_what_to_do(name: str) -> None:
    """
    What it means, how to look (with commands), what mends it, and how one sees that it is mended.
    """
    section = RUNBOOK.split(f"\n## {name}\n")[1].split("\n## ")[0]
    means, look, mend = re.split(r"\n\*\*(?:Look|Mend)\*\*\n", section)

    assert means.strip()
    assert "```sh" in look
    assert "**Mended when** " in mend


def test_every_alert_is_tested_to_fire_and_to_end() -> None:
    """
    In alerts.test.yml each is seen firing, and in the same scenario silent before and after.
    """
    scenarios = TESTS.split("\n  - name: ")[1:]
    fires = {}
    for scenario in scenarios:
        samples = re.split(r"\n +- expr: ", scenario)[1:]
        for name in NAMES:
            seen = [f'alertname="{name}"' in sample for sample in samples]
            if True in seen:
                ended = not seen[0] and not seen[-1]
                fires[name] = fires.get(name, False) or ended

    assert fires == dict.fromkeys(NAMES, True)


def test_the_healthy_relay_of_the_tests_has_every_metric() -> None:
    """
    An alert is silent on a healthy relay only if its metrics were there.
    """
    healthy = TESTS.split("\n  - name: ")[1]
    used = set(re.findall(r"outbox_relay_\w+", EXPRESSIONS))
    # Counters that begin with the first trouble are not there.
    begins_with_trouble = {"outbox_relay_unexpected_errors_total"}

    assert used - begins_with_trouble <= set(re.findall(r"outbox_relay_\w+", healthy))


@pytest.mark.parametrize("name", NAMES)
def test_the_reference_names_every_alert(name: str) -> None:
    """
    "What to watch" and the alerts are the same list.
    """
    assert f"`{name}`" in METRICS
