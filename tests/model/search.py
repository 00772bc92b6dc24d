"""
Searches every state of `leases.pml` with spin, gcc and the searcher that they make.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MODEL = Path(__file__).with_name("leases.pml")
DEPTH = 100_000
SECONDS = 900

SAFETY = (["-DSAFETY", "-DNOCLAIM"], [])
# A part of what the searcher says -> what it means. The first that fits.
PROMISES = {
    "acceptance cycle": "I2: a row stays pending for ever",
    "dead||(copies[k]>0)": "I3: marked before its ack",
    "copies[2]>0)": "I4: a later row of the key comes first",
    "status[k]==0": "I5: what was produced becomes a dead letter, or the reverse",
    "rows[k])||": "I5: a stale term marks rows of another relay's lane",
    "<=(1+faults)": "I6: more copies than faults",
    "stalled": "I6: a lane passes on while something of it is under way",
    "nonce==relay[r].term": "I6: a relay publishes rows of another relay's lane",
}

# Every process that can always act does so in the end.
PROGRESS = (["-DNFAIR=5"], ["-a", "-f"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What to look for: a state that breaks a promise, or with `progress` an end without progress."""

    name: str
    faults: int
    rejections: int = 0
    lone_row: bool = False
    progress: bool = False
    wrong: str = ""
    """The name of a deliberate mistake."""

    @property
    def defines(self) -> list[str]:
        """For the preprocessor of the model."""
        names = ["LONE_ROW"] * self.lone_row + [self.wrong] * bool(self.wrong)
        return [
            f"-DFAULTS={self.faults}",
            f"-DREJECTIONS={self.rejections}",
            *(f"-D{name}" for name in names),
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a search printed, and what of it matters."""

    text: str

    @property
    def broken(self) -> str:
        """What was found to be wrong, or nothing."""
        found = re.search(r"^pan:\d+: (.*?)(?: \(at depth \d+\))?$", self.text, re.MULTILINE)
        return found[1] if found else ""

    @property
    def promise(self) -> str:
        """The promise that is broken, in words."""
        return next((words for part, words in PROMISES.items() if part in self.broken), "")

    @property
    def complete(self) -> bool:
        """Whether nothing was left out: neither for depth nor for memory nor for time."""
        return "errors: 0" in self.text and not re.search(
            r"max search depth too small|Search not completed|out of memory|truncated|pan: reached",
            self.text,
        )

    @property
    def states(self) -> int:
        """How many were seen."""
        return self._number(r"^ *([\d.e+]+) states, stored")

    @property
    def depth(self) -> int:
        """The longest path."""
        return self._number(r"depth reached (\d+)")

    @property
    def seconds(self) -> float:
        """How long the search took, without making the searcher."""
        found = re.search(r"elapsed time ([\d.e+]+) seconds", self.text)
        return float(found[1]) if found else 0.0

    def _number(self, pattern: str) -> int:
        found = re.search(pattern, self.text, re.MULTILINE)
        return int(float(found[1])) if found else 0


def search(what: Search, model: Path = MODEL) -> Found:
    """Every state of *model*, or the first that is wrong."""
    compile_options, options = PROGRESS if what.progress else SAFETY
    with tempfile.TemporaryDirectory(prefix="model-") as name:
        folder = Path(name)
        _run(["spin", *what.defines, "-a", str(model)], folder)
        # A search that is over at once is not worth a compiler's time.
        level = "-O0" if what.wrong or not what.faults else "-O1"
        _run(["gcc", level, "-w", "-DCOLLAPSE", *compile_options, "-o", "pan", "pan.c"], folder)
        return Found(text=_run(["./pan", f"-m{DEPTH}", *options], folder))


def _run(command: Sequence[str], folder: Path) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    if done.returncode != 0:
        raise AssertionError(f"{command[0]} failed:\n{done.stdout[-2000:]}")
    return done.stdout


QUICK = (
    Search(name="no fault", faults=0, rejections=1),
    Search(name="one fault", faults=1, rejections=1),
    Search(name="progress after one fault", faults=1, progress=True),
)
LONG = (
    Search(name="one fault, both lanes with rows", faults=1, lone_row=True),
    Search(name="two faults", faults=2),
)
WRONG = (
    *(
        Search(name=f"wrong: {name}", faults=1, rejections=1, wrong=name)
        for name in (
            "MARK_BEFORE_ACK",
            "MARK_ANY_STATUS",
            "MARK_ANY_TERM",
            "NO_TRUST_WINDOW",
            "TRUST_FROM_ANSWER",
            "CLOCK_THAT_STOPS",
            "GIVE_UNSETTLED",
            "OVERTAKE",
        )
    ),
    *(
        Search(name=f"wrong: {name}", faults=1, progress=True, wrong=name)
        for name in ("CURSOR_KEPT", "NO_EXPIRY")
    ),
)
