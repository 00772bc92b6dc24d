"""
The image runs as it is deployed: by number, as process 1, on a root that cannot be written.
"""

from __future__ import annotations

import json
import time

import pytest
import sqlalchemy as sa

from outbox_relay import Outbox
from tests.acceptance.relays import wait_until_relayed
from tests.deploy.conftest import fetch
from tests.services.process import free_port


@pytest.fixture
def settings(mariadb_database, kafka):
    """The settings that have no default, as a container gets them."""
    return {
        "OUTBOX_RELAY_DATABASE__URL": mariadb_database.async_url,
        "OUTBOX_RELAY_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "OUTBOX_RELAY_HTTP__PORT": str(free_port()),
    }


def test_the_image_says_what_it_runs(image):
    """
    Kubernetes can only tell from a number that a user is not root; a shell would keep SIGTERM.
    """
    config = image.config

    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == ["outbox-relay"]
    assert config["Cmd"] == ["run"]
    assert list(config["ExposedPorts"]) == ["9464/tcp"]
    assert "OUTBOX_RELAY_HTTP__HOST=0.0.0.0" in config["Env"]


def test_its_hot_loops_are_compiled(image):
    """
    The compiler stays behind in the build stage; what it made does not.
    """
    asked = image.run("python3", "-c", "from outbox_relay import native; print(native.native)")

    assert "_native" in asked.stdout, asked.stderr
    assert image.run("gcc", "--version").returncode != 0


def test_it_relays_as_process_1_and_stops_on_sigterm(
    image, start_container, settings, mariadb_database, kafka, topic_name, capsys
):
    """
    I2, I9. `migrate` and `run` of one image, nothing written to its root, and exit code 0.
    """
    kafka.create_topic(topic_name, partitions=3)
    migrated = image.run("outbox-relay", "migrate", environment=settings)
    assert migrated.returncode == 0, migrated.stderr
    engine = sa.create_engine(mariadb_database.sync_url)
    with engine.begin() as connection:
        Outbox().add(connection, {"a": 1}, name="e", topic=topic_name, key="k")
    engine.dispose()

    started = time.monotonic()
    container = start_container(settings)
    fetch(f"http://127.0.0.1:{settings['OUTBOX_RELAY_HTTP__PORT']}/livez")
    to_livez = time.monotonic() - started
    wait_until_relayed(mariadb_database)
    status = container.status()
    code, to_stop = container.stop()

    with capsys.disabled():
        base, added = (size / 1_000_000 for size in image.layer_bytes())
        print(
            f"\nimage: {added:.0f} MB, on a base of {base:.0f} MB; /livez after {to_livez:.2f} s; "
            f"{int(status['VmRSS'].split()[0]) / 1024:.0f} MiB resident; "
            f"stopped after {to_stop:.2f} s"
        )
    assert code == 0, container.log.read_text()
    assert status["NSpid"].split()[-1] == "1"
    assert status["Uid"].split() == ["65532"] * 4
    assert int(status["CapEff"], 16) == 0
    assert [record.value for record in kafka.consume_all(topic_name)] == [b'{"a":1}']


def test_its_root_cannot_be_written(start_container):
    """
    That the test above relays with nothing to write to is no accident of its rights.
    """
    write = "import pathlib; pathlib.Path('/tmp/x').touch()"
    container = start_container({}, ["python3", "-c", write])

    assert container.launcher.wait(timeout=30) == 1
    assert "Read-only file system" in container.log.read_text()


def test_without_settings_it_says_what_is_missing(start_container):
    """
    The first thing that a new user sees: every missing setting, and exit code 2.
    """
    container = start_container({})

    assert container.launcher.wait(timeout=30) == 2
    assert "database.url is required" in container.log.read_text()
    assert "kafka.bootstrap_servers is required" in container.log.read_text()


def test_it_serves_every_database_and_broker(image):
    """
    A setting chooses; no other image is needed. python-cqrs' tables are MariaDB's, MySQL's, PostgreSQL's.
    """
    packages = "asyncmy, asyncpg, aiokafka, aio_pika, redis"
    asked = image.run("python3", "-c", f"import {packages}; print('all')")

    assert asked.stdout.strip() == "all", asked.stderr


def test_its_list_of_parts_is_complete(image):
    """
    CycloneDX, for whoever must know whether a hole in a package is theirs: each with its version.
    """
    listed = image.run("cat", "/opt/outbox-relay/sbom.cdx.json")
    program = (
        "from importlib.metadata import distributions as d; "
        "print(*(f\"{p.metadata['Name']}=={p.version}\" for p in d()), sep='\\n')"
    )
    installed = image.run("python3", "-c", program).stdout.split()
    parts = json.loads(listed.stdout)["components"]

    assert {f"{part['name']}=={part['version']}" for part in parts} == set(installed)
    assert len(parts) > 30


def test_no_installer_travels_along(image):
    """
    What builds the image stays behind.
    """
    done = image.run("python3", "-c", "import outbox_relay, pip")

    assert "No module named 'pip'" in done.stderr
