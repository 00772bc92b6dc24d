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
GUIDE = (ROOT / "docs" / "guide" / "prometheus.md").read_text(encoding="utf-8")
METRICS = (ROOT / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8")
NAMES = re.findall(r"- alert: (\w+)", ALERTS)


def test_alerts_use_exported_metrics() -> None:
    """
    An alert on a metric that was renamed never fires.
    """
    exported = {
        family.name + ("_total" if family.type == "counter" else "")
        for family in Metrics().registry.collect()
    }

    assert len(NAMES) > 0
    assert set(re.findall(r"outbox_relay_\w+", ALERTS)) <= exported


def test_every_alert_has_a_section_of_its_name() -> None:
    """
    Whoever is woken up finds what it means and what to do, in the order of the file.
    """
    assert re.findall(r"^### (\w+)$", GUIDE, flags=re.MULTILINE) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_reference_names_every_alert(name: str) -> None:
    """
    "What to watch" and the alerts are the same list.
    """
    assert f"`{name}`" in METRICS
