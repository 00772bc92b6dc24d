"""
Releases of python-cqrs, each in a virtual environment of its own: they need older versions of what we use.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pymysql

from tests.services.database import Database
from tests.services.process import MissingPartError

RELEASES = ("0.0.15", "1.0.0", "4.9.0", "5.3.0")
HOME = Path(__file__).resolve().parents[2] / ".cache" / "python-cqrs"
REQUIREMENTS = Path(__file__).with_name("python-cqrs")
PROGRAM = REQUIREMENTS / "program.py"
SECONDS = 120.0


def _folder(release: str) -> Path:
    """Of these requirements: others have another one."""
    wanted = hashlib.sha256((REQUIREMENTS / f"{release}.txt").read_bytes()).hexdigest()[:8]
    return HOME / f"{release}-{wanted}"


def python_of(release: str) -> Path:
    """Its interpreter. Raises MissingPartError if it is not installed."""
    python = _folder(release) / "bin" / "python"
    if not python.exists():
        raise MissingPartError(
            f"python-cqrs {release} is not installed; run: python -m tests.services.install"
        )
    return python


def install(release: str) -> None:
    """Into the cache, all of it or nothing."""
    HOME.mkdir(parents=True, exist_ok=True)
    with (HOME / f"{release}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = _folder(release)
        if (folder / "bin" / "python").exists():
            return
        draft = HOME / f"{release}.draft"
        shutil.rmtree(draft, ignore_errors=True)
        for command in (
            [sys.executable, "-m", "venv", str(draft)],
            [
                *(str(draft / "bin" / "python"), "-m", "pip", "install", "--quiet"),
                *("--disable-pip-version-check", "--no-deps", "-r"),
                str(REQUIREMENTS / f"{release}.txt"),
            ],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise MissingPartError(
                    f"python-cqrs {release} cannot be installed, is there a network?\n"
                    f"`{' '.join(command)}`: {done.stderr[-2000:]}"
                )
        # Of what is in it only scripts name the folder, and none of them is run.
        draft.rename(folder)


def command(release: str, database: Database, *steps: dict[str, Any], **argument: Any) -> list[str]:
    """What takes *steps* in a process of that release."""
    told = {"steps": steps, "url": database.async_url} | argument
    return [str(python_of(release)), str(PROGRAM), json.dumps(told)]


def environment() -> dict[str, str]:
    """Of such a process: it reads settings of its own from there."""
    return {name: value for name, value in os.environ.items() if "OUTBOX" not in name}


def run(release: str, database: Database, *steps: dict[str, Any], **argument: Any) -> Any:
    """Take *steps* in a process of that release; see `program.py` beside the requirements."""
    done = subprocess.run(
        command(release, database, *steps, **argument),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        cwd=REQUIREMENTS,
        env=environment(),
    )
    if done.returncode != 0:
        raise AssertionError(f"python-cqrs {release} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def give_uuid_to_bin(root: pymysql.Connection[Any]) -> None:
    """MySQL's function, which MariaDB has not and releases before 4.10.1 insert with."""
    with root.cursor() as cursor:
        cursor.execute(
            "CREATE OR REPLACE FUNCTION UUID_TO_BIN(id CHAR(36)) RETURNS BINARY(16) DETERMINISTIC "
            "NO SQL RETURN UNHEX(REPLACE(id, '-', ''))"
        )
