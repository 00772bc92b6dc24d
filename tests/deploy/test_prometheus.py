"""
A real Prometheus scrapes a real relay, and its alerts see what happens.
"""

from __future__ import annotations

import shutil
import subprocess
import time

import pytest
import sqlalchemy as sa
import yaml

from outbox_relay import Outbox
from tests.acceptance.relays import RelayProcess, wait_until_relayed, write_config
from tests.deploy.conftest import check, fetch
from tests.deploy.image import ROOT
from tests.deploy.prometheus import Prometheus

FILES = ROOT / "deploy" / "prometheus"
# What Kubernetes would say of the relay's pod.
POD = {
    "__meta_kubernetes_namespace": "shops",
    "__meta_kubernetes_pod_name": "shop-1",
    "__meta_kubernetes_pod_label_app_kubernetes_io_name": "shop",
    "__meta_kubernetes_pod_container_port_name": "relay-http",
}


@pytest.fixture(autouse=True)
def _installed():
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed; run: python -m tests.deploy.install")


@pytest.fixture
def relay(installed_wheel, mariadb_database, kafka, topic_name, tmp_path):
    """A relay that measures its backlog often, on tables that it fits."""
    kafka.create_topic(topic_name, partitions=2)
    config = write_config(tmp_path, mariadb_database, kafka, sample_seconds=0.5)
    subprocess.run(
        [installed_wheel.command, "migrate", "--config", str(config)], check=True, cwd=tmp_path
    )
    process = RelayProcess(str(installed_wheel.command), config)
    process.start()
    yield process
    process.end()


@pytest.fixture
def address(relay):
    """Where the relay's metrics are."""
    deadline = time.monotonic() + 30
    while not (found := relay.logged("http_listening")) and time.monotonic() < deadline:
        time.sleep(0.05)
    return f"{found[0]['host']}:{found[0]['port']}"


@pytest.fixture
def prometheus(address, tmp_path):
    """Prometheus as kubernetes-pods.yml configures it, with the relay for its only pod."""
    config = yaml.safe_load((FILES / "kubernetes-pods.yml").read_text())
    config["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
    config["rule_files"] = [str(FILES / name) for name in config["rule_files"]]
    [job] = config["scrape_configs"]
    del job["kubernetes_sd_configs"]
    other = {**POD, "__meta_kubernetes_pod_container_port_name": "http"}
    job["static_configs"] = [
        {"targets": [address], "labels": POD},
        {"targets": ["127.0.0.1:1"], "labels": other},
    ]
    path = tmp_path / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    with Prometheus(path) as server:
        yield server


def test_the_alerts_do_what_their_tests_say():
    """
    alerts.test.yml, and each file as promtool reads it.
    """
    check("promtool", "check", "config", FILES / "prometheus.yml")
    check("promtool", "check", "rules", FILES / "alerts.yml")
    said = check("promtool", "test", "rules", FILES / "alerts.test.yml")

    assert "SUCCESS" in said


def test_metrics_are_as_prometheus_wants_them(address):
    """
    Names, types, help texts and units: promtool finds nothing to say.
    """
    text = fetch(f"http://{address}/metrics")

    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_a_server_scrapes_a_relay(relay, prometheus, mariadb_database, topic_name):
    """
    Its queries give what was written, and a dead letter wakes its alert.
    """
    engine = sa.create_engine(mariadb_database.sync_url)
    outbox = Outbox(compressor=None, max_event_bytes=2_000_000)
    with engine.begin() as connection:
        events = [{"number": number} for number in range(300)]
        outbox.add(connection, *events, name="e", topic=topic_name, key=None)
        outbox.add(connection, {"large": "x" * 1_100_000}, name="e", topic=topic_name, key=None)
    engine.dispose()
    wait_until_relayed(mariadb_database)

    [published] = prometheus.wait_for("sum(outbox_relay_published_total) by (job, topic) >= 300")
    [lanes] = prometheus.wait_for("sum by (job) (outbox_relay_lanes_owned) == 64")
    [alert] = prometheus.wait_for('ALERTS{alertname="OutboxDeadLetters"}')
    prometheus.wait_for("outbox_relay_publish_latency_seconds_count >= 300")
    others = prometheus.query('ALERTS{alertname!="OutboxDeadLetters"}')
    up = prometheus.query("up")

    assert published["metric"] == {"job": "shops/shop", "topic": topic_name}
    assert published["value"][1] == "300"
    assert lanes["metric"] == {"job": "shops/shop"}
    assert alert["metric"]["job"] == "shops/shop"
    assert others == []
    assert [(target["metric"]["pod"], target["value"][1]) for target in up] == [("shop-1", "1")]
