"""
`outbox-relay events`, `pause`, `resume`, `replay`, `purge` and `status --watch`: what they show, ask and do.
"""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from outbox_relay import uuid7
from outbox_relay.cli.app import app
from tests.integration.operating_by_hand import NOW, Outbox, produced


def test_a_search_shows_the_newest_and_how_to_go_on(outbox: Outbox) -> None:
    """
    No payload; keys that are no text as bytes; what would act on a terminal is shown.
    """
    outbox.insert(
        produced(
            key=b"order-7", payload=b'{"secret": "geheim"}', created_at=NOW - timedelta(seconds=2)
        ),
        {"key": b"\x00\xff", "topic": "users\x1b[2J"},
    )
    shown = outbox.call("events", "search")
    page = outbox.call("events", "search", "--limit", "1")
    nothing = outbox.call("events", "search", "--topic", "none")
    found = outbox.json("events", "search", "--status", "produced", "--key", "order-7")

    assert (shown.returncode, "geheim" in shown.stdout, "\x1b" in shown.stdout) == (0, False, False)
    assert "0x00ff" in shown.stdout
    assert "+2.000 s" in shown.stdout
    assert "--before 2" in page.stdout
    assert nothing.stdout == "no events\n"
    assert [(event["id"], event["status"]) for event in found["events"]] == [(1, "produced")]


def test_a_search_by_ce_id(outbox: Outbox) -> None:
    """
    It stands alone, and must be one.
    """
    wanted = uuid7()
    outbox.insert({"event_id": wanted}, {})
    found = outbox.json("events", "search", "--ce-id", str(wanted))
    missing = outbox.json("events", "search", "--ce-id", str(uuid7()))
    two = outbox.call("events", "search", "--ce-id", str(wanted), "--topic", "orders")
    none = outbox.call("events", "search", "--ce-id", "7")

    assert [event["id"] for event in found["events"]] == [1]
    assert (missing["events"], missing["timed_out"]) == ([], False)
    assert (two.returncode, none.returncode) == (2, 2)
    assert "use a ce_id such as" in none.stderr


def test_show_tells_the_life_and_the_payload_only_when_asked(outbox: Outbox) -> None:
    """
    By row or by ce_id.
    """
    wanted = uuid7()
    outbox.insert({"event_id": wanted, "key": b"k", "payload": b'{"secret": "geheim"}'})
    outbox.call("pause", "orders", "--reason", "broker upgrade")
    life = outbox.json("events", "show", str(wanted))
    text = outbox.call("events", "show", "1")
    with_payload = outbox.json("events", "show", "1", "--payload")
    missing = outbox.call("events", "show", "2")

    assert (life["id"], life["status"], life["payload_bytes"]) == (1, "pending", 20)
    assert [waiting["reason"] for waiting in life["waits_for"]] == ["paused", "no_relay"]
    assert "waits for: paused: its topic is paused: broker upgrade" in text.stdout
    assert "geheim" not in text.stdout
    assert with_payload["payload"] == '{"secret": "geheim"}'
    assert (missing.returncode, "there is no event 2" in missing.stderr) == (1, True)


def test_pause_and_resume_say_what_changed_and_log_who(outbox: Outbox) -> None:
    """
    Both may be repeated. A log line for each change says who; --all undoes --all alone.
    """
    first = outbox.call("pause", "orders", "--all", "--purge", "--reason", "upgrade")
    again = outbox.call("pause", "orders")
    listed = outbox.call("pause")
    gone = outbox.call("resume", "--all", "--purge", "users")
    nobody = outbox.call("resume")
    log = [json.loads(line) for line in first.stderr.splitlines()]

    assert [line["topic"] for line in log] == ["*", "@purge", "orders"]
    assert all(line["event"] == "pause_begun" and "@" in line["by"] for line in log)
    assert "upgrade (" in log[0]["reason"]
    assert "paused: all topics since" in first.stdout
    assert again.stdout.startswith("was paused before: orders since")
    assert again.stderr == ""
    assert listed.stdout.count("paused: ") == 3
    assert "was not paused: users" in gone.stdout
    assert "still paused: orders since" in gone.stdout
    assert nobody.returncode == 2
    assert [pause["topic"] for pause in outbox.json("pause")["paused_now"]] == ["orders"]


