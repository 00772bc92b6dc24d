"""
deploy/compose.yaml is valid, and what it starts works together.
"""

from __future__ import annotations

import json
import shutil

import pytest
import sqlalchemy as sa
import yaml

from tests.acceptance.relays import wait_until_relayed
from tests.deploy.conftest import check
from tests.deploy.image import ROOT
from tests.services.process import free_port

COMPOSE = ROOT / "deploy" / "compose.yaml"
ORDERS = 20


@pytest.fixture
def services():
    """The services of the file, by name."""
    return yaml.safe_load(COMPOSE.read_text())["services"]


def test_the_file_is_valid():
    """
    As the compose tool reads it.
    """
    if shutil.which("docker-compose") is None:
        pytest.skip("docker-compose is not installed; run: python -m tests.deploy.install")

    check("docker-compose", "-f", COMPOSE, "config", "--quiet")


def test_the_image_is_built_once(services):
    """
    Builds at a time that end in one tag fail each other, and no registry has this image.
    """
    ours = {name: s for name, s in services.items() if s["image"] == "outbox-relay"}

    assert [name for name, service in ours.items() if "build" in service] == ["relay"]
    assert {name: service["pull_policy"] for name, service in ours.items()} == {
        "migrate": "never",
        "orders": "never",
        "relay": "build",
    }


def test_its_relay_is_confined(services):
    """
    The image needs no right and writes nothing; Docker waits for its stop.
    """
    relay = services["relay"]

    assert relay["read_only"] is True
    assert relay["cap_drop"] == ["ALL"]
    assert relay["stop_grace_period"] == "15s"


def test_orders_reach_kafka(image, start_container, services, mariadb_database, kafka, monkeypatch):
    """
    I1, I2. Its jobs, its application and its relay, in their order, with their commands and settings;
    only addresses are this machine's.
    """

    def settings(name):
        places = {
            "mysql+asyncmy://shop:secret@mariadb:3306/shop": mariadb_database.async_url,
            "kafka:9092": kafka.bootstrap_servers,
        }
        given = services[name]["environment"]
        return {key: places.get(value, value) for key, value in given.items()}

    options = dict(part[2:].split("=") for part in services["topics"]["command"] if "=" in part)
    kafka.create_topic(options["topic"], partitions=int(options["partitions"]))
    migrate = image.run(
        "outbox-relay", *services["migrate"]["command"], environment=settings("migrate")
    )
    [volume] = services["orders"]["volumes"]
    orders = image.run(
        *services["orders"]["entrypoint"],
        environment={**settings("orders"), "ORDERS": str(ORDERS), "ORDERS_PER_SECOND": "100"},
        volumes=[volume.replace("..", str(ROOT), 1)],
    )
    port = {"OUTBOX_RELAY_HTTP__PORT": str(free_port())}
    relay = start_container({**settings("relay"), **port})
    wait_until_relayed(mariadb_database)
    health = image.run(
        *(
            part.replace("9464", *port.values())
            for part in services["relay"]["healthcheck"]["test"][1:]
        )
    )
    code, _ = relay.stop()

    engine = sa.create_engine(mariadb_database.sync_url)
    with engine.connect() as connection:
        numbers = connection.execute(sa.text("SELECT id FROM orders ORDER BY id")).scalars().all()
    engine.dispose()
    published = [json.loads(record.value) for record in kafka.consume_all(options["topic"])]
    assert migrate.returncode == 0, migrate.stderr
    assert orders.returncode == 0, orders.stderr
    assert health.returncode == 0, health.stderr
    assert code == 0, relay.log.read_text()
    assert len(numbers) == ORDERS
    assert sorted(order["order_id"] for order in published) == numbers
