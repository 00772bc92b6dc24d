"""
docs/guide/first-event.md and docs/guide/sidecar.md: their files and commands, from an empty folder, with the
installed wheel.
"""

from __future__ import annotations

import os

import pytest

from tests.newcomer.__main__ import PAGES
from tests.newcomer.servers import offered
from tests.newcomer.terminal import Terminal
from tests.newcomer.walk import Reader

FIRST, SECOND = "docs/guide/first-event.md", "docs/guide/sidecar.md"
INSTALLATION = "mkdir ../shop"


@pytest.fixture
def reader(installed_wheel, mariadb, kafka, tmp_path):
    """Somebody who has installed it, has servers, and begins in an empty folder."""
    for name in ("bin", "scratch", "shop"):
        (tmp_path / name).mkdir()
    servers = offered(mariadb, kafka, tmp_path / "bin")
    environment = {
        **os.environ,
        "PATH": f"{tmp_path / 'bin'}:{installed_wheel.command.parent}:{os.environ['PATH']}",
        "PYTHONPATH": "",
        "OUTBOX_RELAY_HTTP__PORT": str(servers.http_port),
    }
    with Terminal(
        tmp_path / "shop", scratch=tmp_path / "scratch", environment=environment, longest_seconds=60
    ) as terminal:
        yield Reader(terminal=terminal, moved=servers.moved, administer=servers.administer)


def test_the_pages_work_as_they_stand(reader, mariadb, kafka):
    """
    From a table of one's own on SQLite to a relay on MariaDB and Kafka that can be looked at, in one terminal.
    """
    try:
        first = {step.command: step.output for step in reader.walk(FIRST, apart={INSTALLATION: ""})}
        second = {step.command: step.output for step in reader.walk(SECOND, apart=PAGES[SECOND])}
    finally:
        with mariadb.root_connection() as connection, connection.cursor() as cursor:
            cursor.execute("DROP DATABASE IF EXISTS shop")
            cursor.execute("DROP USER IF EXISTS shop@'%'")
    published = kafka.consume_all("orders")
    kafka.delete_topic("orders")

    printed = "".join([*first.values(), *second.values()])
    assert "Warning" not in printed
    assert "Traceback" not in printed
    assert "order 1 is committed, and so is its event" in first["python shop.py 42"]
    assert [record.value for record in published] == [b'{"order_id":1,"total":42}']
    assert "backlog" in second["outbox-relay status"]
