"""Small pictures as SVG, with their text: no script draws them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from outbox_relay.schema import LANES

WIDTH: Final = 600
HEIGHT: Final = 120
COLOURS: Final = 6
"""Owners of lanes that have a colour of their own; the others share the last one."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line over the time: `path` and `area` for SVG, `most` at its top."""

    path: str
    area: str
    most: float


def line(values: Sequence[float], *, points: int) -> Line:
    """
    *values*, oldest first; the newest is at the right, and *points* fill the width.

    >>> line([1.0, 3.0], points=2).path
    'M0,78.67 L600,4'
    """
    most = max([*values, 1.0])
    step = WIDTH / max(1, points - 1)
    left = WIDTH - step * (len(values) - 1)
    at = [
        f"{left + step * place:.4g},{HEIGHT - 4 - value / most * (HEIGHT - 8):.4g}"
        for place, value in enumerate(values)
    ]
    if not at:
        return Line("", "", most)
    path = "M" + " L".join(at)
    area = f"{path} L{WIDTH},{HEIGHT} L{left:.4g},{HEIGHT} Z"
    return Line(path, area, most)


@dataclass(frozen=True, slots=True)
class Owner:
    """A relay that holds lanes, and the number of its colour."""

    name: str
    lanes: int
    colour: int
    seconds_left: float
    is_this: bool


def owners(
    lanes_of: Mapping[str, int], leases: Mapping[str, float], *, this: str
) -> tuple[Owner, ...]:
    """Who holds lanes, most lanes first."""
    order = sorted(lanes_of, key=lambda name: (-lanes_of[name], name))
    return tuple(
        Owner(name, lanes_of[name], min(place, COLOURS - 1), leases.get(name, 0.0), name == this)
        for place, name in enumerate(order)
    )


def lane_cells(found: Sequence[Owner]) -> list[int | None]:
    """The colour of each of the lanes' places, in the order of the owners; None: nobody's."""
    cells: list[int | None] = [owner.colour for owner in found for _ in range(owner.lanes)]
    return [*cells, *([None] * (LANES - len(cells)))][:LANES]
