"""Whether something that was measured again and again stayed flat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

WARM_UP_SHARE = 0.1
GROWTH_SHARE = 0.1
"""How much the last third may lie above the first one."""

NOISE: Mapping[str, float] = {
    "memory, MiB": 2.0,
    "open files": 2.0,
    "threads": 2.0,
    "connections": 2.0,
    "lag, ms": 100.0,
}
"""And how much more, in absolute terms: what comes and goes by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """One measure over the time: the medians of its first and its last third, and the most."""

    name: str
    first: float
    last: float
    most: float

    @property
    def is_flat(self) -> bool:
        """Whether it does not grow."""
        return self.last <= self.first * (1 + GROWTH_SHARE) + NOISE[self.name]


def course(name: str, values: Sequence[float]) -> Course:
    """The course of *values*, without the warm-up."""
    settled = values[int(len(values) * WARM_UP_SHARE) :]
    third = max(1, len(settled) // 3)
    return Course(
        name=name,
        first=median(settled[:third]),
        last=median(settled[-third:]),
        most=max(settled),
    )


def table(courses: Sequence[Course]) -> str:
    """The courses as a Markdown table."""
    lines = ["| | first third | last third | most | |", "|---|---:|---:|---:|---|"]
    lines += [
        f"| {c.name} | {c.first:.1f} | {c.last:.1f} | {c.most:.1f} | {'flat' if c.is_flat else 'grows'} |"
        for c in courses
    ]
    return "\n".join(lines)
