"""
The Helm chart makes what the plain manifests say.
"""

from __future__ import annotations

import re
import tarfile

import kubernetes_validate
import pytest
import yaml

from outbox_relay.config import load_config
from tests.deploy.chart import CHART, HELM, helm, rendered
from tests.deploy.chart_values import AMQP, CASES, EVERYTHING, FROM_URL, MINIMAL
from tests.deploy.conftest import check
from tests.deploy.test_manifests import DEPLOY, VERSIONS, pod
from tests.pages import blocks_of

pytestmark = pytest.mark.usefixtures("helm_installed")

README = (CHART / "README.md").read_text()


@pytest.fixture
def shop(tmp_path):
    """The README's application, with this chart for its dependency."""
    folder = tmp_path / "shop"
    (folder / "templates").mkdir(parents=True)
    for name, text in (
        (block.file, block.text) for block in blocks_of(README, "yaml") if block.file
    ):
        if name in ("Chart.yaml", "values.yaml", "templates/deployment.yaml"):
            (folder / name).write_text(text)
    (tmp_path / "outbox-relay").symlink_to(CHART)
    check(HELM if HELM.exists() else "helm", "dependency", "build", folder)
    return folder


def only(objects, kind):
    """The one object of *kind*."""
    [found] = [item for item in objects if item["kind"] == kind]
    return found


def relay_of(objects):
    """The relay's container in the Deployment, and its pod."""
    spec = only(objects, "Deployment")["spec"]["template"]["spec"]
    return spec.get("initContainers", spec["containers"])[0], spec


def config_of(objects, tmp_path):
    """The configuration as the relay reads it, with files for its secrets."""
    text = next(o for o in objects if o["kind"] == "ConfigMap")["data"]["config.toml"]
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    for name in re.findall(r"/etc/outbox-relay-secrets/([\w.]+)", text):
        (secrets / name).write_text("x")
    path = tmp_path / "config.toml"
    path.write_text(text.replace("/etc/outbox-relay-secrets", str(secrets)))
    return load_config(path, {})


def fits(labels, selector):
    """Whether *selector* chooses a pod with these labels."""
    return selector["matchLabels"].items() <= labels.items()


@pytest.mark.parametrize("name", CASES)
def test_what_it_makes_fits_the_schema(name, tmp_path):
    """
    Of Kubernetes, strictly; and Helm's linter finds nothing.
    """
    objects = rendered(CHART, CASES[name], folder=tmp_path)
    linted = helm("lint", "--strict", CHART, "--values", tmp_path / "values-0.yaml")

    assert linted.returncode == 0, linted.stdout
    for document in objects:
        if "monitoring.coreos.com" not in document["apiVersion"]:
            for version in VERSIONS:
                kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("name", ["minimal", "everything", "amqp"])
def test_the_configuration_is_one(name, tmp_path):
    """
    Numbers keep their kind, texts their letters, and secrets are files.
    """
    config = config_of(rendered(CHART, CASES[name], folder=tmp_path), tmp_path)

    for section, settings in CASES[name]["config"].items():
        for key, value in settings.items():
            assert getattr(getattr(config, section), key) == value
    for key in CASES[name].get("secrets", {}):
        section, setting = key.split(".")
        assert getattr(getattr(config, section), setting).endswith(f"/secrets/{key}")


def test_a_secret_is_mounted_and_never_said(tmp_path):
    """
    Each under the name of its setting, where config.toml says it is; in the migration too.
    """
    objects = rendered(CHART, EVERYTHING, folder=tmp_path)
    relay, spec = relay_of(objects)
    job = only(objects, "Job")["spec"]["template"]["spec"]
    [projected] = [volume for volume in spec["volumes"] if "projected" in volume]
    mounts = {mount["name"]: mount["mountPath"] for mount in relay["volumeMounts"]}

    assert mounts[projected["name"]] == "/etc/outbox-relay-secrets"
    assert projected in job["volumes"]
    assert relay["volumeMounts"] == job["containers"][0]["volumeMounts"]
    assert {
        item["path"]: {"name": source["secret"]["name"], "key": item["key"]}
        for source in projected["projected"]["sources"]
        for item in source["secret"]["items"]
    } == EVERYTHING["secrets"]


