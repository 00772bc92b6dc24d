"""
Installs what the deploy tests need beside the services: `python -m tests.deploy.install`, or with names
of packages these alone.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.rivals.install import find_go, go_environment, install_connect
from tests.deploy.chart import HELM
from tests.services.install import (
    CannotInstallError,
    draft_of,
    install_packages,
    missing_packages,
    run,
    say,
    tail,
)

# Debian package -> a program that it brings.
PACKAGES = {
    "buildah": ("buildah",),
    "docker-compose": ("docker-compose",),
    "mmdebstrap": ("mmdebstrap",),
    "prometheus": ("prometheus", "promtool"),
    "systemd": ("systemd-analyze",),
}

HELM_MODULE = "helm.sh/helm/v3/cmd/helm@v3.19.5"
HELM_GO = (1, 24)


def install_helm(program: Path = HELM) -> None:
    """Build it with Go."""
    if program.exists():
        return
    go = find_go("Helm", HELM_GO)
    say("building Helm")
    with draft_of(program.parent) as draft:
        environment = {**go_environment(), "GOBIN": str(draft), "GOFLAGS": "-trimpath"}
        done = run([go, "install", HELM_MODULE], environment)
        if done.returncode != 0:
            raise CannotInstallError(
                f"missing: helm; `go install {HELM_MODULE}` failed, is there a network?\n{tail(done)}"
            )


def main(only: Sequence[str]) -> int:
    """Install what is missing, or *only* packages of these names; the exit code."""
    wanted = {name: programs for name, programs in PACKAGES.items() if not only or name in only}
    try:
        if names := missing_packages(wanted):
            install_packages(names)
        if not only:
            install_connect()
            install_helm()
    except CannotInstallError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
