"""
The command line, as separate processes: exit codes, signals, and no secret anywhere.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from outbox_relay.schema import SCHEMA_VERSION
from tests.integration.command import LATEST_SECONDS, Running, call, environment


def test_version(folder: Path) -> None:
    """
    The release, and 0.
    """
    result = call(folder, "--version")

    assert (result.returncode, result.stdout) == (0, "outbox-relay 0.1.0\n")


def test_check_config_shows_values_and_their_origins(folder: Path) -> None:
    """
    Every setting once; the password of the URL never.
    """
    result = call(
        folder,
        *("check-config", "--set", "relay.chunk_rows=7"),
        OUTBOX_RELAY_DATABASE__URL="mysql+asyncmy://ob:geheim@db/shop",
    )
    lines = result.stdout.splitlines()

    assert result.returncode == 0
    assert (
        'database.url = "mysql+asyncmy://ob:***@db/shop"'
        "  # environment: OUTBOX_RELAY_DATABASE__URL" in lines
    )
    assert 'kafka.bootstrap_servers = "127.0.0.1:1"  # config.toml' in lines
    assert "relay.chunk_rows = 7  # flag" in lines
    assert "relay.lease_seconds = 15.0  # default" in lines
    assert "geheim" not in result.stdout + result.stderr


@pytest.mark.parametrize("verb", ["check-config", "run", "migrate", "status"])
def test_wrong_settings_end_every_verb_with_2(folder: Path, verb: str) -> None:
    """
    All lines on standard error, nothing on standard output, no traceback.
    """
    result = call(folder, verb, "--set", "relay.chunk_rwos=1", "--set", "http.port=x")

    assert result.returncode == 2
    assert result.stderr.splitlines() == [
        "flag: relay.chunk_rwos is not a setting (did you mean relay.chunk_rows?)",
        'flag: http.port = "x" must be a whole number',
    ]
    assert result.stdout == ""


def test_a_file_that_is_missing_and_wrong_usage_end_with_2(folder: Path) -> None:
    """
    A file that was asked for must be there.
    """
    missing = call(folder, "check-config", "--config", "none.toml")
    malformed = call(folder, "check-config", "--set", "geheim")
    unknown = call(folder, "publish")

    assert (missing.returncode, malformed.returncode, unknown.returncode) == (2, 2, 2)
    assert missing.stderr == "none.toml: cannot be read (No such file or directory)\n"
    assert "KEY=VALUE" in malformed.stderr
    assert "geheim" not in malformed.stderr


def test_migrate_then_status(folder: Path, sqlite_database: Any) -> None:
    """
    Missing tables are 3 with the command that mends it, and looking creates no file; then 0.
    """
    before = call(folder, "status", "--json")
    created_by_looking = Path(sqlite_database.name).exists()
    migrated = call(folder, "migrate")
    again = call(folder, "migrate")
    after = call(folder, "status", "--json")
    human = call(folder, "status")

    assert (before.returncode, created_by_looking) == (3, False)
    assert "run `outbox-relay migrate`" in before.stderr
    assert json.loads(before.stdout)["schema_version"] is None
    assert (migrated.returncode, again.returncode, after.returncode) == (0, 0, 0)
    assert migrated.stdout.startswith("applied 0001")
    assert again.stdout == "nothing to do: the tables are up to date\n"
    assert json.loads(after.stdout)["schema_version"] == SCHEMA_VERSION
    assert "nobody: no relay is active" in human.stdout


@pytest.mark.parametrize("name", ["mariadb", "mysql", "postgresql", "sqlite"])
def test_status_reads_it_all_from_the_database(
    folder: Path, name: str, request: pytest.FixtureRequest
) -> None:
    """
    Backlog, age, dead letters, who relays, what pauses.
    """
    database = request.getfixturevalue(f"{name}_database")
    url = f"database.url={database.async_url}"
    call(folder, "migrate", "--set", url)
    engine = sa.create_engine(database.sync_url)
    columns = "INSERT INTO outbox (event_name, topic, payload, status, last_error) VALUES"
    with engine.begin() as connection:
        for values in ("0, NULL", "0, NULL", "2, 'too_large'"):
            connection.execute(sa.text(f"{columns} ('e', 't', '', {values})"))
        connection.execute(
            sa.text(
                "UPDATE outbox_lease SET owner = 'host:1', term = 3, "
                "expires_at = '2999-01-01 00:00:00.000000'"
            )
        )
        connection.execute(sa.text("INSERT INTO outbox_control (topic) VALUES ('orders')"))
    engine.dispose()
    standing = json.loads(call(folder, "status", "--json", "--set", url).stdout)
    age = standing.pop("oldest_pending_seconds")
    left = standing.pop("lease_seconds_left")

    waits = {"topic": "t", "rows": 2, "oldest_id": 1}
    dead = {"topic": "t", "rows": 1, "oldest_id": 3, "oldest_seconds": 0.0}
    waiting = standing.pop("backlog_by_topic")
    paused = standing.pop("paused")
    standing.pop("read_at")

    assert {**waiting["topics"][0], "oldest_seconds": 0} == {**waits, "oldest_seconds": 0}
    assert [(pause["topic"], pause["reason"]) for pause in paused] == [("orders", "")]
    assert standing.pop("leases").keys() == {"host:1"}
    assert standing == {
        "state": "dead_letters",
        "schema_version": SCHEMA_VERSION,
        "schema_problem": None,
        "backlog_rows": 2,
        "dead_letter_rows": 1,
        "dead_letters_by_topic": {"topics": [dead], "capped": False},
        "owner": "host:1",
        "owners": {"host:1": 64},
        "lanes_owned": 64,
        "crash_count": 0,
        "paused_topics": ["orders"],
        "newest_id": 3,
        "last_produced_seconds": None,
        "oldest_produced_seconds": None,
        "purge_paused": False,
        "retention_seconds": 604800.0,
    }
    assert age >= 0
    assert left > 0


def test_a_database_that_is_away_ends_with_1(folder: Path) -> None:
    """
    I11. Told in one line, without the password.
    """
    url = "database.url=mysql+asyncmy://ob:geheim@127.0.0.1:1/shop"
    results = [call(folder, verb, "--set", url) for verb in ("status", "migrate")]

    assert [result.returncode for result in results] == [1, 1]
    assert all(len(result.stderr.splitlines()) == 1 for result in results)
    assert all("geheim" not in result.stderr for result in results)


@pytest.mark.parametrize("verb", ["status", "migrate"])
def test_a_database_that_hangs_ends_with_1(folder: Path, verb: str, black_hole: int) -> None:
    """
    It takes the connection and never says a word; the command does not wait for ever.
    """
    hanging = f"database.url=mysql+asyncmy://ob:geheim@127.0.0.1:{black_hole}/shop"
    limits = ("database.connect_timeout_seconds=0.5", "database.timeout_seconds=0.5")
    flags = [word for flag in (hanging, *limits) for word in ("--set", flag)]
    result = call(folder, verb, *flags)

    assert result.returncode == 1
    more = "; `outbox-relay doctor` looks closer" if verb == "status" else ""
    assert result.stderr == f"the database does not answer in time: is it up?{more}\n"


def test_a_port_that_is_taken_ends_run_with_1(folder: Path) -> None:
    """
    At start, in one line that names http.port.
    """
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = call(folder, "run", "--set", f"http.port={taken.getsockname()[1]}")

    assert result.returncode == 1
    assert result.stderr.startswith("http.port = ")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.alone
def test_run_serves_health_and_stops_on_a_signal(folder: Path, run: Callable[..., Running]) -> None:
    """
    I9. Alive and ready without tables and without a broker; SIGTERM ends it with 0.
    """
    running = run()
    port = running.until("http_listening")["port"]
    running.until("schema_mismatch")
    base = f"http://127.0.0.1:{port}"
    alive = httpx.get(f"{base}/livez")
    ready = httpx.get(f"{base}/readyz?verbose=1")
    mismatch = "outbox_relay_schema_mismatch 1.0" in httpx.get(f"{base}/metrics").text
    running.process.send_signal(signal.SIGTERM)
    code, seconds = running.ended()

    assert (alive.status_code, ready.status_code, mismatch) == (200, 200, True)
    assert "outbox-relay migrate" in ready.json()["schema"]
    assert code == 0
    assert seconds < LATEST_SECONDS


def test_run_goes_on_when_the_tables_appear(folder: Path, run: Callable[..., Running]) -> None:
    """
    Started before `migrate`, it waits, says what mends it, and goes on by itself.
    """
    running = run()
    running.until("schema_mismatch")
    call(folder, "migrate")
    acquired = running.until("lease_acquired")

    assert acquired["lanes"] == 64


def test_until_empty_ends_with_0_when_nothing_waits(folder: Path) -> None:
    """
    An empty table needs no broker.
    """
    call(folder, "migrate")
    result = call(folder, "run", "--until-empty")

    assert result.returncode == 0


@pytest.mark.parametrize(
    ("missing", "words", "install"),
    [
        ("typer", ["run"], '"outbox-relay[relay]"'),
        ("aiosqlite", ["migrate"], '"outbox-relay[sqlite]"'),
        ("aiosqlite", ["status"], '"outbox-relay[sqlite]"'),
        ("confluent_kafka", ["demo"], '"outbox-relay[demo]"'),
    ],
)
def test_a_missing_extra_is_named(
    folder: Path, missing: str, words: list[str], install: str
) -> None:
    """
    One line that says what to install, and 2.
    """
    code = (
        "import importlib.util as u, sys; find = u.find_spec; "
        f"u.find_spec = lambda name, *a: None if name == {missing!r} else find(name, *a); "
        f"sys.argv = ['outbox-relay', *{words!r}]; "
        "from outbox_relay.__main__ import main; main()"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert result.returncode == 2
    assert result.stderr.strip().endswith(f"install {install}")
