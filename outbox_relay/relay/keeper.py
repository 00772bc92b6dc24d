"""
Keeps the lease of a term: renews it, and shares the lanes with the relays that come and go.

One task does both, one statement after another, so that a renewal never counts lanes that are just
being given back. Where other relays may be active, it looks at the lease table as often as a relay
that stands by.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from outbox_relay.errors import StoreUnavailable
from outbox_relay.relay.careful import Careful
from outbox_relay.relay.decide import TrustWindow
from outbox_relay.relay.lease import choose, share
from outbox_relay.relay.quiet import Quiet
from outbox_relay.relay.reading import Reading
from outbox_relay.relay.surroundings import Surroundings

GIVE_SECONDS = 0.05
"""How often to ask whether what is under way of a lane is settled, unless a mark says so."""


def look_seconds(standby_seconds: float, jitter: float) -> float:
    """
    Until the next look at the lease table. Never more than *standby_seconds*: a take-over waits for it.

    >>> look_seconds(1.0, 0.0)
    0.9
    """
    return standby_seconds * (0.9 + 0.1 * jitter)


class Keeper:
    """The lease of one term, as long as `run` lasts. `gained` is for the reader to take."""

    def __init__(
        self,
        around: Surroundings,
        *,
        trust: TrustWindow,
        quiet: Quiet,
        reading: Reading,
        let_go: Callable[[], None],
        careful: Careful,
    ) -> None:
        self._around = around
        self._holding = around.holding
        self._trust = trust
        self._quiet = quiet
        self._reading = reading
        self._let_go = let_go
        self._careful = careful
        self._marked = asyncio.Event()
        self._renew_at = around.clock.now() + trust.renew_every()
        self._look_at = self._next_look()
        self._handing_back: frozenset[int] = frozenset()
        self._stopping = False
        self._patient_until = float("-inf")
        self.gained: frozenset[int] = frozenset()

    def marked(self) -> None:
        """Something is settled."""
        if self._holding.giving:
            self._marked.set()

    def stop(self) -> None:
        """Take no more lanes, and give none: all of them are about to be released."""
        self._stopping = True

    async def run(self) -> None:
        """Keep the lease for ever. Raises LeaseLost, or what else ends the term."""
        clock = self._around.clock
        while True:
            await self._wait()
            try:
                if clock.now() >= self._renew_at:
                    self._renew_at = clock.now() + self._trust.renew_every()
                    await self._renew()
                if self._looks() and clock.now() >= self._look_at:
                    self._look_at = self._next_look()
                    await self._look()
                await self._give_back()
            except StoreUnavailable as error:
                if error.ends_term:
                    raise
                self._around.observer.log("renew_failed", error=str(error))
                # Whoever lives renews within this time: its lanes are not to be had.
                self._patient_until = float("inf")
            self.tell()

    def tell(self) -> None:
        """How many lanes are ours, and for how long."""
        left = self._trust.left(self._around.clock.now())
        self._around.observer.lanes(len(self._holding.lease.lanes), left)

    def _looks(self) -> bool:
        """Whether others may be active, or lanes be free."""
        several = self._around.options.max_active_relays > 1
        if not self._around.lease.shared or self._stopping:
            return False
        return several or not self._holding.all

    def _next_look(self) -> float:
        around = self._around
        jitter = around.random.random()
        return around.clock.now() + look_seconds(around.options.standby_seconds, jitter)

    async def _wait(self) -> None:
        clock = self._around.clock
        until = min(self._renew_at, self._look_at) if self._looks() else self._renew_at
        pause = max(0.0, until - clock.now())
        if self._holding.giving or self._handing_back:
            self._marked.clear()
            await clock.wait(self._marked, min(pause, GIVE_SECONDS))
        else:
            await clock.sleep(pause)

    async def _renew(self) -> None:
        around, trust = self._around, self._trust
        started = around.clock.now()
        if trust.may_skip(started) and self._quiet.lasts(started):
            return
        await around.store.renew(
            around.lease,
            noted_id=self._reading.safe,
            lease_seconds=around.options.lease_seconds,
        )
        trust.renewed(started)
        around.observer.timed("lease", around.clock.now() - started)
        if self._patient_until == float("inf"):
            self._patient_until = around.clock.now() + 2 * trust.renew_every()

    async def _look(self) -> None:
        around, holding = self._around, self._holding
        started = around.clock.now()
        sharing = await around.store.look(around.lease)
        around.observer.timed("lease", around.clock.now() - started)
        if holding.giving or self._handing_back or self._stopping:
            return
        stray = sharing.own - holding.lease.lanes
        if stray:
            # Taken by a statement whose answer was lost. Each renewal keeps them, so nobody else could
            # ever read their rows.
            await self._took(stray)
            return
        held = len(holding.lanes)
        excess = -share(held=held, members=sharing.members, rank=sharing.rank)
        if excess > 0:
            if self._careful.on:
                # A row that kills relays would go to one that knows nothing of it.
                return
            holding.giving = frozenset(sorted(holding.lanes)[-excess:])
            around.observer.log("lanes_given", lanes=excess, members=sharing.members)
            self._reading.lose(holding.giving)
            self._let_go()
            return
        # A lease may have run out because the database was away: its owner renews it first.
        patient = started < self._patient_until
        wanted = choose(sharing, held=held, run_out_too=not patient)
        if wanted:
            await self._take(wanted)

    async def _take(self, wanted: frozenset[int]) -> None:
        around = self._around
        lanes = await around.store.take(
            around.lease, wanted, lease_seconds=around.options.lease_seconds
        )
        if lanes:
            await self._took(lanes)

    async def _took(self, lanes: frozenset[int]) -> None:
        around = self._around
        if around.lease.past is not None:
            # Before a row of them is read: one may have killed those who had them.
            self._careful.learn(await around.store.past(around.lease.term))
        self._holding.took(lanes)
        self.gained |= lanes
        around.observer.log("lanes_taken", lanes=len(lanes))
        around.hinted.set()

    async def _give_back(self) -> None:
        """Hand back the lanes of which nothing is under way any more."""
        holding = self._holding
        settled = holding.giving - self._reading.lanes_in_flight() if holding.giving else None
        if settled:
            # First: a mark from now on names only lanes that stay ours.
            holding.gave(settled)
            self.gained -= settled
            self._handing_back |= settled
        if self._handing_back:
            await self._around.store.give(self._around.lease, self._handing_back)
            self._handing_back = frozenset()
