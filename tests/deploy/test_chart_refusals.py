"""
The Helm chart refuses values that do not fit.
"""

from __future__ import annotations

import re

import pytest

from tests.deploy.chart import CHART, template
from tests.deploy.chart_values import MINIMAL, SECRET

pytestmark = pytest.mark.usefixtures("helm_installed")

BAD = {
    "nothing": ({}, ["config.database.url is required", "config.kafka.bootstrap_servers is"]),
    "a password": (
        {"config": {"database": {"url": "mysql+asyncmy://shop:geheim@mariadb/shop"}}},
        ["config.database.url holds a password", 'secrets."database.password_file"'],
    ),
    "a password of Kafka": (
        {"config": {"kafka": {"sasl_password": "geheim"}}},
        ["config.kafka.sasl_password would be in the ConfigMap"],
    ),
    "a setting that is none": (
        {"config": {"relay": {"stop_secnds": 3}}},
        ["'/config/relay': additional properties 'stop_secnds' not allowed"],
    ),
    "a secret for what is none": (
        {"secrets": {"database.url": SECRET}},
        ["'/secrets': additional properties 'database.url' not allowed"],
    ),
    "a secret without key": (
        {"secrets": {"database.password_file": {"name": "shop"}}},
        ["missing property 'key'"],
    ),
    "a value of another kind": (
        {"config": {"http": {"port": "9464"}}},
        ["'/config/http/port': got string, want integer"],
    ),
    "a value that is none": ({"replica": 2}, ["additional properties 'replica' not allowed"]),
    "both": (
        {
            "config": {"database": {"password_file": "/x"}},
            "secrets": {"database.password_file": SECRET},
        },
        ["database.password_file is in config and in secrets"],
    ),
    "too short a grace": (
        {"terminationGracePeriodSeconds": 11},
        ["terminationGracePeriodSeconds = 11 must be greater than", "= 11"],
    ),
    "metrics of nothing": (
        {"config": {"http": {"enabled": False}}, "podMonitor": {"enabled": True}},
        ["podMonitor.enabled needs config.http.enabled"],
    ),
    "a migration of another's table": (
        {"config": {"database": {"layout": "python-cqrs"}}},
        ["migrate.enabled must be false"],
    ),
    "a sidecar that nobody finds": (
        {"mode": "sidecar", "podMonitor": {"enabled": True}},
        ["sidecar.podLabels is required"],
    ),
    "an application cut off": (
        {
            "mode": "sidecar",
            "sidecar": {"podLabels": {"a": "b"}},
            "networkPolicy": {"enabled": True},
        },
        ["also cuts your application off"],
    ),
    "two sockets": (
        {"mode": "sidecar", "config": {"relay": {"wake_address": "unix:/x"}}},
        ["config.relay.wake_address is set by sidecar.wake"],
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_values_that_do_not_fit_are_refused(name, tmp_path):
    """
    By name, with what to do, and without a secret.
    """
    values, expected = BAD[name]
    first = {} if name == "nothing" else MINIMAL
    done = template(CHART, first, values, folder=tmp_path)

    assert done.returncode == 1
    for text in expected:
        assert text in done.stderr
    assert "geheim" not in done.stderr


def test_everything_that_is_wrong_is_said_at_once(tmp_path):
    """
    One line for each.
    """
    values = {"terminationGracePeriodSeconds": 1, "config": {"kafka": {"sasl_password": "x"}}}
    done = template(CHART, values, folder=tmp_path)

    assert len(re.findall(r"^- ", done.stderr, re.MULTILINE)) == 4


def test_an_old_kubernetes_gets_no_sidecar(tmp_path):
    """
    Before 1.29 an init container that stays keeps the application from ever starting.
    """
    more = ["--kube-version", "1.28.0"]
    sidecar = template(CHART, MINIMAL, {"mode": "sidecar"}, folder=tmp_path, more=more)
    alone = template(CHART, MINIMAL, folder=tmp_path, more=more)

    assert "mode = sidecar needs Kubernetes 1.29 or later" in sidecar.stderr
    assert alone.returncode == 0, alone.stderr
