"""
`outbox-relay dead-letters`: what it shows, asks and does.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from outbox_relay.cli.app import app
from outbox_relay.migrate import migrate
from outbox_relay.store.options import DatabaseOptions

ROOT = Path(__file__).parents[2]
Call = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def call(tmp_path: Path, sqlite_database: Any) -> Call:
    """Runs the command over a SQLite outbox with three dead letters and one pending row."""
    (tmp_path / "config.toml").write_text(
        f'[database]\nurl = "{sqlite_database.async_url}"\n'
        '[kafka]\nbootstrap_servers = "127.0.0.1:1"\n[log]\nformat = "json"\n'
    )

    def call_(
        *words: str, answer: str = "", own_process: bool = False
    ) -> subprocess.CompletedProcess[str]:
        environ = {"OUTBOX_RELAY_CONFIG": str(tmp_path / "config.toml"), "COLUMNS": "140"}
        if not own_process:
            done = CliRunner().invoke(app, words, input=answer, env=environ)
            return subprocess.CompletedProcess(words, done.exit_code, done.stdout, done.stderr)
        return subprocess.run(
            [sys.executable, "-m", "outbox_relay", *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
            input=answer,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    migrate(DatabaseOptions(url=sqlite_database.async_url))
    engine = sa.create_engine(sqlite_database.sync_url)
    insert = sa.text(
        "INSERT INTO outbox (event_name, topic, key, payload, codec, status, attempts, dead_at,"
        " last_error) VALUES ('order.placed', :topic, :key, :payload, :codec, :status, 1,"
        " '2026-11-21 12:00:00.000000', :error)"
    )
    rows = [
        ("orders", b"order-7", b'{"secret": "geheim"}', 0, 2, "too_large: more than 1048576 bytes"),
        ("orders", b"\x00\xff", zlib.compress(b'{"note": "inflated"}'), 1, 2, "unreadable: x"),
        ("users", None, b"\xff\x00", 0, 2, "too_large: more than 1048576 bytes"),
        ("orders", b"order-7", b"{}", 0, 0, None),
    ]
    with engine.begin() as connection:
        for topic, key, payload, codec, status, error in rows:
            row = dict(topic=topic, key=key, payload=payload, codec=codec, status=status)
            connection.execute(insert, row | {"error": error})
    engine.dispose()
    return call_


def statuses(database: Any) -> dict[int, int]:
    engine = sa.create_engine(database.sync_url)
    with engine.connect() as connection:
        found = connection.execute(sa.text("SELECT id, status FROM outbox")).all()
    engine.dispose()
    return dict(found)  # type: ignore[arg-type]


def test_the_list_counts_first_and_shows_no_payload(call: Call) -> None:
    """
    By topic and reason, then the rows.
    """
    table = call("dead-letters", "list")
    lines = [line.split() for line in table.stdout.splitlines()]

    assert table.returncode == 0
    assert lines[0] == ["topic", "reason", "rows"]
    assert lines[1:4] == [
        ["orders", "too_large", "1"],
        ["orders", "unreadable", "1"],
        ["users", "too_large", "1"],
    ]
    assert "order-7" in table.stdout
    assert "0x00ff" in table.stdout
    assert "geheim" not in table.stdout


def test_the_list_as_json(call: Call) -> None:
    """
    One object; the selection and --limit hold for it too.
    """
    shown = json.loads(call("dead-letters", "list", "--json", "--limit", "1").stdout)
    chosen = json.loads(call("dead-letters", "list", "--json", "--topic", "users").stdout)
    nothing = json.loads(call("dead-letters", "list", "--json", "--reason", "too").stdout)

    assert sum(count["rows"] for count in shown["counts"]) == 3
    assert [letter["id"] for letter in shown["dead_letters"]] == [1]
    assert shown["dead_letters"][0]["dead_at"] == "2026-11-21T12:00:00Z"
    assert chosen["counts"] == [{"topic": "users", "reason": "too_large", "rows": 1}]
    assert nothing == {"counts": [], "dead_letters": []}


def test_show_tells_the_payload_only_when_asked(call: Call) -> None:
    """
    Inflated, and as base64 where it is no text.
    """
    without = call("dead-letters", "show", "1")
    text = json.loads(call("dead-letters", "show", "1", "--payload", "--json").stdout)
    inflated = json.loads(call("dead-letters", "show", "2", "--payload", "--json").stdout)
    binary = json.loads(call("dead-letters", "show", "3", "--payload", "--json").stdout)
    missing = call("dead-letters", "show", "4")

    assert "geheim" not in without.stdout
    assert "reason: too_large" in without.stdout
    assert text["payload"] == '{"secret": "geheim"}'
    assert inflated["payload"] == '{"note": "inflated"}'
    assert binary["payload_base64"] == "/wA="
    assert '\n  "secret": "geheim"\n' in call("dead-letters", "show", "1", "--payload").stdout
    assert missing.returncode == 1
    assert "row 4 is no dead letter" in missing.stderr


def test_requeue_asks_and_does_nothing_without_a_yes(call: Call, sqlite_database: Any) -> None:
    """
    Nor without a selection.
    """
    no = call("dead-letters", "requeue", "--topic", "orders", answer="n\n")
    nobody = call("dead-letters", "requeue", "--topic", "orders")
    everything_and_one = call("dead-letters", "requeue", "--all", "--id", "1", "--yes")
    nothing_said = call("dead-letters", "requeue", "--yes")

    assert (no.returncode, nobody.returncode) == (1, 1)
    assert "requeue 2 dead letters?" in no.stderr
    assert (everything_and_one.returncode, nothing_said.returncode) == (2, 2)
    assert "--all" in nothing_said.stderr
    assert statuses(sqlite_database) == {1: 2, 2: 2, 3: 2, 4: 0}


def test_requeue_by_reason(call: Call, sqlite_database: Any) -> None:
    """
    They are pending again; the others stay.
    """
    done = call("dead-letters", "requeue", "--reason", "too_large", answer="y\n")
    again = call("dead-letters", "requeue", "--reason", "too_large", "--yes", "--json")

    assert done.returncode == 0
    assert "requeued 2" in done.stdout
    assert json.loads(again.stdout) == {"requeued": 0}
    assert statuses(sqlite_database) == {1: 0, 2: 2, 3: 0, 4: 0}


def test_discard_deletes_and_logs_without_payload_and_key(call: Call, sqlite_database: Any) -> None:
    """
    I11. Which rows went is told on standard error, for whoever has to account for them.
    """
    done = call(
        "dead-letters", "discard", "--id", "1", "--id", "4", "--yes", "--json", own_process=True
    )
    logged = [json.loads(line) for line in done.stderr.splitlines()]

    assert json.loads(done.stdout) == {"discarded": 1}
    assert statuses(sqlite_database) == {2: 2, 3: 2, 4: 0}
    assert [(line["event"], line.get("row_id"), line.get("reason")) for line in logged] == [
        ("dead_letter_discarded", 1, "too_large"),
        ("dead_letters_discarded", None, None),
    ]
    assert (logged[1]["rows"], logged[1]["of"], logged[1]["ids"]) == (1, 1, [1, 4])
    assert "geheim" not in done.stderr
    assert "order-7" not in done.stderr


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (("--key", "order-7"), [1]),
        (("--key", "0x00ff"), [2]),
        (("--from-id", "2"), [2, 3]),
        (("--from-id", "2", "--to-id", "2"), [2]),
        (("--since", "2026-11-21T12:00"), [1, 2, 3]),
        (("--since", "2026-11-21T13:00:00+01:00"), [1, 2, 3]),
        (("--since", "2026-11-21T12:00:01"), []),
        (("--until", "2026-11-21T12:00"), []),
        (("--until", "2026-11-21T12:00:01", "--topic", "users"), [3]),
    ],
)
def test_they_are_chosen_by_key_id_and_time(call: Call, options: Any, wanted: list[int]) -> None:
    """
    UTC, unless the time names its zone; all that is given must fit.
    """
    shown = json.loads(call("dead-letters", "list", "--json", *options).stdout)

    assert [letter["id"] for letter in shown["dead_letters"]] == wanted


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--since", "yesterday"), "use a time such as"),
        (("--since", "9999999d"), "use a time such as"),
        (("--key", "0x0"), "hexadecimal digits"),
        (("--rate", "0"), "--rate"),
    ],
)
def test_what_cannot_be_read_is_told(call: Call, options: Any, told: str) -> None:
    """
    With 2, before the database is asked.
    """
    done = call("dead-letters", "requeue", *options)

    assert done.returncode == 2
    assert told in done.stderr


def test_a_dry_run_changes_nothing_and_does_not_ask(call: Call, sqlite_database: Any) -> None:
    """
    It counts what would be done.
    """
    told = call("dead-letters", "discard", "--all", "--dry-run")
    counted = json.loads(call("dead-letters", "requeue", "--all", "--dry-run", "--json").stdout)

    assert told.returncode == 0
    assert "would discard 3; nothing is done" in told.stdout
    assert counted["would_requeue"] == 3
    assert sum(count["rows"] for count in counted["counts"]) == 3
    assert statuses(sqlite_database) == {1: 2, 2: 2, 3: 2, 4: 0}


def test_a_requeue_is_logged_with_its_filters_and_without_keys(call: Call) -> None:
    """
    I11. Who accounts for it finds when, how many and which; of keys only how many were named.
    """
    done = call(
        *("dead-letters", "requeue", "--key", "order-7", "--topic", "orders", "--yes"),
        own_process=True,
    )
    [line] = [json.loads(text) for text in done.stderr.splitlines()]

    assert (line["event"], line["rows"], line["of"]) == ("dead_letters_requeued", 1, 1)
    assert (line["topics"], line["chosen_keys"], line["stopped"]) == (["orders"], 1, False)
    assert "order-7" not in done.stderr


def more(database: Any, rows: int) -> None:
    """As many dead letters."""
    engine = sa.create_engine(database.sync_url)
    insert = sa.text(
        "INSERT INTO outbox (event_name, topic, payload, status, attempts, dead_at, last_error) "
        "VALUES ('e', 'many', '{}', 2, 1, '2026-11-21 12:00:00.000000', 'too_large: x')"
    )
    with engine.begin() as connection:
        connection.execute(insert, [{}] * rows)
    engine.dispose()


def test_a_rate_is_kept_and_a_signal_says_what_is_done(
    call: Call, sqlite_database: Any, tmp_path: Path
) -> None:
    """
    The rows that are under way are finished; the same command goes on with the rest.
    """
    more(sqlite_database, 500)
    running = subprocess.Popen(
        [
            *(sys.executable, "-m", "outbox_relay", "dead-letters", "discard"),
            *("--topic", "many", "--yes", "--rate", "10"),
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OUTBOX_RELAY_CONFIG": "config.toml"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stderr is not None
    first = json.loads(running.stderr.readline())
    running.send_signal(signal.SIGINT)
    told, logged = running.communicate(timeout=60)
    left = sum(status == 2 for status in statuses(sqlite_database).values()) - 3
    rest = call("dead-letters", "discard", "--topic", "many", "--yes", "--json")

    assert first["event"] == "dead_letter_discarded"
    assert running.returncode == 130
    assert 0 < 500 - left < 500
    assert f"stopped: discarded {500 - left} of 500; the same command goes on" in told
    assert json.loads(logged.splitlines()[-1])["stopped"] is True
    assert json.loads(rest.stdout) == {"discarded": left}


def test_what_a_writer_put_in_does_not_reach_the_terminal(call: Call, sqlite_database: Any) -> None:
    """
    A key or a payload could clear the screen, or write another answer onto it.
    """
    engine = sa.create_engine(sqlite_database.sync_url)
    with engine.begin() as connection:
        connection.execute(
            sa.text("UPDATE outbox SET payload = :text, event_name = :text WHERE id = 1"),
            {"text": "\x1b[2Jhello"},
        )
    engine.dispose()
    shown = call("dead-letters", "list").stdout
    shown += call("dead-letters", "show", "1", "--payload").stdout

    assert "\x1b" not in shown
    assert "\\x1b[2Jhello" in shown


def test_a_zip_bomb_is_shown_as_it_is_stored(call: Call, sqlite_database: Any) -> None:
    """
    I10. It is inflated no further than a payload may be large.
    """
    bomb = zlib.compress(bytes(64 * 1024 * 1024), 9)
    engine = sa.create_engine(sqlite_database.sync_url)
    with engine.begin() as connection:
        connection.execute(
            sa.text("UPDATE outbox SET payload = :bomb, codec = 1 WHERE id = 1"), {"bomb": bomb}
        )
    engine.dispose()
    shown = json.loads(call("dead-letters", "show", "1", "--payload", "--json").stdout)

    assert base64.b64decode(shown["stored_base64"]) == bomb
    assert "16777215" in shown["payload_problem"].replace(",", "")


def test_without_tables_it_ends_with_3(tmp_path: Path) -> None:
    """
    And says which command makes them.
    """
    url = f"database.url=sqlite+aiosqlite:///{tmp_path}/none.db"
    kafka = "kafka.bootstrap_servers=127.0.0.1:1"
    done = CliRunner().invoke(app, ["dead-letters", "list", "--set", url, "--set", kafka])

    assert done.exit_code == 3
    assert "outbox-relay migrate" in done.stderr
