"""
docs/guide/operating.md: its commands run as they stand, one after the other.
"""

from __future__ import annotations

import re
import shlex
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from outbox_relay.cli.app import app
from outbox_relay.migrate import migrate
from outbox_relay.schema import tables
from outbox_relay.store.options import DatabaseOptions
from tests.pages import texts

GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "operating.md"


def rows_of(page: str) -> list[dict[str, Any]]:
    """What the page speaks of: events of an hour or two ago, one with its ce_id, one that waits."""
    now = datetime.now(UTC).replace(tzinfo=None)
    [ce_id] = set(re.findall(r"[0-9a-f]{8}-[0-9a-f-]{27}", page))
    produced = {"status": 1, "produced_at": now - timedelta(days=2)}
    order = {"event_name": "order.placed", "topic": "orders", "payload": b'{"order_id": 7}'}
    made = [
        {**order, **produced, "key": b"order-%d" % n, "created_at": now - timedelta(minutes=99 - n)}
        for n in range(20)
    ]
    made[0]["event_id"] = UUID(ce_id)
    return [*made, {**order, "key": b"order-7"}]


def prepare(folder: Path, database: Any, page: str) -> None:
    (folder / "config.toml").write_text(
        f'[database]\nurl = "{database.async_url}"\n[broker]\nkind = "jsonl"\n'
        f'[jsonl]\npath = "{folder / "published.jsonl"}"\n[log]\nformat = "json"\n'
    )
    migrate(DatabaseOptions(url=database.async_url))
    engine = sa.create_engine(database.sync_url)
    with engine.begin() as connection:
        for row in rows_of(page):
            connection.execute(tables().outbox.insert().values(**row))
    engine.dispose()


def test_the_commands_of_the_page_run(
    tmp_path: Path, sqlite_database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Each of them; and each finds what the page speaks of.
    """
    page = GUIDE.read_text()
    prepare(tmp_path, sqlite_database, page)
    commands = "".join(texts(GUIDE, "sh")).splitlines()
    environ = {"OUTBOX_RELAY_CONFIG": str(tmp_path / "config.toml"), "COLUMNS": "160"}
    monkeypatch.chdir(tmp_path)
    told = ""
    for command in commands:
        program, *words = shlex.split(command)
        done = CliRunner().invoke(app, words, env=environ)
        assert (program, done.exit_code) == ("outbox-relay", 0), (command, done.output)
        told += done.stdout

    assert len(commands) == 20
    for wanted in (
        "01936f3e-8a00-7000-8000-000000000000",
        "waits for: no_relay",
        "paused: orders since",
        "would publish 20 events again",
        "published 20 of 20",
        "published 1 of 1",
        "says that this replay is done: 20 events",
        "deleted 20 produced rows",
    ):
        assert wanted in told
    assert "no events" not in told
