"""
The wheel as a user gets it: built, and installed away from the source tree.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledWheel:
    """A virtual environment that holds the wheel; *home* is empty and far from the source tree."""

    wheel: Path
    python: Path
    command: Path
    home: Path

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Execute *arguments* in the empty folder and give back what they printed."""
        return subprocess.run(
            [str(argument) for argument in arguments],
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def build_wheel(folder: Path) -> Path:
    """Build the wheel of the source tree into *folder*."""
    # In isolation the build downloads its backend; with the backend here it needs no network.
    alone = ["--no-isolation"] if find_spec("hatchling") else []
    _run([sys.executable, "-m", "build", "--wheel", *alone, "--outdir", str(folder), str(ROOT)])
    (wheel,) = folder.glob("*.whl")
    return wheel


def install_wheel(wheel: Path, folder: Path, *, with_dependencies: bool) -> InstalledWheel:
    """A new virtual environment with the wheel, with or without what this test run can import."""
    environment, home = folder / "venv", folder / "home"
    home.mkdir()
    venv.create(environment, with_pip=False, symlinks=True)
    python = environment / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
    _run([*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel)])
    if with_dependencies:
        # After the install, or pip would take our editable install for the one to replace. A path
        # in a .pth file runs no .pth file of that folder, so the source tree stays out of sight.
        (site_packages,) = environment.glob("lib/python*/site-packages")
        paths = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
        (site_packages / "dependencies.pth").write_text("\n".join(paths) + "\n")
    return InstalledWheel(
        wheel=wheel, python=python, command=environment / "bin" / "outbox-relay", home=home
    )


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel built from the source tree, once per session."""
    return build_wheel(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="session")
def installed_wheel(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> InstalledWheel:
    """The wheel with all its dependencies, in an environment of its own."""
    return install_wheel(wheel, tmp_path_factory.mktemp("installed"), with_dependencies=True)


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, f"{command} failed:\n{done.stdout}{done.stderr}"
