"""
What `make bench-rivals` installs where it is missing.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from benchmarks.rivals import install
from tests.services.install import CannotInstallError

NEWER = "v0.0.1-go1.24.9.linux-arm64"


class FakeGo:
    """Stands for `run`: answers as a Go of one version, and notes what it was asked."""

    def __init__(self, folder: Path, version: str, *, build_fails: bool = False) -> None:
        self.asked: list[list[str]] = []
        self._version = version
        self._newer = folder / "newer"
        self._build_fails = build_fails
        for name in ("bin/go", "pkg/tool/linux_arm64/compile"):
            (self._newer / name).parent.mkdir(parents=True)
            (self._newer / name).touch(mode=0o444)

    @property
    def newer(self) -> str:
        """The program of the Go that it fetches."""
        return str(self._newer / "bin" / "go")

    def __call__(self, command, environment=None):
        """One command."""
        self.asked.append(command)
        match command[1]:
            case "version":
                return _done(f"go version go{self._version} linux/arm64")
            case "env":
                return _done("arm64\n")
            case "mod":
                return _done(json.dumps({"Dir": str(self._newer)}))
            case "build":
                if self._build_fails:
                    return subprocess.CompletedProcess(command, 1, "", "no network")
                (Path(command[command.index("-o") + 1]) / "forwarder").write_text("built")
        return _done("")


def _done(text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.CompletedProcess([], 0, text, "")


@pytest.fixture
def go(tmp_path, monkeypatch):
    """Makes a Go of a version the one that is found."""

    def make(version: str, **kwargs) -> FakeGo:
        fake = FakeGo(tmp_path, version, **kwargs)
        monkeypatch.setattr(install, "run", fake)
        monkeypatch.setattr(install.shutil, "which", lambda *_, **__: "go")
        return fake

    return make


def test_the_forwarder_is_built_with_the_go_that_is_there(go, tmp_path):
    """
    A Go that is new enough fetches no other.
    """
    fake = go("1.23.4")
    program = tmp_path / "watermill" / "forwarder"

    install.install_forwarder(program)

    assert program.read_text() == "built"
    assert [command[:2] for command in fake.asked] == [["go", "version"], ["go", "build"]]


def test_an_old_go_fetches_a_newer_one(go, tmp_path):
    """
    Debian 12's Go is too old for watermill: it fetches the one that builds.
    """
    fake = go("1.19.8")

    install.install_forwarder(tmp_path / "watermill" / "forwarder")

    assert ["go", "mod", "download", "-json", f"golang.org/toolchain@{NEWER}"] in fake.asked
    assert fake.asked[-1][:2] == [fake.newer, "build"]
    assert all(path.stat().st_mode & 0o111 for path in (tmp_path / "newer").rglob("*[oe]"))


def test_a_forwarder_that_is_there_is_not_built_again(go, tmp_path):
    """
    Only a newer source is a reason to build.
    """
    fake = go("1.24.0")
    program = tmp_path / "watermill" / "forwarder"
    install.install_forwarder(program)
    fake.asked.clear()

    install.install_forwarder(program)

    assert fake.asked == []


def test_a_build_that_fails_leaves_nothing_and_says_why(go, tmp_path):
    """
    The next try builds again.
    """
    go("1.24.0", build_fails=True)
    program = tmp_path / "watermill" / "forwarder"

    with pytest.raises(CannotInstallError, match=r"go build.*failed.*\nno network"):
        install.install_forwarder(program)

    assert not program.exists()


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("go version go1.19.8 linux/amd64", (1, 19)),
        ("go version go1.26.8-custom linux/arm64", (1, 26)),
        ("go version devel +abc", (0, 0)),
    ],
)
def test_versions_of_go(text, version):
    """
    A Go that tells no version counts as too old.
    """
    assert install.go_version(text) == version
