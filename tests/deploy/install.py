"""
Installs what the deploy tests need beside the services: `python -m tests.deploy.install`.
"""

from __future__ import annotations

import sys

from benchmarks.rivals.install import install_connect
from tests.services.install import CannotInstallError, install_packages, missing_packages

# Debian package -> a program that it brings.
PACKAGES = {
    "buildah": ("buildah",),
    "docker-compose": ("docker-compose",),
    "mmdebstrap": ("mmdebstrap",),
    "prometheus": ("prometheus", "promtool"),
    "systemd": ("systemd-analyze",),
}


def main() -> int:
    """Install what is missing; the exit code."""
    try:
        if names := missing_packages(PACKAGES):
            install_packages(names)
        install_connect()
    except CannotInstallError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
