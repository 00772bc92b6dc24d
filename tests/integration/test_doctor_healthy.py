"""
`doctor` on systems at work: nothing is found on a healthy one, and what stops a relay is.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from outbox_relay.cli.app import app
from outbox_relay.cli.exits import Exit
from outbox_relay.config import load_config
from outbox_relay.doctor import Area, Severity, examine
from outbox_relay.migrate import migrate
from tests.integration.command import Running, call
from tests.integration.doctoring import NOWHERE, Site
from tests.services.kafka_cluster import KafkaCluster
from tests.services.process import free_port

SERVERS = ("mariadb", "mysql", "postgresql")


class System:
    """A database, a cluster of three brokers, and a relay in a process of its own."""

    def __init__(self, site: Site, cluster: KafkaCluster, topic: str, folder: Path) -> None:
        self.site = site
        self.folder = folder
        cluster.create_topic(topic, partitions=3, config={"min.insync.replicas": "2"})
        (folder / "config.toml").write_text(
            f'[database]\nurl = "{site.url}"\n'
            f'[kafka]\nbootstrap_servers = "{cluster.bootstrap_servers}"\n'
            f'[relay]\nwake_address = "unix:{folder}/wake.sock"\n'
            f"[http]\nport = {free_port()}\n",
            encoding="utf-8",
        )
        (folder / "config.toml").chmod(0o600)
        site.write(20, topic=topic)
        self.relay = Running(folder)
        self.relay.until("lease_acquired")

    def stop(self) -> None:
        self.relay.process.kill()
        self.relay.process.wait()
        assert self.relay.process.stderr is not None
        self.relay.process.stderr.close()


@pytest.fixture(params=SERVERS)
def system(
    request: pytest.FixtureRequest, kafka_cluster: KafkaCluster, topic_name: str, tmp_path: Path
) -> Iterator[System]:
    site = Site(request.param, request.getfixturevalue(request.param))
    made = System(site, kafka_cluster, topic_name, tmp_path)
    yield made
    made.stop()


def test_nothing_is_found_on_a_healthy_system(system: System) -> None:
    """
    All five areas, with the rights of the guide: no error, no warning, and no note either.
    """
    done = call(system.folder, "doctor", "--json")
    said = json.loads(done.stdout)
    human = invoke(system.folder)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as another:
        another.bind(str(system.folder / "another"))
        address = f"relay.wake_address=unix:{system.folder}/another"
        lost = invoke(system.folder, "--only", "wake", "--json", "--set", address)

    assert said["findings"] == []
    assert said["severity"] == "ok"
    assert (done.returncode, done.stderr) == (Exit.OK, "")
    assert list(said["areas"]) == [str(area) for area in Area]
    assert all(area["severity"] == "ok" for area in said["areas"].values())
    assert (human.exit_code, human.stderr) == (Exit.OK, "")
    assert human.stdout.count(" OK ") == len(Area)
    assert [item["code"] for item in json.loads(lost.stdout)["findings"]] == ["wake-hint-lost"]


@pytest.fixture(scope="module")
def quiet(mariadb: Any) -> Iterator[Site]:
    """No relay runs; what one leaves behind is planted."""
    site = Site("mariadb", mariadb)
    yield site
    site.root(f"DROP USER {site.who}")


@pytest.fixture
def at_work(quiet: Site) -> Site:
    """As if a relay had every lane."""
    quiet.root(
        "DELETE FROM outbox",
        "DELETE FROM outbox_control",
        "UPDATE outbox_lease SET owner = 'pod-1', nonce = 'n', crash_count = 0, "
        "expires_at = '2100-01-01'",
    )
    return quiet


async def relay_of(site: Site) -> Any:
    return await examine(site.config(), only=(Area.RELAY,))


async def test_nobody_relays(at_work: Site) -> None:
    """
    A warning while nothing waits, an error as soon as something does.
    """
    well = await relay_of(at_work)
    at_work.root("UPDATE outbox_lease SET expires_at = '2000-01-01'")
    idle = await relay_of(at_work)
    at_work.write()
    waiting = await relay_of(at_work)

    assert well.findings == ()
    assert (idle.codes, idle.severity) == ({"no-relay"}, Severity.WARNING)
    assert (waiting.codes, waiting.severity) == ({"no-relay"}, Severity.ERROR)


PLANTED = {
    "lanes-without-owner": "UPDATE outbox_lease SET expires_at = '2000-01-01' WHERE lane = 5",
    "relay-dies": "UPDATE outbox_lease SET crash_count = 3",
    "relay-behind": "INSERT INTO outbox (event_name, topic, payload, created_at) "
    "VALUES ('e', 'orders', '', UTC_TIMESTAMP(6) - INTERVAL 1 HOUR)",
    "topic-paused": "INSERT INTO outbox_control (topic, reason) VALUES ('it''s \\\\', 'by hand')",
    "dead-letters": "INSERT INTO outbox (event_name, topic, payload, status, last_error, dead_at) "
    "VALUES ('e', 'orders', '', 2, 'too_large: 9 bytes', UTC_TIMESTAMP(6))",
}


@pytest.mark.parametrize("code", PLANTED)
async def test_what_stops_events_is_found_alone(at_work: Site, code: str) -> None:
    """
    Lanes, deaths, lag, pauses and dead letters.
    """
    at_work.root(PLANTED[code])
    found = await relay_of(at_work)

    assert found.codes == {code}
    if code == "topic-paused":
        await at_work.mend(found.findings)
        assert (await relay_of(at_work)).findings == ()
    if code == "dead-letters":
        # As printed, but that a test has nobody to ask.
        (listed, requeue) = [command.text for command in found.findings[0].commands]
        assert listed == "outbox-relay dead-letters list"
        await asyncio.to_thread(at_work.run, f"{requeue} --yes")
        assert "dead-letters" not in (await relay_of(at_work)).codes


async def test_a_topic_that_is_paused_is_no_lag(at_work: Site) -> None:
    """
    What somebody held up on purpose is said once, by its name.
    """
    at_work.root(PLANTED["relay-behind"], "INSERT INTO outbox_control (topic) VALUES ('orders')")

    assert (await relay_of(at_work)).codes == {"topic-paused"}


def invoke(folder: Path, *words: str) -> Result:
    """The command in this process, as on a narrow terminal."""
    config = ["--config", str(folder / "config.toml")]
    return CliRunner().invoke(app, ["doctor", *words, *config], env={"COLUMNS": "80"})


def test_the_command_line(folder: Path) -> None:
    """
    Without tables and without a broker: what is wrong, the exit codes, and one area alone.
    """
    before = sorted(path.name for path in folder.iterdir())
    away = call(folder, "doctor", "--json")
    one = invoke(folder, "--only", "configuration")
    human = invoke(folder)
    relay = invoke(folder, "--only", "relay")
    untouched = sorted(path.name for path in folder.iterdir())
    migrate(load_config(folder / "config.toml", {}).database)
    migrated = invoke(folder, "--only", "database")
    warned = invoke(folder, "--only", "relay")
    wrong = invoke(folder, "--json", "--set", "relay.chunk_rwos=5")
    unknown = invoke(folder, "--only", "everything")

    codes = {finding["code"] for finding in json.loads(away.stdout)["findings"]}
    assert codes == {"tables-missing", "broker-unreachable"}
    assert json.loads(away.stdout)["areas"]["relay"]["severity"] == "unknown"
    assert (away.returncode, away.stderr) == (Exit.ERRORS, "")
    assert untouched == before
    assert (one.exit_code, one.stdout.count("\n")) == (Exit.OK, 1)
    assert human.exit_code == relay.exit_code == Exit.ERRORS
    assert "tables-missing" in relay.stdout
    assert "Mend: " in human.stdout
    assert "    outbox-relay migrate\n" in human.stdout
    assert "docs/guide/doctor.md#tables-missing" in human.stdout
    assert (migrated.exit_code, warned.exit_code) == (Exit.OK, Exit.WARNINGS)
    assert wrong.exit_code == Exit.USAGE
    assert json.loads(wrong.stdout)["findings"][0]["code"] == "configuration-invalid"
    assert "chunk_rows" in json.loads(wrong.stdout)["findings"][0]["what"]
    assert unknown.exit_code == Exit.USAGE


async def test_looking_changes_nothing(at_work: Site) -> None:
    """
    Not a row, not a counter of rows read for update: the tables are as they were.
    """

    def checksum() -> Any:
        with at_work.connection() as root, root.cursor() as cursor:
            cursor.execute(
                "CHECKSUM TABLE outbox, outbox_lease, outbox_control, outbox_version EXTENDED"
            )
            return cursor.fetchall()

    at_work.write(50)
    before = checksum()
    await examine(at_work.config(kafka__bootstrap_servers=NOWHERE))

    assert checksum() == before
