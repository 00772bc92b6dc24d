"""
What a person sees of an audit.
"""

from __future__ import annotations

import io
import os
import signal

import pytest
from rich.console import Console

from outbox_relay.audit.report import Report, TopicCounts
from outbox_relay.cli.audit_view import ShownProgress, Stop, Stopped, _bars, show

FOUND = {"loss": 3, "duplicate": 0, "inversion": 0, "ghost": 0}


def report_of(**more: object) -> Report:
    lost = {"event_id": "e-1", "topic": "orders", "outbox_seq": 7, "created_at": "2026-01-01"}
    counts = TopicCounts(
        topic="orders",
        rows=10,
        produced=9,
        pending=1,
        dead_letters=0,
        records=1234,
        unidentified_records=0,
        exists=True,
    )
    fields = {
        "found": FOUND,
        "findings": {"loss": [lost], "duplicate": [], "inversion": [], "ghost": []},
        "topics": (counts,),
        "removed": 0,
        "compacted": 2,
        "unjudged_records": 0,
        "replays": 0,
        "requeued_late": 0,
        "upper_id": 10,
        "notes": ("something to know",),
        "work_file": None,
    }
    return Report(**(fields | more))  # type: ignore[arg-type]


def test_findings_are_shown_with_their_ids(capsys: pytest.CaptureFixture[str]) -> None:
    """
    As many as were asked for, how many more there are, and what is no finding.
    """
    show(report_of(), most=1)

    said = capsys.readouterr().out
    assert "3 losses: produced, and not on the topic" in said
    assert "e-1" in said
    assert "2 more are not shown: --most" in said
    assert "0 ghosts" in said
    assert "2 produced events gave way to later ones" in said
    assert "replays" not in said
    assert "note: something to know" in said


def test_what_is_allowed_is_clean() -> None:
    """
    And nothing else.
    """
    assert report_of().is_clean({"loss"})
    assert not report_of().is_clean({"ghost"})


def test_a_terminal_has_a_bar_for_each_part() -> None:
    """
    Which begins where an audit goes on.
    """
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=120)
    with _bars(console) as progress:
        shown = ShownProgress(Stop(), progress)
        shown.phase("table", done=40, total=100)
        shown.advance(60)

    assert "reading the table" in file.getvalue()
    assert "100/100" in file.getvalue()


def test_a_signal_ends_the_work_at_the_next_look() -> None:
    """
    The handlers of before are back afterwards.
    """
    before = signal.getsignal(signal.SIGTERM)
    with Stop() as stop, _bars(Console(file=io.StringIO())) as progress:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Stopped):
            ShownProgress(stop, progress).check()

    assert stop.signal is signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before
