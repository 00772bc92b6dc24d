"""
The Kubernetes manifests and the systemd unit are valid, and ask for what the guides promise.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from outbox_relay.config import load_config
from outbox_relay.relay.options import RelayOptions
from outbox_relay.wake import parse_wake_address
from tests.deploy.conftest import check

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
# The oldest that starts native sidecars by itself, and the newest whose schema is at hand.
VERSIONS = ["1.29", kubernetes_validate.latest_version()]


def documents(path):
    """The objects of a manifest."""
    return list(yaml.safe_load_all(path.read_text()))


def pod(name):
    """The pod that the Deployment in *name* makes."""
    [deployment] = documents(DEPLOY / "kubernetes" / name)
    return deployment["spec"]["template"]["spec"]


def relays():
    """The pods that relay, each with the relay's container."""
    sidecar, standalone = pod("sidecar.yaml"), pod("standalone.yaml")
    return [
        pytest.param(sidecar, sidecar["initContainers"][0], id="sidecar"),
        pytest.param(standalone, standalone["containers"][0], id="standalone"),
    ]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_manifests_fit_the_schema(path, version):
    """
    Strictly: a misspelt field is refused, not ignored.
    """
    for document in documents(path):
        kubernetes_validate.validate(document, version, strict=True)


def test_the_sidecar_is_a_native_one():
    """
    It starts before the application and stops after it, and the pod's readiness is not its own.
    """
    [relay] = pod("sidecar.yaml")["initContainers"]

    assert relay["restartPolicy"] == "Always"
    assert "readinessProbe" not in relay
    assert "startupProbe" not in relay


@pytest.mark.parametrize(("spec", "relay"), relays())
def test_only_livez_restarts_a_relay(spec, relay):
    """
    /livez asks neither database nor broker: their outage restarts nothing.
    """
    assert relay["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "relay-http"}
    http, *others = relay["ports"]
    assert http == {"name": "relay-http", "containerPort": 9464}
    assert all(port["protocol"] == "UDP" for port in others)


@pytest.mark.parametrize(("spec", "relay"), relays())
def test_a_relay_passes_the_restricted_pod_security_standard(spec, relay):
    """
    No root, no rights, no writing.
    """
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert relay["securityContext"] == {
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def wake_addresses(config):
    return [part for part in config.relay.wake_address.split(",") if part]


@pytest.mark.parametrize(("spec", "relay"), relays())
def test_the_settings_are_complete_and_the_pod_waits_for_the_stop(spec, relay, tmp_path):
    """
    What ConfigMap and Secret say is a configuration, as the relay's container gets it.
    """
    settings, secret = documents(DEPLOY / "kubernetes" / "config.yaml")
    path = tmp_path / "config.toml"
    path.write_text(settings["data"]["config.toml"])
    environment = {
        variable["name"]: variable.get("value")
        or secret["stringData"][variable["valueFrom"]["secretKeyRef"]["key"]]
        for variable in relay["env"]
    }
    [mount] = [mount for mount in relay["volumeMounts"] if mount["name"] == "config"]

    config = load_config(path, environment)

    assert mount["mountPath"] == "/etc/outbox-relay"
    assert config.http.host == "0.0.0.0"
    assert config.http.port == relay["ports"][0]["containerPort"]
    assert {port["containerPort"] for port in relay["ports"][1:]} == {
        address.port for address in map(parse_wake_address, wake_addresses(config)) if address.port
    }
    assert spec["terminationGracePeriodSeconds"] > config.relay.stop_seconds + 1


@pytest.fixture
def unit(tmp_path):
    """The systemd unit, but for the program, which is not installed here."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed; run: python -m tests.deploy.install")
    text = (DEPLOY / "systemd" / "outbox-relay.service").read_text()
    path = tmp_path / "outbox-relay.service"
    path.write_text(text.replace("/opt/outbox-relay/bin/outbox-relay run", "/bin/true"))
    return path


def test_the_systemd_unit_is_valid(unit):
    """
    As systemd reads it: a setting that it does not know would be ignored.
    """
    assert check("systemd-analyze", "verify", unit) == ""


def test_the_systemd_unit_is_shut_off(unit):
    """
    systemd's own measure of what a service could reach, 0 to 10, stays below 1.5.
    """
    check("systemd-analyze", "security", "--offline=yes", "--no-pager", "--threshold=15", unit)


def test_systemd_waits_for_the_stop_and_for_the_watchdog(unit):
    """
    It kills a relay that hangs, not one that is stopping; and no dump of its memory is written.
    """
    settings = dict(line.split("=", 1) for line in unit.read_text().splitlines() if "=" in line)

    assert settings["Type"] == "notify"
    assert float(settings["WatchdogSec"]) >= 3
    assert settings["WatchdogSignal"] == "SIGKILL"
    assert float(settings["TimeoutStopSec"]) > RelayOptions().stop_seconds + 1
