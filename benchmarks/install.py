"""
Installs what the benchmarks start besides the tests' services: `python -m benchmarks.install`.

toxiproxy is built by Go, into `.cache`. Does nothing where it is there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.toxiproxy import MODULE, PROGRAM
from tests.services.install import CannotInstallError, install_packages, say

GO_PACKAGES = ("golang-go",)
GO_SEARCHED = f"{os.environ.get('PATH', '')}:/usr/local/go/bin"


def install_toxiproxy(program: Path = PROGRAM) -> None:
    """Build it with Go, which is installed where it is missing."""
    if program.exists():
        return
    if shutil.which("go", path=GO_SEARCHED) is None:
        install_packages(GO_PACKAGES)
    go = shutil.which("go", path=GO_SEARCHED)
    if go is None:
        raise CannotInstallError("go is not installed")
    say("building toxiproxy")
    program.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=program.parent) as draft:
        done = subprocess.run(
            [go, "install", MODULE],
            env={**os.environ, "GOBIN": draft, "GOFLAGS": "-trimpath"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise CannotInstallError(f"missing: toxiproxy; `go install {MODULE}`:\n{done.stderr}")
        (Path(draft) / program.name).rename(program)


def main() -> int:
    """Install what is missing; the exit code."""
    try:
        install_toxiproxy()
    except CannotInstallError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
