"""
The Helm chart speaks of this release: its version, every setting, every value in its README.
"""

from __future__ import annotations

import json
import re

import yaml

from outbox_relay import __version__
from tests.deploy.chart import CHART, SCHEMA, schema_text


def leaves(values, prefix=""):
    """Every value by its path; a list, an empty map and a name of a Secret is one."""
    found = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            found |= leaves(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def test_the_version_is_the_releases():
    """
    The image's tag follows from it.
    """
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())

    assert chart["appVersion"] == __version__


def test_the_schema_knows_every_setting():
    """
    A setting that is misspelt is refused by Helm. Written anew by: python -m tests.deploy.chart
    """
    assert SCHEMA.read_text() == schema_text()


def test_every_value_is_in_the_readme():
    """
    With its default.
    """
    values = leaves(yaml.safe_load((CHART / "values.yaml").read_text()))
    readme = (CHART / "README.md").read_text().partition("\n## Values\n")[2]
    rows = re.findall(r"^\| `([\w.]+)` \| `(.*?)` \|", readme, flags=re.MULTILINE)

    assert {name: json.loads(default) for name, default in rows} == values
    assert [name for name, _ in rows] == list(values)


def test_the_alerts_have_one_home():
    """
    The chart's file is a link, which Helm follows when it reads or packs the chart.
    """
    alerts = CHART / "files" / "alerts.yml"

    assert alerts.is_symlink()
    assert alerts.resolve() == CHART.parents[1] / "prometheus" / "alerts.yml"
