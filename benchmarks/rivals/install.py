"""
Installs the rivals that `make bench-rivals` measures: `python -m benchmarks.rivals.install`.

Kafka Connect with Debezium's connector comes with Maven, watermill's forwarder is built with Go.
Does nothing where both are there. Exits 1 and says what is missing where it cannot install them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tarfile
from pathlib import Path

from tests.services.install import (
    GO_PACKAGES,
    GO_SEARCHED,
    JAVA_PACKAGES,
    MAVEN_PACKAGES,
    CannotInstallError,
    draft_of,
    fetch_jars,
    install_missing,
    install_packages,
    run,
    say,
    tail,
)

HOME = Path(__file__).resolve().parents[2] / ".cache"
CONNECT = HOME / "connect"
FORWARDER = HOME / "watermill" / "forwarder"

CONNECT_POM = Path(__file__).with_name("connect-pom.xml")
FORWARDER_SOURCE = Path(__file__).with_name("watermill")

OLDEST_GO = (1, 23)
NEWER_GO = "golang.org/toolchain@v0.0.1-go1.24.9.linux-{architecture}"
"""A Go for machines whose own is too old for what is built, as newer ones fetch it by themselves."""


def install_connect(folder: Path = CONNECT) -> None:
    """Kafka Connect's jars in libs/ and Debezium's MariaDB connector in plugins/."""
    if (folder / "plugins").is_dir():
        return
    install_missing(JAVA_PACKAGES | MAVEN_PACKAGES)
    with draft_of(folder) as draft:
        fetch_jars("Kafka Connect and Debezium", CONNECT_POM, draft / "libs")
        (plugin,) = (draft / "libs").glob("debezium-connector-mariadb-*.tar.gz")
        with tarfile.open(plugin) as archive:
            archive.extractall(draft / "plugins", filter="data")
        plugin.unlink()


def install_forwarder(program: Path = FORWARDER) -> None:
    """watermill's forwarder, built again when its source is newer."""
    sources = max(path.stat().st_mtime for path in FORWARDER_SOURCE.iterdir())
    if program.exists() and program.stat().st_mtime > sources:
        return
    go = find_go()
    say("building watermill's forwarder")
    with draft_of(program.parent) as draft:
        command = [
            go,
            "build",
            "-C",
            str(FORWARDER_SOURCE),
            "-o",
            str(draft),
            "-buildvcs=false",
            ".",
        ]
        done = run(command, go_environment())
        if done.returncode != 0:
            raise CannotInstallError(
                f"missing: watermill's forwarder; `{' '.join(command)}` failed, is there a "
                f"network?\n{tail(done)}"
            )


def part_versions() -> list[str]:
    """Names with versions of what is installed: from the jars' names, from go.mod, from Java."""
    jars = {
        "Kafka Connect": CONNECT.glob("libs/connect-runtime-*.jar"),
        "Debezium": CONNECT.glob("plugins/*/debezium-connector-mariadb-*.jar"),
    }
    found = [f"{name} {next(paths).stem.rsplit('-', 1)[1]}" for name, paths in jars.items()]
    modules = (FORWARDER_SOURCE / "go.mod").read_text()
    for name, version in re.findall(r"ThreeDotsLabs/(watermill[a-z-]*)\S* v(\S+)", modules):
        found.append(f"{name} {version}")
    java = re.search(r'version "([^"]+)"', run(["java", "-version"]).stderr)
    return [*found, f"Java {java[1]}"] if java else found


def go_version(text: str) -> tuple[int, int]:
    """
    Major and minor version of what `go version` prints; (0, 0) when it names none.

    >>> go_version("go version go1.24.9 linux/amd64")
    (1, 24)
    """
    found = re.search(r"\bgo(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def find_go(what: str = "watermill", oldest: tuple[int, int] = OLDEST_GO) -> str:
    """The program of a Go that can build *what*, fetched where this machine's is older."""
    if shutil.which("go", path=GO_SEARCHED) is None:
        install_packages(GO_PACKAGES)
    go = shutil.which("go", path=GO_SEARCHED)
    if go is None:
        raise CannotInstallError("missing: go; install Go {}.{} or later".format(*oldest))
    version = run([go, "version"], go_environment())
    if go_version(version.stdout) >= oldest:
        return go
    return _fetch_newer_go(go, what)


def _fetch_newer_go(go: str, what: str) -> str:
    architecture = run([go, "env", "GOARCH"]).stdout.strip()
    module = NEWER_GO.format(architecture=architecture)
    say(f"fetching {module}: {go} is too old for {what}")
    done = run([go, "mod", "download", "-json", module], go_environment())
    if done.returncode != 0:
        raise CannotInstallError(f"missing: a newer Go; fetching one failed\n{tail(done)}")
    root = Path(json.loads(done.stdout)["Dir"])
    for program in [*root.glob("bin/*"), *root.glob("pkg/tool/*/*")]:
        program.chmod(0o755)  # a module's files are not executable
    return str(root / "bin" / "go")


def go_environment() -> dict[str, str]:
    """For a Go that was found or fetched: it fetches no other, and links no C library."""
    # A GOROOT of the caller's would belong to another Go than the one that was fetched.
    kept = {key: value for key, value in os.environ.items() if key != "GOROOT"}
    return {**kept, "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}


def main() -> int:
    """Install what is missing; the exit code."""
    problems = []
    for install in (install_connect, install_forwarder):
        try:
            install()
        except CannotInstallError as error:
            problems.append(str(error))
    for problem in problems:
        sys.stderr.write(f"{problem}\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
