"""
Each migration says which lock it takes on each database, and the guide says the same.
"""

from __future__ import annotations

import re
import runpy
from pathlib import Path

from benchmarks.report import DATABASES
from benchmarks.results import RESULTS, load
from outbox_relay.migrate import scripts_folder
from outbox_relay.schema import SCHEMA_VERSION

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guide" / "migrations.md"
SCRIPTS = [
    runpy.run_path(str(path)) for path in sorted(Path(scripts_folder(), "versions").glob("*.py"))
]
LOCKS = [
    dict(re.findall(r"^Lock on (\w+): (.+)$", script["__doc__"], re.MULTILINE))
    for script in SCRIPTS
]


def test_the_numbers_are_the_versions() -> None:
    """
    Without a gap, up to the one that this release writes.
    """
    assert [script["revision"] for script in SCRIPTS] == [
        f"{number:04d}" for number in range(1, SCHEMA_VERSION + 1)
    ]
    assert [script["VERSION"] for script in SCRIPTS] == list(range(1, SCHEMA_VERSION + 1))


def test_every_step_says_which_lock_it_takes() -> None:
    """
    An operator decides by it when to run it. The table of the guide repeats it, word for word.
    """
    table = GUIDE.read_text(encoding="utf-8").partition("\n## Under load\n")[2]
    rows = re.findall(r"^\| (\d{4}) \| (\w+) \| (.+) \|$", table, re.MULTILINE)
    said = [
        (script["revision"], database, lock)
        for script, locks in zip(SCRIPTS, LOCKS, strict=True)
        for database, lock in locks.items()
    ]

    assert [(number, database, lock.replace("`", "")) for number, database, lock in rows] == said
    assert [list(locks) for locks in LOCKS] == [["MariaDB", "MySQL", "PostgreSQL"]] * SCHEMA_VERSION


def measured() -> list[str]:
    """The guide's lines, from what `python -m benchmarks migrate` kept."""
    lines = []
    for database, title in DATABASES.items():
        outcome = load(RESULTS / f"migrate-{database}.json")
        quiet, steps = outcome.cases[:2]
        waits = [case.median("max_ms") or 0.0 for case in (quiet, steps)]
        took = steps.median("work_seconds")
        lines.append(f"| {title} | {waits[0]:.0f} ms | {waits[1]:.0f} ms | {took:.1f} s |")
    return lines


def test_the_figures_are_those_of_the_runs() -> None:
    """
    On 10 million rows, on each database.
    """
    cases = [load(RESULTS / f"migrate-{database}.json").cases[1] for database in DATABASES]
    guide = GUIDE.read_text(encoding="utf-8")

    assert {case.rows for case in cases} == {10_000_000}
    assert "\n".join(measured()) in guide