def test_it_is_the_plain_manifest(tmp_path):
    """
    What matters is the same in both: rights, probe, ports, resources, replicas, service.
    """
    relay, spec = relay_of(rendered(CHART, MINIMAL, folder=tmp_path))
    plain_spec = pod("standalone.yaml")
    [plain] = plain_spec["containers"]

    for part in ("securityContext", "livenessProbe", "ports", "resources"):
        assert relay[part] == plain[part]
    for part in ("securityContext", "automountServiceAccountToken"):
        assert spec[part] == plain_spec[part]
    assert "readinessProbe" not in relay
    assert "startupProbe" not in relay
    assert spec["terminationGracePeriodSeconds"] == 16


def test_the_sidecar_is_the_plain_manifests(shop, tmp_path):
    """
    An application's chart that does what the README says gets the container of sidecar.yaml.
    """
    objects = rendered(shop, folder=tmp_path)
    relay, spec = relay_of(objects)
    plain_spec = pod("sidecar.yaml")
    [plain] = plain_spec["initContainers"]
    [application] = spec["containers"]

    same = ("name", "restartPolicy", "securityContext", "livenessProbe", "ports", "resources")
    assert {part: relay[part] for part in same} == {part: plain[part] for part in same}
    assert plain["env"][1] in relay["env"]
    assert {mount["mountPath"] for mount in application["volumeMounts"]} == {"/run/outbox-relay"}
    assert {m["name"] for m in relay["volumeMounts"]} == {v["name"] for v in spec["volumes"]}
    assert spec["terminationGracePeriodSeconds"] == 30 + 16
    assert [o["kind"] for o in objects if o["kind"] in ("Deployment", "PodDisruptionBudget")] == [
        "Deployment"
    ]
    for document in objects:
        if document["kind"] != "PodMonitor":
            kubernetes_validate.validate(document, VERSIONS[0], strict=True)
    labels = only(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert fits(labels, only(objects, "PodMonitor")["spec"]["selector"])


def test_two_outboxes_are_two_aliases(shop, tmp_path):
    """
    Each with its settings, its container, its volumes and its job, in one pod.
    """
    chart = yaml.safe_load((shop / "Chart.yaml").read_text())
    [first] = chart["dependencies"]
    chart["dependencies"].append({**first, "alias": "invoices"})
    (shop / "Chart.yaml").write_text(yaml.safe_dump(chart))
    values = yaml.safe_load((shop / "values.yaml").read_text())
    second = values["outbox-relay"] | {"sidecar": {"podLabels": {"a": "b"}, "wake": False}}
    second["config"] = second["config"] | {"http": {"port": 9465}}
    (shop / "values.yaml").write_text(yaml.safe_dump(values | {"invoices": second}))
    deployment = shop / "templates" / "deployment.yaml"
    text = deployment.read_text().replace(
        "{{- $relay :=", '{{- $invoices := index .Subcharts "invoices" }}\n{{- $relay :='
    )
    for part in ("sidecar", "volumes"):
        line = f'        {{{{- include "outbox-relay.{part}" $relay | nindent 8 }}}}\n'
        text = text.replace(line, line + line.replace("$relay", "$invoices"))
    deployment.write_text(text)
    check(HELM if HELM.exists() else "helm", "dependency", "update", shop)
    objects = rendered(shop, folder=tmp_path)
    spec = only(objects, "Deployment")["spec"]["template"]["spec"]
    names = [volume["name"] for volume in spec["volumes"]]
    monitors = [o["spec"]["podMetricsEndpoints"][0] for o in objects if o["kind"] == "PodMonitor"]

    assert [c["name"] for c in spec["initContainers"]] == ["outbox-relay", "invoices"]
    assert [c["ports"][0]["containerPort"] for c in spec["initContainers"]] == [9464, 9465]
    assert len(names) == len(set(names)) == 5
    assert {m["relabelings"][0]["regex"] for m in monitors} == {"outbox-relay", "invoices"}
    identities = [(o["kind"], o["metadata"]["name"]) for o in objects]
    assert len(identities) == len(set(identities))
    kubernetes_validate.validate(only(objects, "Deployment"), VERSIONS[0], strict=True)


def test_pods_start_again_when_their_settings_change(shop, tmp_path):
    """
    config.toml is read at the start alone. The annotation changes with it and with nothing else.
    """

    def annotation(chart, **values):
        objects = rendered(chart, values, folder=tmp_path)
        return only(objects, "Deployment")["spec"]["template"]["metadata"]["annotations"]

    before = annotation(CHART, **MINIMAL)
    same = annotation(CHART, **MINIMAL, replicas=3)
    other = MINIMAL["config"] | {"relay": {"stop_seconds": 11}}
    after = annotation(CHART, config=other)
    of_shop = annotation(shop)
    of_shop_after = annotation(shop, **{"outbox-relay": {"config": {"log": {"level": "debug"}}}})

    assert before == same
    assert before != after
    assert of_shop != of_shop_after


def test_selectors_choose_the_relays_and_not_the_migration(tmp_path):
    """
    A budget that counted the migration's pod would let all relays go at once.
    """
    objects = rendered(CHART, EVERYTHING, folder=tmp_path)
    deployment = only(objects, "Deployment")["spec"]
    relays = deployment["template"]["metadata"]["labels"]
    migration = only(objects, "Job")["spec"]["template"]["metadata"]["labels"]
    policies = [o["spec"]["podSelector"] for o in objects if o["kind"] == "NetworkPolicy"]

    for selector in (
        deployment["selector"],
        only(objects, "PodDisruptionBudget")["spec"]["selector"],
        only(objects, "PodMonitor")["spec"]["selector"],
        *(spread["labelSelector"] for spread in relay_of(objects)[1]["topologySpreadConstraints"]),
    ):
        assert fits(relays, selector)
        assert not fits(migration, selector)
    assert [fits(relays, selector) for selector in policies].count(True) == 1
    assert [fits(migration, selector) for selector in policies].count(True) == 1


def test_the_migration_brings_what_it_needs(tmp_path):
    """
    It runs before anything else of the release is there: its settings and its way out come first.
    """
    objects = rendered(CHART, EVERYTHING, folder=tmp_path)
    hooks = {
        o["kind"]: int(o["metadata"]["annotations"]["helm.sh/hook-weight"])
        for o in objects
        if "helm.sh/hook" in o["metadata"].get("annotations", {})
    }
    job = only(objects, "Job")
    settings = {o["metadata"]["name"]: o for o in objects if o["kind"] == "ConfigMap"}
    [volume] = [v for v in job["spec"]["template"]["spec"]["volumes"] if "configMap" in v]
    own = settings[volume["configMap"]["name"]]

    assert hooks == {"ConfigMap": -1, "NetworkPolicy": -1, "Job": 0}
    assert "helm.sh/hook" in own["metadata"]["annotations"]
    assert len({o["data"]["config.toml"] for o in settings.values()}) == 1


@pytest.mark.parametrize(
    ("values", "ports"),
    [
        (MINIMAL, {3306, 9092}),
        (EVERYTHING, {5433, 9093, 9092}),
        (AMQP, {3306, 5671}),
        (
            {
                "config": {
                    "database": {"url": "postgresql+asyncpg://a@db/x"},
                    "broker": {"kind": "redis_streams"},
                    "redis": {"url": "redis://cache/0"},
                }
            },
            {5432, 6379},
        ),
        ({**FROM_URL, "networkPolicy": {"databasePorts": [1, 2], "brokerPorts": [3]}}, {1, 2, 3}),
    ],
)
def test_the_network_policy_lets_out_what_is_needed(values, ports, tmp_path):
    """
    Names, and the ports of database and broker as the settings have them; in, the metrics.
    """
    objects = rendered(CHART, values, {"networkPolicy": {"enabled": True}}, folder=tmp_path)
    policy = next(o["spec"] for o in objects if o["kind"] == "NetworkPolicy")
    names, *others = policy["egress"][:3]
    asked = [{port["port"] for port in rule["ports"]} for rule in policy["ingress"] or []]

    assert {port["port"] for port in names["ports"]} == {53}
    assert {port["port"] for rule in others for port in rule["ports"]} == ports
    assert asked == ([] if values is AMQP else [{9464}])


def test_the_rules_are_the_alerts(tmp_path):
    """
    As promtool reads them: no bracket of theirs was taken for one of Helm's.
    """
    spec = only(rendered(CHART, EVERYTHING, folder=tmp_path), "PrometheusRule")["spec"]
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump(spec))
    check("promtool", "check", "rules", path)

    assert spec == yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())


def test_the_packed_chart_holds_the_alerts(tmp_path):
    """
    The link becomes a file: a chart may be copied away from this repository.
    """
    check(HELM if HELM.exists() else "helm", "package", CHART, "--destination", tmp_path)
    [packed] = tmp_path.glob("outbox-relay-*.tgz")
    with tarfile.open(packed) as archive:
        member = archive.getmember("outbox-relay/files/alerts.yml")
        assert member.isfile()
        assert member.size == (DEPLOY / "prometheus" / "alerts.yml").stat().st_size
