"""What the deploy tests share."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from tests.deploy.account import Seen, table
from tests.deploy.chart import HELM
from tests.deploy.image import Container, Image
from tests.services.process import MissingPartError


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What the runbook's tests saw, as a table."""
    seen = [
        Seen.from_text(str(value))
        for report in terminalreporter.getreports("passed")
        for name, value in report.user_properties
        if name == Seen.PROPERTY
    ]
    if seen:
        terminalreporter.section("the runbook: each alert's fault, and its section's commands")
        for line in table(seen):
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def image() -> Iterator[Image]:
    """The image, built once; its files live until the session ends."""
    with tempfile.TemporaryDirectory(prefix="outbox-image-") as folder:
        try:
            built = Image(Path(folder))
        except MissingPartError as missing:
            pytest.skip(str(missing))
        Path(folder).chmod(0o755)  # the container's user enters it
        try:
            built.build()
            yield built
        finally:
            built.close()


@pytest.fixture
def start_container(image: Image, tmp_path: Path) -> Iterator[Callable[..., Container]]:
    """Starts containers, and ends those that still run."""
    started: list[Container] = []

    def start(environment: Mapping[str, str], command: Sequence[str] | None = None) -> Container:
        log = tmp_path / f"container-{len(started)}.log"
        started.append(image.start(log, environment=environment, command=command))
        return started[-1]

    yield start
    for container in started:
        container.end()


@pytest.fixture
def helm_installed() -> None:
    """The test needs Helm."""
    if not HELM.exists() and shutil.which("helm") is None:
        pytest.skip("helm is not installed; run: python -m tests.deploy.install")


def fetch(url: str, *, seconds: float = 30) -> str:
    """The answer of *url*, asked until it comes."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urlopen(url, timeout=5) as answer:
                return str(answer.read().decode())
        except (URLError, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def check(*command: str | Path) -> str:
    """Run a checker that must be content; what it printed."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, f"{command} refuses:\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr
