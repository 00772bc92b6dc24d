"""
The image of the Dockerfile, built without a container engine, and containers of it.

buildah builds it, with a base made by mmdebstrap in the place of the one that the Dockerfile names.
`buildah run` runs single commands. A container whose process is number 1, on a root that cannot be
written, is made with unshare and chroot.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.services.process import MissingPartError

ROOT = Path(__file__).resolve().parents[2]
BASE_ARCHIVE = ROOT / ".cache" / "deploy" / "bookworm.tar"
BASE = "localhost/base"
NAME = "localhost/outbox-relay"
PROGRAMS = ("buildah", "mmdebstrap", "unshare")

# Read by the build where they exist: the machine's certificates, and how it reaches the registry.
BUILD_FILES = (Path("/etc/ssl/certs"), Path("/etc/pip.conf"))

ENTER = """
set -e
mount --bind "$1" "$1"
mount -o remount,bind,ro "$1"
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
root="$1"; user="$2"; shift 2
exec chroot --userspec="$user" "$root" "$@"
"""


@dataclass(frozen=True, slots=True)
class Container:
    """A container under way; *pid* is what its process 1 is called outside of it."""

    launcher: subprocess.Popen[bytes]
    pid: int
    log: Path

    def status(self) -> dict[str, str]:
        """What the kernel says of its process 1: NSpid, Uid, CapEff, VmRSS and more."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def stop(self) -> tuple[int, float]:
        """SIGTERM to its process 1; its exit code, and how long it took."""
        started = time.monotonic()
        os.kill(self.pid, signal.SIGTERM)
        code = self.launcher.wait(timeout=60)
        return code, time.monotonic() - started

    def end(self) -> None:
        """Whatever state it is in."""
        self.launcher.kill()  # and with it what it launched
        self.launcher.wait()


class Image:
    """The image, its configuration and its files. `build` first."""

    def __init__(self, folder: Path) -> None:
        for program in PROGRAMS:
            if shutil.which(program) is None:
                raise MissingPartError(
                    f"{program} is not installed; run: python -m tests.deploy.install"
                )
        if os.geteuid() != 0:
            raise MissingPartError("building the image without a container engine needs root")
        self._folder = folder
        self._container = ""
        self.files = Path()

    def build(self) -> None:
        """Build it as the Dockerfile says, on a base of Debian packages."""
        _make_base_archive()
        scratch = self._buildah("from", "scratch")
        self._buildah("add", "-q", scratch, str(BASE_ARCHIVE))
        self._buildah("commit", "-q", scratch, BASE)
        self._buildah("rm", scratch)
        mounts = [f"--volume={path}:{path}:ro" for path in BUILD_FILES if path.exists()]
        settings = ["--pull=never", "--network=host", f"--build-arg=BASE={BASE}"]
        settings.append("--build-arg=COMPILER=gcc libc6-dev zlib1g-dev python3-dev")
        self._buildah("build", *settings, *mounts, "-t", NAME, str(ROOT))
        self._container = self._buildah("from", "--pull-never", NAME)
        self.files = Path(self._buildah("mount", self._container))

    @property
    def config(self) -> dict[str, Any]:
        """User, Entrypoint, Cmd, Env and what else the image says of itself."""
        said = json.loads(self._buildah("inspect", "--type=image", NAME))
        config: dict[str, Any] = said["OCIv1"]["config"]
        return config

    def layer_bytes(self) -> tuple[int, int]:
        """The size of its base, and of what the Dockerfile adds to it; both uncompressed."""
        said = json.loads(self._buildah("inspect", "--type=image", NAME))
        base, *added = (layer["size"] for layer in json.loads(said["Manifest"])["layers"])
        return base, sum(added)

    def run(
        self,
        *command: str,
        environment: Mapping[str, str] | None = None,
        volumes: Sequence[str] = (),
    ) -> subprocess.CompletedProcess[str]:
        """Run *command* in it as the image's user, to its end."""
        options = [f"--env={name}={value}" for name, value in (environment or {}).items()]
        options += [f"--volume={volume}" for volume in volumes]
        return self._call("run", *options, self._container, "--", *command)

    def start(
        self, log: Path, *, environment: Mapping[str, str], command: Sequence[str] | None = None
    ) -> Container:
        """Start its entry point, or *command*, as process 1 on a root that cannot be written."""
        config = self.config
        arguments = command or [*config["Entrypoint"], *config["Cmd"]]
        settings = dict(setting.split("=", 1) for setting in config["Env"]) | dict(environment)
        isolate = ["unshare", "--pid", "--fork", "--kill-child", "--mount", "--ipc", "--uts"]
        enter = ["sh", "-c", ENTER, "enter", str(self.files), config["User"], *arguments]
        with log.open("ab") as output:
            launcher = subprocess.Popen(
                [*isolate, *enter],
                env={**settings, "PATH": f"{settings['PATH']}:/usr/sbin:/sbin"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        return Container(launcher=launcher, pid=_child(launcher), log=log)

    def close(self) -> None:
        """Remove the containers and the images."""
        self._call("umount", "--all")
        self._call("rm", "--all")
        self._call("rmi", "--all", "--force")

    def _buildah(self, *arguments: str) -> str:
        done = self._call(*arguments)
        assert done.returncode == 0, f"buildah {arguments[0]} failed:\n{done.stdout}{done.stderr}"
        return done.stdout.strip()

    def _call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        storage = ["--root", str(self._folder / "graph"), "--runroot", str(self._folder / "run")]
        return subprocess.run(
            ["buildah", *storage, *arguments],
            env={**os.environ, "BUILDAH_ISOLATION": "chroot"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )


def _make_base_archive() -> None:
    if BASE_ARCHIVE.exists():
        return
    BASE_ARCHIVE.parent.mkdir(parents=True, exist_ok=True)
    draft = BASE_ARCHIVE.with_suffix(".new.tar")
    packages = "--include=python3,python3-venv,ca-certificates"
    command = ["mmdebstrap", "--quiet", "--variant=minbase", packages, "bookworm", str(draft)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"mmdebstrap failed:\n{done.stdout}{done.stderr}"
    draft.rename(BASE_ARCHIVE)


def _child(launcher: subprocess.Popen[bytes]) -> int:
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children")
    while launcher.poll() is None:
        if found := children.read_text().split():
            return int(found[0])
        time.sleep(0.001)
    return 0
