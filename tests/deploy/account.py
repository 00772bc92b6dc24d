"""
What the runbook's tests saw, and the table of it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """
    One alert. `fires` is the time from the fault to the alert, `mended` from the first command of its
    section to its end; every time in the alert was divided by `factor`.
    """

    PROPERTY: ClassVar = "runbook"

    alert: str
    fault: str
    factor: int
    fires: float
    mended: float

    def as_text(self) -> str:
        """For a report, which may come from another process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Self:
        """What `as_text` gave."""
        return cls(**json.loads(text))


def table(seen: Sequence[Seen]) -> list[str]:
    """
    Lines of a table in Markdown.

    >>> seen = Seen(alert="OutboxPaused", fault="a pause", factor=360, fires=10.5, mended=1.25)
    >>> table([seen])[-1]
    '| OutboxPaused | a pause | 10.5 s | 1.2 s | 360 |'
    """
    return [
        "| alert | fault | fires after | ends after the first command | times divided by |",
        "|---|---|---|---|---|",
        *(
            f"| {one.alert} | {one.fault} | {one.fires:.1f} s | {one.mended:.1f} s | {one.factor} |"
            for one in seen
        ),
    ]
