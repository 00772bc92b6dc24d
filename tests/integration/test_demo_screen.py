"""
The demo's screen: fits the terminals it is shown on, and says what happened.
"""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from outbox_relay.demo.account import Account
from outbox_relay.demo.progress import Progress, percentile
from outbox_relay.demo.screen import PlainScreen, account_table, picture, sparkline, verdict

BALANCED = Account(
    committed=1200,
    rolled_back=130,
    delivered=1200,
    ghosts=0,
    lost=0,
    order_violations=0,
    duplicates=14,
)
BROKEN = Account(
    committed=1200,
    rolled_back=130,
    delivered=1199,
    ghosts=0,
    lost=1,
    order_violations=0,
    duplicates=14,
)


def console(width: int = 80, encoding: str = "utf-8") -> Console:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)
    return Console(file=file, width=width)


def printed(to: Console) -> str:
    assert isinstance(to.file, io.TextIOWrapper)
    buffer = to.file.buffer
    assert isinstance(buffer, io.BytesIO)
    return buffer.getvalue().decode(to.file.encoding)


def late_progress() -> Progress:
    progress = Progress(total_seconds=25, elapsed_seconds=24.2, committed=123_456, backlog=98_765)
    progress.parts |= {"shop": "running", "relay": "killed", "broker": "frozen"}
    progress.backlogs.extend(range(400))
    progress.latencies = [0.01] * 98 + [4.0] * 2
    for number in range(9):
        progress.note(f"note {number} " + "x" * 90)
    return progress


@pytest.mark.parametrize("ascii_only", [False, True])
@pytest.mark.parametrize("progress", [Progress(total_seconds=25), late_progress()])
def test_the_picture_fits_a_small_terminal(progress: Progress, ascii_only: bool) -> None:
    """
    The live picture fits 80 columns and 24 lines and keeps its height, whatever it shows.
    """
    small = console(encoding="ascii" if ascii_only else "utf-8")

    small.print(picture(progress, width=80, ascii_only=ascii_only))

    lines = printed(small).splitlines()
    assert len(lines) == 20
    assert max(map(len, lines)) <= 80


def test_the_picture_shows_numbers_and_newest_notes() -> None:
    """
    Counts, backlog, latency, the state of each part and the newest notes are on the screen.
    """
    screen = console()

    screen.print(picture(late_progress(), width=80))

    shown = printed(screen)
    for text in ("123,456", "98,765", "10 ms", "4,000 ms", "relay killed", "broker frozen"):
        assert text in shown
    assert "note 8" in shown
    assert "note 0" not in shown


def test_plain_prints_a_line_a_second_and_each_note_once() -> None:
    """
    Without a terminal there is one line a second, and one for each thing that happens.
    """
    progress = Progress(total_seconds=25)
    progress.note("the shop takes orders")
    output = console()
    with PlainScreen(output) as screen:
        for tenths in range(20):
            progress.elapsed_seconds = tenths / 10
            screen.show(progress)

    shown = printed(output)
    assert shown.count("committed 0") == 2
    assert shown.count("the shop takes orders") == 1


@pytest.mark.parametrize(
    ("account", "encoding", "mark", "words"),
    [
        (BALANCED, "utf-8", "✓", "balances"),
        (BALANCED, "ascii", "ok", "balances"),
        (BROKEN, "utf-8", "✗", "does not balance"),
        (BROKEN, "ascii", "no", "does not balance"),
    ],
)
def test_the_account_says_whether_it_balances(
    account: Account, encoding: str, mark: str, words: str
) -> None:
    """
    Each rule has a mark and the last sentence draws the conclusion, on any terminal.
    """
    output = console(encoding=encoding)

    output.print(account_table(account, ascii_only=output.options.ascii_only))
    output.print(verdict(account))

    shown = printed(output)
    assert mark in shown
    assert words in shown
    assert f"{account.committed:,}" in shown


def test_sparkline_shows_the_newest_values_scaled_to_the_highest() -> None:
    """
    As many columns as asked for; anything above zero is visible.
    """
    assert sparkline([9, 0, 1, 1000], columns=3) == " ▁█"
    assert sparkline([], columns=3) == ""
    assert sparkline([0, 0], columns=3) == "  "


def test_percentiles() -> None:
    """
    A percentile is one of the values; without values there is none.
    """
    assert percentile([], 0.5) is None
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([3.0, 1.0, 2.0], 0.99) == 3.0
