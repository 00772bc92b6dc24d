"""
What the image installs is pinned by hash, at the versions that the tests ran with.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "deploy" / "image" / "requirements.txt"
BUILD_LOCK = ROOT / "deploy" / "image" / "build-requirements.txt"
PINS = re.compile(r"^([A-Za-z0-9_.-]+)==([^\s;]+)", re.MULTILINE)


def canonical(name: str) -> str:
    """As PEP 503 writes it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(path: Path) -> dict[str, str]:
    """Each package with its version."""
    return {canonical(name): version for name, version in PINS.findall(path.read_text())}


def extras() -> list[str]:
    """Those that the image has by default."""
    [listed] = re.findall(r"^ARG EXTRAS=(.+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    return listed.split(",")


def test_every_package_that_is_asked_for_is_there():
    """
    One that is not would be installed without a hash. Written anew by: make image-lock
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = list(project["dependencies"])
    for extra in extras():
        asked += project["optional-dependencies"][extra]
    names = {canonical(re.match(r"[A-Za-z0-9_.-]+", line)[0]) for line in asked}

    assert names - pins(LOCK).keys() == set()


@pytest.mark.parametrize("lock", [LOCK, BUILD_LOCK], ids=lambda path: path.name)
def test_versions_are_those_of_the_tests(lock):
    """
    constraints.txt says which; what stands in both is the same. Written anew by: make image-lock
    """
    tested = pins(ROOT / "constraints.txt")

    assert {name: version for name, version in pins(lock).items() if name in tested} == {
        name: tested[name] for name in pins(lock) if name in tested
    }


@pytest.mark.parametrize("lock", [LOCK, BUILD_LOCK], ids=lambda path: path.name)
def test_every_package_has_hashes_and_no_registry_is_named(lock):
    """
    Whichever registry or mirror gives a file, it is the file that was meant.
    """
    text = lock.read_text()
    entries = re.split(r"\n(?=\S)", text.strip())

    assert len(entries) == len(pins(lock))
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in text
    assert "index" not in text


def test_make_locks_what_the_image_installs():
    """
    The same extras in both.
    """
    makefile = (ROOT / "Makefile").read_text().partition("\nimage-lock:")[2].partition("-o ")[0]

    assert re.findall(r"--extra (\w+)", makefile) == extras()
