"""
docs/guide/first-event.md: its files and commands, from an empty folder, with the installed wheel.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

from tests.integration.guide_programs import GUIDE, programs

PAGE = "first-event.md"


def commands() -> str:
    """The page's commands after the installation, as one script."""
    install, *rest = re.findall(r"```sh\n(.*?)```", (GUIDE / PAGE).read_text(), re.DOTALL)
    assert 'pip install "outbox-relay[demo]"' in install
    return "\n".join(rest)


def test_the_page_works_as_it_stands(installed_wheel, tmp_path):
    """
    One order is placed and one rolled back; a consumer sees the first one's event.
    """
    for name, text in programs(PAGE).items():
        (tmp_path / name).write_text(text)
    # Only the port of /metrics is another: a relay of this machine may have the usual one.
    own = {
        "OUTBOX_RELAY_HTTP__PORT": "0",
        "PATH": f"{installed_wheel.command.parent}:{os.environ['PATH']}",
    }
    shell = subprocess.Popen(
        # With job control, as a terminal has it: `kill %1` means the first of them.
        ["bash", "-e", "-m", "-c", commands()],
        cwd=tmp_path,
        env={**os.environ, **own},
        stdout=subprocess.PIPE,
        stderr=(tmp_path / "stderr").open("wb"),
        text=True,
        start_new_session=True,
    )
    try:
        printed, _ = shell.communicate(timeout=60)
    finally:
        end_session(shell.pid)

    said = printed + (tmp_path / "stderr").read_text()
    assert shell.returncode == 0, said
    assert "order 1 is committed, and so is its event" in printed
    assert "rolled back, order and event" in said
    assert 'order.placed 1 {"order_id":1,"total":42}' in printed


def end_session(session: int) -> None:
    """Kill what the page started, also where a command of it failed."""
    for pid in [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]:
        try:
            if os.getsid(pid) == session:
                os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
