"""
docs/guide/websocket.md and the example's README: what they show runs.
"""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from examples.bookstore.__main__ import place_of
from examples.bookstore.auth import identify
from examples.bookstore.ws.router import load_handlers
from tests.bookstore.site import SECRET
from tests.pages import blocks_of
from tests.services.process import free_port

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "guide" / "websocket.md"
README = ROOT / "examples" / "bookstore" / "README.md"


async def test_the_guides_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Every Python block, in their order, on an empty SQLite file; only the port is another one.
    """
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "guide"}
    text = GUIDE.read_text().replace("8765", str(free_port()))
    for block in (block.text for block in blocks_of(text, "python")):
        code = compile(block, str(GUIDE), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        result = eval(code, names)
        if inspect.iscoroutine(result):
            await result


def test_the_guide_names_every_measure() -> None:
    """
    Its numbers are those of the settings.
    """
    from examples.bookstore.settings import Settings

    text = GUIDE.read_text()
    settings = Settings(database_url="x", jwt_secret=SECRET)

    assert f"above {settings.max_frame_bytes:,} bytes" in text
    assert f"a queue of {settings.queue_frames} frames" in text
    assert f"takes for {settings.send_seconds:g} seconds" in text
    assert f"within {settings.count_seconds:g} seconds" in text


def test_the_readmes_table_has_every_package_with_its_roles() -> None:
    """
    What a reader finds there is what the router asks for.
    """
    told = {}
    for line in README.read_text().splitlines():
        if re.match(r"\| `\w+` \| `", line):
            _, numbers, roles = line.rstrip(" |").rsplit(" | ", 2)
            for number in re.findall(r"\d+", numbers):
                told[int(number)] = set(re.findall(r"`([\w-]+)`", roles))

    assert told == {
        package.pkg_id.value: set(package.roles) for package in load_handlers().registrations()
    }


def test_the_readmes_targets_are_there() -> None:
    """
    Each `make` of the README does something, as `make -n` sees it.
    """
    targets = set(re.findall(r"^make ([\w-]+)|`make ([\w-]+)`", README.read_text(), re.MULTILINE))
    for first, second in targets:
        done = subprocess.run(
            ["make", "-n", "-o", ".venv/.dev", first or second],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, bool(done.stdout)) == (0, True), done.stderr


def test_the_readmes_token_is_one_of_the_store() -> None:
    """
    With its secret; without one it says what is missing.
    """
    [roles] = re.findall(r"examples\.bookstore\.auth ([\w -]+)", README.read_text())
    command = [sys.executable, "-m", "examples.bookstore.auth", *roles.split()]
    made, refused = (
        subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        for environment in ({"BOOKSTORE_JWT_SECRET": SECRET}, {})
    )

    assert identify(made.stdout.strip(), SECRET).roles == set(roles.split())
    assert refused.returncode == 2
    assert "BOOKSTORE_JWT_SECRET is not set" in refused.stderr


def test_servers_of_ones_own_are_all_named_or_none() -> None:
    """
    The command line's three addresses belong together.
    """
    from argparse import Namespace

    given = Namespace(database_url="a", invoices_url="b", bootstrap_servers="c", port=1)
    place = place_of(given, Path("x"))
    done = subprocess.run(
        [sys.executable, "-m", "examples.bookstore", "--bootstrap-servers", "localhost:1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (place.database_url, place.invoices_url, place.bootstrap_servers) == ("a", "b", "c")
    assert done.returncode == 2
    assert "or none of them" in done.stderr


@pytest.mark.parametrize(
    ("module", "missing"),
    [
        ("examples.bookstore.web", "BOOKSTORE_DATABASE_URL is not set"),
        ("examples.bookstore.invoices", "INVOICES_DATABASE_URL, INVOICES_BOOTSTRAP_SERVERS is not"),
    ],
)
def test_a_process_without_its_settings_says_so(module: str, missing: str) -> None:
    """
    Exit code 2, and the name of what is missing.
    """
    done = subprocess.run(
        [sys.executable, "-m", module],
        cwd=ROOT,
        env={},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, missing in done.stderr) == (2, True), done.stderr
