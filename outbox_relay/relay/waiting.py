"""
Why rows wait: each pending row has one cause, so that an operator knows where to look. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import NamedTuple

WAITING_ROWS = 10_000
"""Of so many of the oldest pending rows the causes are known. More would cost the database more."""


class Cause(StrEnum):
    """What a pending row waits for."""

    BROKER = "broker"
    """No broker answers, or a partition of its topic is in trouble."""

    DATABASE = "database"
    """The database does not answer, or refuses marks or the lease: nothing can be read or marked."""

    PAUSED = "paused"
    """An operator paused its topic, or all of them."""

    TOPIC = "topic"
    """Its topic pauses: missing, not authorised, or it refuses everything."""

    DEAD = "dead"
    """A dead letter of its key holds it up, with hold_key."""

    TURN = "turn"
    """Nothing: the relay is at work, and it comes when it is its turn."""


class Late(NamedTuple):
    """How many rows wait, and since when the oldest of them; 0 and 0 for none."""

    rows: int = 0
    oldest_us: int = 0


NONE = Late()


def together(parts: Iterable[tuple[Cause, Late]]) -> dict[Cause, Late]:
    """
    What waits for each cause.

    >>> together([(Cause.TOPIC, Late(2, 70)), (Cause.TOPIC, Late(1, 50))])
    {<Cause.TOPIC: 'topic'>: Late(rows=3, oldest_us=50)}
    """
    found: dict[Cause, Late] = {}
    for cause, late in parts:
        before = found.get(cause)
        if before is None:
            found[cause] = late
        else:
            # Rows come from any program, also without a time.
            known = [us for us in (before.oldest_us, late.oldest_us) if us]
            found[cause] = Late(before.rows + late.rows, min(known, default=0))
    return found


def without_database(known: Mapping[Cause, Late], *, since_us: int) -> dict[Cause, Late]:
    """
    What was *known* to wait now waits for the database, which is away since *since_us*.

    >>> without_database({Cause.TURN: Late(3, 50)}, since_us=90)
    {<Cause.DATABASE: 'database'>: Late(rows=3, oldest_us=50)}
    """
    parts = [Late(0, since_us), *known.values()]
    return together((Cause.DATABASE, late) for late in parts)
