"""The lease table in memory: as `outbox_relay.store` has it, with lanes and slots."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from outbox_relay.errors import LeaseLost, StoreUnavailable
from outbox_relay.relay.lease import ALL_LANES, Lease, Past, Sharing, Suspects, Term, choose
from outbox_relay.schema import LANES
from outbox_relay.testing.clock import FakeClock


@dataclass(slots=True)
class _Held:
    nonce: str = ""
    owner: str = ""
    term: int = 0
    expires_at: float = 0.0
    noted_id: int = 0
    crash_count: int = 0
    server: str = ""
    wake_address: str = ""
    suspects: tuple[int, int] = (0, 0)
    suspect_term: int = 0
    suspect_count: int = 0


class MemoryLeases:
    """Who holds which lane, and which slot."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self._rows = {lane: _Held() for lane in range(2 * LANES)}
        self._nonces = itertools.count(1)
        self.keeps_suspects = True
        """Set it to False for tables of an older version."""
        self._begun: dict[str, _Held] = {}

    # For tests

    def run_out(self, owner: str | None = None) -> None:
        """End every lease, or those of *owner*, as if no renewal had come for long."""
        for row in self._rows.values():
            if owner in (None, row.owner):
                row.expires_at = 0.0

    def owners(self) -> dict[str, set[int]]:
        """The lanes of each owner whose lease has not ended."""
        found: dict[str, set[int]] = {}
        for lane in ALL_LANES:
            if self._lives(lane):
                found.setdefault(self._rows[lane].owner, set()).add(lane)
        return found

    def seconds_left(self) -> float:
        """Until the first lease ends."""
        living = [row.expires_at for lane, row in self._rows.items() if self._lives(lane)]
        return min(living, default=0.0) - self._clock.now()

    # The port

    def _lives(self, lane: int) -> bool:
        return self._rows[lane].expires_at > self._clock.now()

    def _of(self, nonce: str) -> frozenset[int]:
        return frozenset([lane for lane, row in self._rows.items() if row.nonce == nonce])

    def acquire(
        self, owner: str, *, wake_address: str, lease_seconds: float, slots: int, server: str
    ) -> Lease | None:
        """See Store."""
        free = [lane for lane in range(LANES, LANES + slots) if not self._lives(lane)]
        if not free:
            return None
        slot, nonce = free[0], f"nonce-{next(self._nonces)}"
        lanes = choose(self._sharing(slot), held=0, run_out_too=True)
        as_who = _Held(nonce, owner, server=server, wake_address=wake_address)
        self._begun[nonce] = as_who
        self._take([slot, *lanes], as_who, lease_seconds)
        ours = [self._rows[lane] for lane in lanes]
        return Lease(
            term=Term(self._rows[slot].term, nonce, lanes),
            server=server,
            noted_id=max([row.noted_id for row in ours], default=0),
            crash_count=max([row.crash_count for row in ours], default=0),
            past=self._past(lanes) if self.keeps_suspects else None,
        )

    def _take(self, lanes: Iterable[int], as_who: _Held, lease_seconds: float) -> None:
        for lane in lanes:
            row = self._rows[lane]
            if self._lives(lane):
                continue
            self._rows[lane] = replace(
                as_who,
                term=row.term + 1,
                expires_at=self._clock.now() + lease_seconds,
                noted_id=row.noted_id if row.server == as_who.server else 0,
                crash_count=row.crash_count + 1 if row.nonce else 0,
                suspects=row.suspects,
                suspect_count=self._deaths(row) if row.server == as_who.server else 0,
            )

    @staticmethod
    def _deaths(row: _Held) -> int:
        return row.suspect_count + (row.suspect_term == row.term) if row.nonce else 0

    def _sharing(self, own: int, nonce: str | None = None) -> Sharing:
        living = [lane for lane in range(LANES, 2 * LANES) if self._lives(lane)]
        free = [lane for lane in ALL_LANES if not self._lives(lane)]
        whose = {lane: self._rows[lane].nonce for lane in free}
        return Sharing(
            members=len({*living, own}),
            rank=sum(lane < own for lane in living),
            handed_back=frozenset([lane for lane in free if not whose[lane]]),
            run_out=frozenset([lane for lane in free if whose[lane] not in ("", nonce)]),
            own=self._of(nonce) & ALL_LANES if nonce else frozenset(),
        )

    def look(self, lease: Lease) -> Sharing:
        """See Store."""
        self._require(lease)
        nonce = lease.term.nonce
        return self._sharing(max(self._of(nonce)), nonce)

    def _require(self, lease: Lease) -> None:
        held = self._of(lease.term.nonce)
        if not any(lane >= LANES for lane in held):
            raise LeaseLost(f"another relay took the place of term {lease.term.number}")
        self.require(lease.term, unexpired=False)

    def take(self, lease: Lease, lanes: frozenset[int], *, lease_seconds: float) -> frozenset[int]:
        """See Store."""
        # Perhaps it holds nothing any more: a late statement takes all the same, as in SQL.
        self._take(lanes, self._begun[lease.term.nonce], lease_seconds)
        return lanes & self._of(lease.term.nonce)

    def give(self, lease: Lease, lanes: frozenset[int]) -> None:
        """See Store."""
        for lane in lanes & self._of(lease.term.nonce):
            row = self._rows[lane]
            row.nonce = row.owner = row.wake_address = ""
            row.expires_at, row.crash_count = 0.0, 0

    def renew(self, lease: Lease, *, noted_id: int, lease_seconds: float) -> None:
        """See Store."""
        for lane in self._of(lease.term.nonce):
            self._rows[lane].expires_at = self._clock.now() + lease_seconds
            self._rows[lane].noted_id = noted_id
        self._require(lease)

    def _past(self, lanes: Iterable[int]) -> Past:
        rows = {lane: self._rows[lane] for lane in sorted(lanes) if lane < LANES}
        return Past(
            crash_count=max([row.crash_count for row in rows.values()], default=0),
            suspects=tuple(
                Suspects(lane, *row.suspects, row.suspect_count)
                for lane, row in rows.items()
                if row.suspect_count
            ),
        )

    def past(self, term: Term) -> Past:
        """See Store."""
        return self._past(self._of(term.nonce))

    def suspect(self, first_id: int, last_id: int, lanes: Collection[int], term: Term) -> None:
        """See Store."""
        held = self._of(term.nonce)
        for lane in held & set(lanes):
            row = self._rows[lane]
            row.suspect_count *= row.suspects == (first_id, last_id)
            row.suspects, row.suspect_term = (first_id, last_id), row.term
        if lost := frozenset(lanes) - held:
            raise LeaseLost(
                f"lanes were taken from term {term.number}", lost if held else frozenset()
            )

    def acquit(self, lanes: Collection[int], term: Term, *, still: Suspects | None = None) -> None:
        """See Store."""
        for lane in self._of(term.nonce) & set(lanes):
            row = self._rows[lane]
            first, last, deaths = (
                (still.first_id, still.last_id, still.deaths) if still else (0, 0, 0)
            )
            row.suspects, row.suspect_term, row.suspect_count = (first, last), 0, deaths

    def recovered(self, term: Term) -> None:
        """See Store."""
        self.acquit(term.lanes, term)
        for lane in self._of(term.nonce) & term.lanes:
            self._rows[lane].crash_count = 0

    def release(self, lease: Lease) -> None:
        """See Store."""
        self.give(lease, self._of(lease.term.nonce))

    def wake_addresses(self) -> frozenset[str]:
        """See Store."""
        living = [row.wake_address for lane, row in self._rows.items() if self._lives(lane)]
        return frozenset(living) - {""}

    def require(self, term: Term, *, unexpired: bool = True) -> None:
        """Raise unless *term* has its lanes."""
        held = self._of(term.nonce)
        lost = term.lanes - held
        if not held or lost:
            raise LeaseLost(
                f"another relay took lanes from term {term.number}", lost if held else frozenset()
            )
        if unexpired and not all(self._lives(lane) for lane in held):
            raise StoreUnavailable(f"the lease of term {term.number} ran out")
