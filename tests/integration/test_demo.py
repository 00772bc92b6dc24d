"""
The demo as a whole: trouble is made, the account balances, and nothing is left behind.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from outbox_relay.demo.scenario import run_demo
from outbox_relay.demo.stage import Stage

DEMO = (sys.executable, "-m", "outbox_relay", "demo", "--plain")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the demo, here or in a process of its own, puts its files."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield tmp_path
    tempfile.tempdir = None


def run(capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = run_demo(seconds=8, plain=True, console=Console(width=100, force_terminal=False))
    return code, capsys.readouterr().out


def test_the_account_balances_in_spite_of_the_trouble(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    A frozen broker and a killed relay later, the account balances; exit code 0, no file is left.
    """
    code, shown = run(capsys)

    assert "The account balances" in shown, shown
    assert code == 0
    assert "SIGSTOP" in shown
    assert "kill -9" in shown
    assert list(folder.iterdir()) == []


def test_an_account_that_does_not_balance_fails_the_demo(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A lost event makes the exit code 1, and the files stay so that somebody can look.
    """

    async def account_with_a_lost_event(stage: Stage) -> object:
        stage.consumer.delivered = [
            entry for entry in stage.consumer.delivered if entry != stage.consumer.delivered[-1]
        ]
        return await honest_account(stage)

    honest_account = Stage.account
    monkeypatch.setattr(Stage, "account", account_with_a_lost_event)
    code, shown = run(capsys)

    assert code == 1
    assert "does not balance" in shown
    (kept,) = folder.iterdir()
    assert str(kept) in shown
    with closing(sqlite3.connect(kept / "shop.db")) as database:
        assert database.execute("SELECT count(*) FROM orders").fetchone()[0] > 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
async def test_an_interrupted_demo_leaves_nothing(folder: Path, number: signal.Signals) -> None:
    """
    Ctrl-C and SIGTERM end the demo with 130, its processes with it, and remove its files.
    """
    # A shell starts what runs in the background with SIGINT ignored, and so would start the demo.
    demo = await asyncio.create_subprocess_exec(
        *DEMO,
        stdout=asyncio.subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert demo.stdout is not None
    while "taken away" not in (line := (await demo.stdout.readline()).decode()):
        assert line, "the demo ended early"
    children = psutil.Process(demo.pid).children(recursive=True)
    os.kill(demo.pid, number)
    await demo.communicate()
    _, alive = await asyncio.to_thread(psutil.wait_procs, children, timeout=30)

    assert demo.returncode == 130
    assert len(children) == 3
    assert alive == []
    assert list(folder.iterdir()) == []


async def test_a_relay_that_dies_of_itself_is_reported(folder: Path) -> None:
    """
    A process that ends unasked ends the demo with 1, and the end of its log is shown.
    """
    # Long, so that the demo does not kill the relay itself before it is seen at work.
    demo = await asyncio.create_subprocess_exec(
        *DEMO, "--seconds", "120", stdout=asyncio.subprocess.PIPE
    )
    assert demo.stdout is not None
    # Before its first event is acked it may still be on its way from a fork to its own program.
    while not re.search(r"acked [1-9]", line := (await demo.stdout.readline()).decode()):
        assert line, "the demo ended early"
    (relay,) = (
        child
        for child in psutil.Process(demo.pid).children(recursive=True)
        if "run" in child.cmdline()
    )
    relay.kill()
    shown, _ = await demo.communicate()

    assert demo.returncode == 1
    assert b"the relay ended by itself" in shown
    assert len(list(folder.iterdir())) == 1
