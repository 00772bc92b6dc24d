"""
What a relay holds: a term over lanes; and who should have how many.

A lane is given back in order: its rows are read no more and those that wait are dropped; what is
under way of it is settled and marked; then its lease row is free. Gained lanes have never been read
in this term.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from outbox_relay.errors import LeaseLost
from outbox_relay.schema import LANES

ALL_LANES = frozenset(range(LANES))


@dataclass(frozen=True, slots=True)
class Term:
    """
    One uninterrupted right to act on the rows of `lanes`, which may change while it lasts. The nonce
    tells two terms of the same number apart.
    """

    number: int
    nonce: str
    lanes: frozenset[int] = ALL_LANES


@dataclass(frozen=True, slots=True)
class Suspects:
    """Rows of `lane`, by id: `deaths` terms in a row ended while a relay looked at just these."""

    lane: int
    first_id: int
    last_id: int
    deaths: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """How the terms before ended: `crash_count` of them in a row without a release."""

    crash_count: int
    suspects: tuple[Suspects, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """
    What a relay holds: a term over some lanes, perhaps none yet.

    `server` identifies the incarnation of the database that gave the ids; `noted_id` is an id up
    to which the last owner knew that every id had been given out, or 0; `crash_count` counts the
    terms in a row that ended without a release. `shared` says whether other relays may share the
    lanes: not where there is one lane only, nor in tables of version 1. `past` is None in tables that
    keep no suspects.
    """

    term: Term
    server: str
    noted_id: int
    crash_count: int
    shared: bool = True
    past: Past | None = None

    @property
    def lanes(self) -> frozenset[int]:
        """The lanes of the term."""
        return self.term.lanes


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharing:
    """
    How the lanes are shared now: among `members` active relays, of which this one is number `rank`.

    `handed_back` lanes are free; those in `run_out` had an owner whose lease has ended. `own` are those
    of whoever asks, as the database has it.
    """

    members: int
    rank: int
    handed_back: frozenset[int]
    run_out: frozenset[int]
    own: frozenset[int] = frozenset()


def share(*, held: int, members: int, rank: int) -> int:
    """
    How many lanes to take, or, below 0, to give back: all active relays together have each lane once.

    >>> [share(held=0, members=3, rank=rank) for rank in range(3)]
    [22, 21, 21]
    >>> share(held=64, members=2, rank=0)
    -32
    """
    whole, rest = divmod(LANES, members)
    return whole + (rank < rest) - held


def choose(sharing: Sharing, *, held: int, run_out_too: bool) -> frozenset[int]:
    """
    The free lanes to take. Relays of different rank begin at different ones, to meet seldom.
    """
    count = max(0, share(held=held, members=sharing.members, rank=sharing.rank))
    free = sorted(sharing.handed_back | (sharing.run_out if run_out_too else frozenset()))
    start = len(free) * sharing.rank // sharing.members
    return frozenset((free[start:] + free[:start])[:count])


@dataclass(slots=True)
class Holding:
    """The lease of a term as it stands. Lanes in `giving` are on their way back: read no more."""

    lease: Lease
    giving: frozenset[int] = field(default_factory=frozenset)

    @property
    def lanes(self) -> frozenset[int]:
        """The lanes whose rows are read and published."""
        return self.lease.lanes - self.giving

    @property
    def all(self) -> bool:
        """Whether no other relay owns a lane."""
        return len(self.lease.lanes) == LANES and not self.giving

    def took(self, lanes: frozenset[int]) -> None:
        """*lanes* are ours too."""
        self._change(self.lease.lanes | lanes)

    def gave(self, lanes: frozenset[int]) -> None:
        """*lanes* are about to be free: what is marked from now on is fenced without them."""
        self._change(self.lease.lanes - lanes)
        self.giving -= lanes

    def is_over(self, error: LeaseLost) -> bool:
        """
        Whether *error* ends the term. Else it names only lanes that were given back while a statement
        was under way: repeat it.
        """
        return not error.lanes or bool(error.lanes & self.lease.lanes)

    def _change(self, lanes: frozenset[int]) -> None:
        self.lease = replace(self.lease, term=replace(self.lease.term, lanes=lanes))
