"""
`outbox-relay replay`: what it shows, asks and does.
"""

from __future__ import annotations

import json
import signal
import subprocess
import threading

import pytest

from tests.integration.operating_by_hand import Outbox, produced


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


def test_one_replay_at_a_time_works_with_a_file(outbox: Outbox) -> None:
    """
    I4. The same command given twice at once is refused, and leaves the first alone: copies keep their order.
    """
    outbox.insert(*[produced(key=b"k", payload=b'{"n": %d}' % n) for n in range(600)])
    kept = outbox.folder / "replay.json"
    words = ("replay", "--all", "--yes", "--resume", str(kept), "--rate")
    running = outbox.start(*words, "10", stderr=subprocess.DEVNULL)
    while not outbox.published.exists() or not outbox.published.read_text():
        assert running.poll() is None
        threading.Event().wait(0.02)
    second = outbox.call(*words, "10000")
    running.send_signal(signal.SIGINT)
    first = running.wait(timeout=30)
    third = outbox.call(*words, "10000")

    assert (first, second.returncode, third.returncode) == (130, 2, 0)
    assert "another replay works with it: wait until that has ended, or stop it" in second.stderr
    assert [line["n"] for line in outbox.lines()] == list(range(600))
    assert sorted(path.name for path in kept.parent.glob("replay.json*")) == ["replay.json"]


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
