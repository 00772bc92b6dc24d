"""
examples/bookstore/compose.yaml starts what is there, with the settings that are read.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml
from sqlalchemy.engine import make_url

from examples.bookstore.events import TOPIC
from examples.bookstore.invoices.__main__ import DEAD_LETTERS
from examples.bookstore.local import PARTITIONS
from examples.bookstore.settings import Settings
from outbox_relay.config import load_config
from tests.services.mariadb import MariaDB

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "bookstore"


@pytest.fixture
def services() -> dict[str, Any]:
    """The services of the file, by name."""
    loaded: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]
    return loaded


def test_its_processes_are_there(services: dict[str, Any]) -> None:
    """
    Each entry point is a module that can be run.
    """
    for name in ("store", "invoices"):
        python, option, module, *_ = services[name]["entrypoint"]
        assert (python, option) == ("python3", "-m")
        assert importlib.util.find_spec(module) is not None


def test_its_settings_are_those_that_are_read(
    services: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The store and the relay speak of one database and of one address for hints; no variable is misspelt.
    """
    store = services["store"]["environment"]
    for name, value in store.items():
        monkeypatch.setenv(name, "x" * 32 if value.startswith("${") else value)
    settings = Settings.from_environment()
    relay = load_config(None, services["relay"]["environment"])

    assert settings.database_url == relay.database.url
    assert settings.wake == "udp:relay:9466"
    assert relay.relay.wake_address == "udp:0.0.0.0:9466"
    assert set(services["invoices"]["environment"]) == {
        "INVOICES_DATABASE_URL",
        "INVOICES_BOOTSTRAP_SERVERS",
    }
    assert "BOOKSTORE_JWT_SECRET:?" in store["BOOKSTORE_JWT_SECRET"]


def test_its_topics_are_those_of_the_code(services: dict[str, Any]) -> None:
    """
    The store's, and the one for what the invoices give up.
    """
    words = shlex.split(services["topics"]["command"][-1])
    options = [word[2:].split("=") for word in words if word.startswith(("--topic", "--part"))]

    assert options == [
        ["topic", TOPIC],
        ["partitions", str(PARTITIONS)],
        ["topic", DEAD_LETTERS],
        ["partitions", "1"],
    ]


def test_each_service_has_a_database_of_its_own(services: dict[str, Any], mariadb: MariaDB) -> None:
    """
    databases.sql gives the store and the invoices theirs, and nothing of the other's.
    """
    with mariadb.root_connection() as connection, connection.cursor() as cursor:
        for statement in (FOLDER / "databases.sql").read_text().split(";\n"):
            if statement.strip():
                cursor.execute(statement)
    seen = {}
    for url in (
        services["store"]["environment"]["BOOKSTORE_DATABASE_URL"],
        services["invoices"]["environment"]["INVOICES_DATABASE_URL"],
    ):
        place = make_url(url).set(drivername="mysql+pymysql", host=mariadb.host, port=mariadb.port)
        engine = sa.create_engine(place, poolclass=sa.NullPool)
        with engine.connect() as connection:
            names = connection.scalars(sa.text("SHOW DATABASES")).all()
        seen[place.database] = [name for name in names if name != "information_schema"]

    assert seen == {"bookstore": ["bookstore"], "invoices": ["invoices"]}


def test_the_compose_tool_takes_it() -> None:
    """
    Where it is installed: `python -m tests.deploy.install`.
    """
    tool = shutil.which("docker-compose")
    if tool is None:
        assert yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]
        return
    done = subprocess.run(
        [tool, "-f", str(FOLDER / "compose.yaml"), "config", "--quiet"],
        env={**os.environ, "BOOKSTORE_JWT_SECRET": "x"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
