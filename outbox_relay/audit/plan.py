"""What an audit is asked to do, and the settings that it depends on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

EVER: Final = 2**62
"""Later than any instant, larger than any id."""

KINDS: Final = ("loss", "duplicate", "inversion", "ghost")

_FROM: Final = re.compile(
    r"(?:(?P<topic>[A-Za-z0-9._-]+)(?::(?P<partition>\d+))?=)?(?P<offset>\d+)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """
    What to compare. Instants are microseconds since 1970.

    * asked: what the work file is for, as it was asked: an audit goes on only with the same
    * from_offsets: where to begin, by (topic, partition); None stands for all of them
    * bare: whether records have no headers, so that an id can only be in the value
    * keeps_produced_us: how long the relay keeps produced rows
    """

    asked: Mapping[str, object]
    topics: tuple[str, ...] = ()
    since: int = 0
    until: int = EVER
    from_offsets: Mapping[tuple[str | None, int | None], int] = field(default_factory=dict)
    sources: frozenset[bytes] = frozenset()
    bare: bool = False
    keeps_produced_us: int = EVER
    settle_seconds: float = 20.0
    rows_per_second: int | None = None

    def wants(self, topic: str) -> bool:
        """Whether *topic* is audited."""
        return not self.topics or topic in self.topics

    def from_offset(self, topic: str, partition: int) -> int | None:
        """Where the partition is to be read from; the most exact word counts."""
        for name in ((topic, partition), (topic, None), (None, None)):
            if name in self.from_offsets:
                return self.from_offsets[name]
        return None


def from_offsets(texts: Sequence[str]) -> dict[tuple[str | None, int | None], int]:
    """
    What ``--from-offset`` names. Raises ValueError with the text that is none.

    >>> from_offsets(["100", "orders=7", "orders:3=9"])
    {(None, None): 100, ('orders', None): 7, ('orders', 3): 9}
    """
    found: dict[tuple[str | None, int | None], int] = {}
    for text in texts:
        match = _FROM.fullmatch(text)
        if match is None:
            raise ValueError(text)
        partition = match["partition"]
        found[match["topic"], int(partition) if partition else None] = int(match["offset"])
    return found
