"""
What the demo knows at a moment, for the screen to show.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

PartState = Literal["waiting", "running", "frozen", "killed", "stopped"]

_HISTORY: Final = 400


@dataclass(slots=True, kw_only=True)
class Progress:
    """Numbers so far, what happens now, and what happened before. Times are in seconds."""

    total_seconds: float
    elapsed_seconds: float = 0.0
    finished: bool = False
    committed: int = 0
    commits_per_second: float = 0.0
    rolled_back: int = 0
    backlog: int = 0
    acked: int = 0
    delivered: int = 0
    duplicates: int = 0
    latencies: Sequence[float] = ()
    now: str = "starting"
    parts: dict[str, PartState] = field(default_factory=dict)
    notes: list[tuple[float, str]] = field(default_factory=list)
    backlogs: deque[int] = field(default_factory=lambda: deque(maxlen=_HISTORY))

    def note(self, text: str) -> None:
        """Say what happens from now on."""
        self.now = text
        self.notes.append((self.elapsed_seconds, text))


def percentile(values: Sequence[float], share: float) -> float | None:
    """
    The value below which *share* of *values* lie, or None without values.

    >>> percentile([0.3, 0.1, 0.2], 0.5)
    0.2
    """
    if not values:
        return None
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]
