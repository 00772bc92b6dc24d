"""
`outbox-relay events`, `pause`, `resume`, `replay`, `purge` and `status --watch`: what they show, ask and do.
"""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from outbox_relay import uuid7
from outbox_relay.cli.app import app
from outbox_relay.migrate import migrate
from outbox_relay.schema import tables
from outbox_relay.store.options import DatabaseOptions

ROOT = Path(__file__).parents[2]
Call = Callable[..., subprocess.CompletedProcess[str]]
NOW = datetime.now(UTC).replace(tzinfo=None)


class Outbox:
    """A SQLite outbox whose broker is a file, and its command line."""

    def __init__(self, folder: Path, database: Any) -> None:
        self.folder = folder
        self.published = folder / "published.jsonl"
        (folder / "config.toml").write_text(
            f'[database]\nurl = "{database.async_url}"\n'
            f'[broker]\nkind = "jsonl"\n[jsonl]\npath = "{self.published}"\n[log]\nformat = "json"\n'
        )
        migrate(DatabaseOptions(url=database.async_url))
        self.engine = sa.create_engine(database.sync_url)
        self.table = tables().outbox
        self.environ = {"OUTBOX_RELAY_CONFIG": str(folder / "config.toml"), "COLUMNS": "160"}

    def call(self, *words: str, answer: str = "") -> subprocess.CompletedProcess[str]:
        done = CliRunner().invoke(app, words, input=answer, env=self.environ)
        return subprocess.CompletedProcess(words, done.exit_code, done.stdout, done.stderr)

    def json(self, *words: str) -> dict[str, Any]:
        done = self.call(*words, "--json")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def start(self, *words: str, **more: Any) -> subprocess.Popen[str]:
        """The command in a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "outbox_relay", *words],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), **self.environ},
            text=True,
            **more,
        )

    def insert(self, *rows: dict[str, Any]) -> list[int]:
        ids = []
        with self.engine.begin() as connection:
            for given in rows:
                row = {
                    "event_name": "order.placed",
                    "topic": "orders",
                    "payload": b'{"n": 1}',
                } | given
                insert = self.table.insert().values(**row)
                ids.append(connection.execute(insert).inserted_primary_key[0])
        return ids

    def rows(self) -> list[Any]:
        with self.engine.connect() as connection:
            return list(connection.execute(sa.select(self.table).order_by(self.table.c.id)).all())

    def lines(self) -> list[dict[str, Any]]:
        """What was published: the payload, and some headers."""
        found = [json.loads(line) for line in self.published.read_text().splitlines()]
        names = ("ce_id", "replay-of", "outbox-seq")
        return [
            {"n": line["value"]["n"], **{n: line["headers"][n] for n in names}} for line in found
        ]


@pytest.fixture
def outbox(tmp_path: Path, sqlite_database: Any) -> Outbox:
    made = Outbox(tmp_path, sqlite_database)
    yield made
    made.engine.dispose()


def produced(**given: Any) -> dict[str, Any]:
    return {"status": 1, "produced_at": NOW, **given}


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


def test_replay_says_how_many_and_asks(outbox: Outbox) -> None:
    """
    Nothing is published without a yes or a selection; only what was produced is meant.
    """
    outbox.insert(produced(), produced(topic="users"), {}, produced(topic="users"))
    dry = outbox.call("replay", "--all", "--dry-run")
    told = outbox.json("replay", "--topic", "users", "--dry-run")
    no = outbox.call("replay", "--all", answer="n\n")
    nobody = outbox.call("replay", "--all")
    nothing_said = outbox.call("replay", "--yes")
    both = outbox.call("replay", "--all", "--topic", "users", "--yes")
    none = outbox.call("replay", "--topic", "none", "--yes")

    assert [line.split() for line in dry.stdout.splitlines()[:3]] == [
        ["topic", "events"],
        ["orders", "1"],
        ["users", "2"],
    ]
    assert "would publish 3 events again" in dry.stdout
    assert told == {"would_replay": 2, "counts": [{"topic": "users", "rows": 2}]}
    assert (no.returncode, nobody.returncode, nothing_said.returncode, both.returncode) == (
        1,
        1,
        2,
        2,
    )
    assert "publish 3 events again to their topics, 500 a second at most?" in no.stderr
    assert none.stdout == "no produced events fit\n"
    assert not outbox.published.exists()


def test_replay_publishes_again_and_changes_no_row(outbox: Outbox) -> None:
    """
    As it was published the first time, with replay-of beside it.
    """
    outbox.insert(*[produced(key=b"k", payload=b'{"n": %d}' % n) for n in range(5)])
    before = outbox.rows()
    done = outbox.call("replay", "--from-id", "2", "--to-id", "4", "--yes", "--to-topic", "copies")
    lines = outbox.lines()
    log = json.loads(done.stderr.splitlines()[-1])

    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "published 3 of 3")
    assert [line["n"] for line in lines] == [1, 2, 3]
    assert all(line["replay-of"] == line["ce_id"] for line in lines)
    assert [line["outbox-seq"] for line in lines] == ["2", "3", "4"]
    assert [str(row.event_id) for row in before[1:4]] == [line["ce_id"] for line in lines]
    assert outbox.rows() == before
    assert (log["event"], log["rows"], log["from_id"], log["to_topic"]) == (
        "replayed",
        3,
        2,
        "copies",
    )


def test_replay_as_new_gives_ids_that_follow_from_the_file(outbox: Outbox) -> None:
    """
    What is repeated has the same new id; another replay gives others.
    """
    outbox.insert(*[produced(key=b"k")] * 3)
    without = outbox.call("replay", "--all", "--as-new", "--yes")
    kept = outbox.folder / "replay.json"
    outbox.call("replay", "--all", "--as-new", "--yes", "--resume", str(kept))
    state = json.loads(kept.read_text())
    kept.write_text(json.dumps(state | {"after_id": 1, "published": 1}))
    outbox.call("replay", "--yes", "--resume", str(kept))
    first, second = outbox.lines()[:3], outbox.lines()[3:]

    assert (without.returncode, "--as-new needs --resume" in without.stderr) == (2, True)
    assert [line["ce_id"] for line in second] == [line["ce_id"] for line in first[1:]]
    assert all(line["ce_id"] != line["replay-of"] for line in first)
    assert outbox.call("replay", "--all", "--resume", str(kept)).returncode == 2
    same = outbox.call("replay", "--all", "--as-new", "--resume", str(kept))
    assert "says that this replay is done" in same.stdout
    assert "says that this replay is done" in outbox.call("replay", "--resume", str(kept)).stdout


def test_a_replay_that_was_killed_goes_on(outbox: Outbox) -> None:
    """
    kill -9 in the middle: with --resume nothing is left out, the order holds, and at most one page comes twice.
    """
    outbox.insert(*[produced(key=b"k", payload=b'{"n": %d}' % n) for n in range(120)])
    kept = outbox.folder / "replay.json"
    words = ("replay", "--all", "--yes", "--resume", str(kept), "--rate", "80")
    running = outbox.start(*words, stderr=subprocess.DEVNULL)
    while not outbox.published.exists() or len(outbox.published.read_text().splitlines()) < 40:
        assert running.poll() is None
        threading.Event().wait(0.02)
    running.kill()
    running.wait()
    killed_at = len(outbox.lines())
    done = outbox.call("replay", "--yes", "--resume", str(kept), "--rate", "10000")
    numbers = [line["n"] for line in outbox.lines()]

    assert done.returncode == 0, done.stderr
    assert killed_at < 120
    assert sorted(set(numbers)) == list(range(120))
    assert len(numbers) <= 120 + 20
    again = numbers[killed_at:]
    assert again == list(range(again[0], 120))
    assert outbox.json("replay", "--resume", str(kept)) == {"replayed": 0}


def test_ctrl_c_stops_a_replay_and_says_how_to_go_on(outbox: Outbox) -> None:
    """
    What is under way is settled; the exit code tells the signal.
    """
    outbox.insert(*[produced()] * 60)
    running = outbox.start(
        *("replay", "--all", "--yes", "--rate", "8"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    while not outbox.published.exists() or not outbox.published.read_text():
        assert running.poll() is None
        threading.Event().wait(0.02)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=30)
    published = len(outbox.lines())

    assert running.returncode == 130
    assert f"--from-id {published + 1} --to-id 60 instead of --all goes on" in errors


def test_a_replay_stops_at_a_row_that_cannot_be_published(outbox: Outbox) -> None:
    """
    It names the row and what to do; --skip-rejected passes over it and logs it.
    """
    outbox.insert(produced(), produced(codec=9), produced())
    stopped = outbox.call("replay", "--all", "--yes")
    over = outbox.call("replay", "--all", "--yes", "--skip-rejected")

    assert stopped.returncode == 1
    assert "row 2 cannot be published" in stopped.stderr
    assert "--skip-rejected" in stopped.stderr
    assert (over.returncode, over.stdout.splitlines()[-1]) == (0, "published 2 of 3, passed over 1")
    assert '"replay_passed_over"' in over.stderr


@pytest.mark.parametrize("content", ["", "{}", '{"format": 9}', "[1]"])
def test_a_file_that_no_replay_left(outbox: Outbox, content: str) -> None:
    """
    Is told, and left as it is.
    """
    outbox.insert(produced())
    kept = outbox.folder / "replay.json"
    kept.write_text(content)
    done = outbox.call("replay", "--all", "--yes", "--resume", str(kept))

    assert (done.returncode, "is not what a replay left" in done.stderr) == (2, True)
    assert kept.read_text() == content


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
