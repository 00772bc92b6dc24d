"""
Scenarios as text, and the corpus: those that found something once, shrunk to what matters.

Each line of `corpus.jsonl` is a whole scenario, so that it means the same when seeds mean something
else. `wrong` names the wrong relay that it finds out; the real one must live through it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.simulation.scenario import Fault, Operation, RowPlan, Scenario, Write

PATH = Path(__file__).with_name("corpus.jsonl")


@dataclass(frozen=True, slots=True)
class Entry:
    """A scenario that is kept. `promise` is what the wrong relay breaks in it, and `story` why."""

    wrong: str
    promise: str
    story: str
    scenario: Scenario


def to_text(entry: Entry) -> str:
    """One line of the corpus."""
    fields = asdict(entry)
    for write in fields["scenario"]["writes"]:
        for row in write["rows"]:
            row["key"] = None if row["key"] is None else row["key"].decode()
    return json.dumps(fields)


def from_text(line: str) -> Entry:
    """The entry of one line."""
    fields = json.loads(line)
    plan: dict[str, Any] = fields.pop("scenario")
    writes = tuple(_write(write) for write in plan.pop("writes"))
    faults = tuple(Fault(**fault) for fault in plan.pop("faults"))
    operations = tuple(Operation(**operation) for operation in plan.pop("operations", ()))
    found = Scenario(**plan, writes=writes, faults=faults, operations=operations)
    return Entry(**fields, scenario=found)


def _write(fields: dict[str, Any]) -> Write:
    rows = tuple(
        RowPlan(row["topic"], None if row["key"] is None else row["key"].encode(), row["kind"])
        for row in fields.pop("rows")
    )
    return Write(**fields, rows=rows)


def entries() -> Iterator[Entry]:
    """The whole corpus."""
    for line in PATH.read_text().splitlines():
        yield from_text(line)
