"""
Mutation testing of the functions that decide: `make mutants`.

mutmut changes one thing at a time in a copy of them (which: `[tool.mutmut]` in pyproject.toml) and runs the
tests that come there. Exits 1 if a change goes unnoticed that `tests/mutants.toml` does not explain, or if
one that is explained there was noticed, or is no more. A mutant that never comes to an end is noticed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

EXPLAINED = Path(__file__).with_name("mutants.toml")
COPY = Path("mutants")
MUTMUT = str(Path(sys.executable).with_name("mutmut"))
NOTICED = {"killed", "timeout"}


class Mutant(NamedTuple):
    """One change: where, the lines that it takes away, and those that it puts there."""

    function: str
    was: str
    now: str

    def __str__(self) -> str:
        return f"{self.function}\n  - {self.was}\n  + {self.now}"


def explained() -> dict[Mutant, str]:
    """What may survive, with the reason."""
    rows = tomllib.loads(EXPLAINED.read_text(encoding="utf-8"))["mutant"]
    return {Mutant(row["function"], row["was"], row["is"]): row["reason"] for row in rows}


def readable(name: str) -> str:
    """
    The function of a mutant.

    >>> readable("a.b.x_f__mutmut_3"), readable("a.b.xǁClassǁ__init____mutmut_12")
    ('a.b.f', 'a.b.Class.__init__')
    """
    module, _, rest = name.rpartition(".")
    rest = re.sub(r"__mutmut_\d+$", "", rest)
    return f"{module}.{rest[2:].replace('ǁ', '.')}"


def mutant(name: str, diff: str) -> Mutant:
    """The mutant that mutmut shows as *diff*."""
    lines = [line for line in diff.splitlines() if not line.startswith(("---", "+++"))]
    was = " ".join(line[1:].strip() for line in lines if line.startswith("-"))
    now = " ".join(line[1:].strip() for line in lines if line.startswith("+"))
    return Mutant(readable(name), was, now)


def _mutmut(*arguments: str) -> str:
    done = subprocess.run([MUTMUT, *arguments], check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout


def survivors() -> list[tuple[Mutant, str]]:
    """Each mutant that no test noticed, and what mutmut calls that."""
    found = []
    for line in _mutmut("results").splitlines():
        name, _, status = line.strip().partition(": ")
        if status not in NOTICED:
            found.append(
                (mutant(name, _mutmut("show", name) if status == "survived" else ""), status)
            )
    return found


def main() -> int:
    """Run, compare, tell."""
    shutil.rmtree(COPY, ignore_errors=True)
    # What is mutated is Python; the loops in C have tests of their own.
    environment = {**os.environ, "OUTBOX_RELAY_PURE_PYTHON": "1"}
    subprocess.run([MUTMUT, "run", *sys.argv[1:]], check=True, env=environment)
    _mutmut("export-cicd-stats")
    counts = json.loads((COPY / "mutmut-cicd-stats.json").read_text())
    allowed, alive = explained(), survivors()
    unexplained = [(one, status) for one, status in alive if one not in allowed]
    gone = allowed.keys() - {one for one, _ in alive}
    for one, status in unexplained:
        print(f"{status}, and not explained in {EXPLAINED.name}: {one}")
    for one in gone:
        print(f"explained in {EXPLAINED.name}, and does not survive: {one}")
    print(
        f"{counts['total']} mutants: {counts['killed']} killed, {counts['timeout']} without an end,"
        f" {len(alive) - len(unexplained)} explained, {len(unexplained)} not explained"
    )
    return 1 if unexplained or gone else 0


if __name__ == "__main__":
    sys.exit(main())