def test_purge_deletes_what_is_old_and_nothing_else(outbox: Outbox) -> None:
    """
    I2. Never what may still be published; dead letters only when asked.
    """
    old = NOW - timedelta(days=2)
    error = {"status": 2, "last_error": "too_large: x", "dead_at": old}
    outbox.insert(produced(produced_at=old), produced(), {"created_at": old}, error)
    dry = outbox.call("purge", "--older-than", "1d", "--dry-run")
    no = outbox.call("purge", "--older-than", "1d", answer="n\n")
    kept = [row.id for row in outbox.rows()]
    done = outbox.call("purge", "--older-than", "1d", "--yes")
    after = [row.id for row in outbox.rows()]
    without_age = outbox.call("purge", "--dead-letters", "--yes")
    dead = outbox.call("purge", "--dead-letters", "--older-than", "1d", "--yes")
    nothing = outbox.call("purge")
    log = [json.loads(line) for line in dead.stderr.splitlines()]

    assert "would delete 1 produced rows" in dry.stdout
    assert (no.returncode, kept) == (1, [1, 2, 3, 4])
    assert (done.stdout, after) == ("deleted 1 produced rows\n", [2, 3, 4])
    assert without_age.returncode == 2
    assert [row.id for row in outbox.rows()] == [2, 3]
    assert [(line["event"], line.get("row_id")) for line in log] == [
        ("dead_letter_purged", 4),
        ("purged_by_hand", None),
    ]
    assert nothing.stdout == "no produced rows are older than 604,800 s\n"
    assert outbox.call("purge", "--older-than", "soon").returncode == 2


def test_purge_stands_still_while_it_is_paused(outbox: Outbox) -> None:
    """
    Somebody had a reason.
    """
    outbox.insert(produced(produced_at=NOW - timedelta(days=2)))
    outbox.call("pause", "--purge", "--reason", "backup")
    done = outbox.call("purge", "--older-than", "1d", "--yes")

    assert done.returncode == 1
    assert "backup" in done.stderr
    assert "outbox-relay resume --purge" in done.stderr
    assert len(outbox.rows()) == 1


def test_watch_ends_with_0_on_ctrl_c(outbox: Outbox) -> None:
    """
    On a terminal a screen, else one object a line; and it says how fast events go.
    """
    outbox.insert(produced(), {})
    running = outbox.start(
        *("status", "--watch", "--interval", "0.2", "--json"), stdout=subprocess.PIPE
    )
    assert running.stdout is not None
    first, second = json.loads(running.stdout.readline()), json.loads(running.stdout.readline())
    running.send_signal(signal.SIGINT)
    running.stdout.close()

    assert running.wait(30) == 0
    assert (first["backlog_rows"], first["produced_per_second"]) == (1, None)
    assert second["produced_per_second"] == 0.0

    leader, follower = pty.openpty()
    on_terminal = outbox.start(
        "status", "--watch", stdout=follower, stderr=follower, stdin=follower
    )
    os.close(follower)
    seen = b""
    while b"orders" not in seen:
        seen += os.read(leader, 10_000)
    on_terminal.send_signal(signal.SIGINT)

    assert on_terminal.wait(30) == 0
    os.close(leader)


@pytest.mark.parametrize(
    "words", [("events", "search"), ("events", "show", "1"), ("replay", "--all"), ("purge",)]
)
def test_a_table_of_python_cqrs_is_refused_clearly(outbox: Outbox, words: tuple[str, ...]) -> None:
    """
    Its rows do not say enough. Nothing is asked of the database.
    """
    done = outbox.call(
        *words,
        *("--set", "database.layout=python-cqrs"),
        *("--set", "database.url=mysql+asyncmy://ob:geheim@127.0.0.1:1/shop"),
    )

    assert (done.returncode, 'layout = "python-cqrs"' in done.stderr) == (2, True)


@pytest.mark.parametrize(
    "words", [("events", "search"), ("pause", "orders"), ("replay", "--all"), ("purge",)]
)
def test_without_tables_each_says_what_mends_it(tmp_path: Path, words: tuple[str, ...]) -> None:
    """
    With 3; and no file is made.
    """
    database = tmp_path / "none.db"
    environ = {"OUTBOX_RELAY_DATABASE__URL": f"sqlite+aiosqlite:///{database}"}
    environ["OUTBOX_RELAY_KAFKA__BOOTSTRAP_SERVERS"] = "127.0.0.1:1"
    done = CliRunner().invoke(app, words, env=environ)

    assert (done.exit_code, "outbox-relay migrate" in done.stderr) == (3, True)
    assert not database.exists()
