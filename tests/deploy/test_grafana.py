"""
Every query of the dashboard, asked of a real Prometheus that scraped a real relay, gives data.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import time

import pytest
import yaml

from tests.deploy.faults import UNKNOWN_ERROR
from tests.deploy.image import ROOT
from tests.deploy.world import World

DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "outbox-relay.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]

# Panels that are empty on a relay that had no trouble: after the faults below they have data.
EMPTY_WHEN_HEALTHY = {
    "Not acked, by kind",
    "Dead letters, by reason",
    "Late commits",
    "Clients given up",
    "Connections given up",
    "Errors in no table",
    "Hints",
}
SETTINGS = """
[canary]
topic = "{topic}"
every_seconds = 1.0
"""


def queries() -> list[tuple[str, str]]:
    """Title of the panel and expression, with the variables as Grafana would fill them."""
    found = []
    for panel in PANELS:
        for target in panel["targets"]:
            text = target["expr"].replace("$job", "shop").replace("$instance", ".*")
            found.append((panel["title"], text.replace("$__rate_interval", "30s")))
    return found


def without_data(prometheus) -> set[str]:
    """The panels of which a query gives nothing."""
    return {title for title, expression in queries() if not prometheus.query(expression)}


@pytest.fixture
def world(installed_wheel, secure_mariadb, kafka, topic_name, tmp_path):
    kafka.create_topic(topic_name, partitions=2)
    database = secure_mariadb.create_database()
    made = World(
        tmp_path,
        installed_wheel.command,
        mariadb=secure_mariadb,
        database=database,
        kafka=kafka,
        topic=topic_name,
        factor=60,
        settings=SETTINGS.format(topic=topic_name),
        retention_seconds=0.5,
        wake_address='"udp:127.0.0.1:0"',
    )
    text = made.config.read_text()
    ca = secure_mariadb.authority.certificate.cert
    made.config.write_text(text.replace("[kafka]", f'ssl = true\nssl_ca_file = "{ca}"\n[kafka]', 1))
    made.migrate()
    made.write_for_ever()
    made.relay.start()
    yield made
    made.end()


def send_hint(world: World) -> None:
    """As `Outbox(wake=...)` does after a commit."""
    [line] = world.relay.logged("wake_listening")
    port = int(re.findall(r":(\d+)", str(line["published"] or line["addresses"]))[-1])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"", ("127.0.0.1", port))


def commit_late(world: World) -> None:
    """A transaction that stays open for longer than the cursor waits."""
    with world.engine.begin() as connection:
        world.outbox.add(connection, {"a": 1}, name="e", topic=world.topic, key=None)
        time.sleep(4)


def test_every_query_gives_data(world):
    """
    On a healthy relay, but for the panels of troubles; after a trouble of each kind those too.
    """
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed; run: python -m tests.deploy.install")
    with world.watched() as prometheus:
        prometheus.wait_for('outbox_relay_canaries_total{outcome="acked"} > 1')
        # With two samples of it: one alone has no rate.
        prometheus.wait_for("rate(outbox_relay_purged_total[30s]) > 0")
        prometheus.wait_for("rate(outbox_relay_published_total[30s]) > 0")
        healthy = without_data(prometheus)

        commit_late(world)
        world.write(f"{world.topic}-missing", {"a": 1})
        world.kafka.create_topic(f"{world.topic}-small", config={"max.message.bytes": "1000"})
        world.write(f"{world.topic}-small", {"a": "x" * 5000})
        send_hint(world)
        world.execute(UNKNOWN_ERROR)
        prometheus.wait_for("outbox_relay_unexpected_errors_total")
        world.execute("DROP TRIGGER strange")
        world.kafka.freeze()
        prometheus.wait_for("outbox_relay_producer_rebuilds_total")
        world.kafka.thaw()
        for expression in (
            "outbox_relay_late_rows_total",
            "outbox_relay_dead_letters_total",
            "outbox_relay_hints_total",
            "outbox_relay_db_pool_resets_total",
            "rate(outbox_relay_producer_rebuilds_total[30s])",
            "rate(outbox_relay_publish_latency_seconds_count[30s]) > 0",
        ):
            prometheus.wait_for(expression)
        troubled = without_data(prometheus)

    assert healthy == EMPTY_WHEN_HEALTHY
    assert troubled == set()


def test_the_provisioning_file_is_what_grafana_reads():
    """
    One provider of files, whose folder the guide names.
    """
    found = yaml.safe_load((ROOT / "deploy" / "grafana" / "provisioning.yaml").read_text())
    [provider] = found["providers"]
    guide = (ROOT / "docs" / "guide" / "prometheus.md").read_text()

    assert found["apiVersion"] == 1
    assert provider["type"] == "file"
    assert f"`{provider['options']['path']}/`" in guide
