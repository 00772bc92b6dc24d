"""
The way of a newcomer, `python -m tests.newcomer`: each command of the pages as it is printed, in a fresh clone.

Prints how long each took. Exits with 1 at the first that fails.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.results import machine, today
from tests.newcomer.servers import Servers, running
from tests.newcomer.terminal import Terminal
from tests.newcomer.walk import PageError, Reader, Step
from tests.pages import ROOT
from tests.services.process import MissingPartError

# The pages in their order; the blocks that are left out, by how they begin, and why.
PAGES: dict[str, dict[str, str]] = {
    "README.md": {
        "from decimal": "a part of a program; the guide has a whole one",
        "# config.toml": "as in docs/guide/sidecar.md",
        "outbox-relay migrate": "step by step in docs/guide/sidecar.md",
        "inbox = ": "a part of a program; docs/guide/consuming.md has a whole one",
        "make test": "for who develops it",
    },
    "docs/guide/first-event.md": {},
    "docs/guide/sidecar.md": {"docker run": "instead of the blocks before it; needs Docker"},
}

PROMISED_SECONDS = 15 * 60
OURS = ("MAKE", "MFLAGS", "OUTBOX_RELAY_", "PYTHON", "VIRTUAL_ENV")
"""How the names of variables begin that a newcomer's shell does not have."""


def main() -> int:
    """0 if the way can be walked, in the time that is promised."""
    try:
        with running() as servers, tempfile.TemporaryDirectory(prefix="newcomer-") as folder:
            steps = list(_told(_walk(Path(folder), servers)))
    except (PageError, MissingPartError, EOFError, TimeoutError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    for page, apart in PAGES.items():
        for start, why in apart.items():
            print(f"not walked: {page}, the block `{start}...`: {why}")
    print(_summary(steps, servers.versions))
    total = sum(step.seconds for step in steps)
    return 0 if total < PROMISED_SECONDS else 1


def _walk(folder: Path, servers: Servers) -> Iterator[Step]:
    clone = folder / "outbox-relay"
    began = time.monotonic()
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    yield Step(page="README.md", command="git clone", seconds=time.monotonic() - began)
    scratch = folder / "scratch"
    scratch.mkdir()
    with Terminal(clone, scratch=scratch, environment=_environment(servers, scratch)) as terminal:
        reader = Reader(terminal=terminal, moved=servers.moved, administer=servers.administer)
        for page, apart in PAGES.items():
            yield from reader.walk(page, apart=apart)


def _environment(servers: Servers, scratch: Path) -> Mapping[str, str]:
    """A newcomer's: without our interpreter, our settings, and what pip has fetched before."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    own = str(Path(sys.executable).parent)
    path = [part for part in os.environ["PATH"].split(os.pathsep) if part != own]
    return {
        **kept,
        "PATH": os.pathsep.join([str(servers.programs), *path]),
        "PIP_CACHE_DIR": str(scratch / "pip"),
        "OUTBOX_RELAY_HTTP__PORT": str(servers.http_port),
    }


def _told(steps: Iterator[Step]) -> Iterator[Step]:
    total = 0.0
    print(f"{'page':<26}  {'command':<72}  seconds  total")
    for step in steps:
        total += step.seconds
        command = " ".join(step.command.replace("\\\n", " ").split())
        print(f"{step.page:<26}  {command[:72]:<72}  {step.seconds:7.1f}  {total:5.0f}", flush=True)
        yield step


def _summary(steps: Sequence[Step], versions: str) -> str:
    """The seconds of each page and in all, and what they depend on."""
    of_page = {page: sum(s.seconds for s in steps if s.page == page) for page in PAGES}
    pages = "".join(f"\n{page}: {seconds:.0f} s" for page, seconds in of_page.items())
    here = machine()
    return (
        f"{pages}\nin all: {sum(of_page.values()):.0f} s\n"
        f"{today()}, {here['cores']} cores of {here['processor']}, {here['memory_gb']} GB, {here['system']}, "
        f"Python {platform.python_version()}, {versions}"
    )


if __name__ == "__main__":
    sys.exit(main())
