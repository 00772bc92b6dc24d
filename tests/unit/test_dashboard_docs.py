"""
The dashboard for Grafana asks for metrics that are exported, with labels that they have.
"""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

from tests.unit.test_alert_docs import exported_series

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "outbox-relay.json").read_text("utf-8"))
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
EXPRESSIONS = [target["expr"] for panel in PANELS for target in panel.get("targets", [])]


def test_it_asks_for_metrics_that_are_exported() -> None:
    """
    A panel over a metric that was renamed stays empty, and an empty panel looks healthy.
    """
    asked = set(re.findall(r"outbox_relay_\w+", " ".join(EXPRESSIONS)))

    assert len(asked) > 20
    assert asked <= exported_series()


def test_every_metric_is_on_it() -> None:
    """
    But for instants whose age is shown elsewhere.
    """
    asked = set(re.findall(r"outbox_relay_\w+", " ".join(EXPRESSIONS)))
    families = {re.sub(r"_(bucket|count|sum)$", "", name) for name in exported_series()}
    shown = {re.sub(r"_(bucket|count|sum)$", "", name) for name in asked}

    assert families - shown == {
        "outbox_relay_backlog_capped",
        "outbox_relay_backlog_sample_timestamp_seconds",
        "outbox_relay_canary_interval_seconds",
    }


def test_every_query_is_about_the_chosen_relays() -> None:
    """
    Two outboxes in one Prometheus are not added up.
    """
    for expression in EXPRESSIONS:
        selectors = re.findall(r"outbox_relay_\w+(\{[^}]*\})?", expression)
        assert all('job="$job"' in selector for selector in selectors), expression


def test_the_panels_have_places_of_their_own() -> None:
    """
    Grafana would move what overlaps; ids are unique.
    """

    def cells(panel: dict[str, Any]) -> set[tuple[int, int]]:
        at = panel["gridPos"]
        return {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}

    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    assert all(not cells(a) & cells(b) for a, b in combinations(PANELS, 2))
    assert all(x < 24 for panel in PANELS for x, _ in cells(panel))


def test_its_variables_are_what_the_guide_says() -> None:
    """
    Data source, job and instance are chosen on top.
    """
    names = [variable["name"] for variable in DASHBOARD["templating"]["list"]]

    assert names == ["datasource", "job", "instance"]
    assert all(
        panel["datasource"]["uid"] == "${datasource}" for panel in PANELS if panel["type"] != "row"
    )
