"""Relays that hold their lease wrongly. Each is the real one with one rule taken out."""

from __future__ import annotations

from typing import Any

from outbox_relay.errors import LeaseLost
from outbox_relay.relay.decide import TrustWindow
from outbox_relay.relay.dispatch import Dispatcher
from outbox_relay.relay.keeper import Keeper
from outbox_relay.relay.lease import ALL_LANES, Lease, Term
from outbox_relay.relay.producer import EventProducer
from outbox_relay.relay.reading import Reading
from tests.simulation.database import Database
from tests.simulation.loop import Process
from tests.simulation.oracle import Oracle, TermSeen
from tests.simulation.store import READS, SimulatedStore
from tests.simulation.world import ProcessClock, World

Patch = Any


def lease_by_the_wall_clock(patch: Patch) -> None:
    """A relay reckons its lease by a clock that can be set back."""

    def now(self: ProcessClock) -> float:
        return self._began + self._loop.time() + self.wall_ahead

    patch.setattr(ProcessClock, "now", now)


def clock_that_sleeps(patch: Patch) -> None:
    """A relay reckons its lease by a clock that stands still while the machine is suspended."""
    now, woken = ProcessClock.now, World.woken

    def awake(self: ProcessClock) -> float:
        return now(self) - self.__dict__.get("slept", 0.0)

    def wakes(self: World, relay: Any) -> None:
        slept = relay.clock.__dict__.get("slept", 0.0)
        relay.clock.slept = slept + self.loop.time() - relay.stood_still_at
        woken(self, relay)

    patch.setattr(ProcessClock, "now", awake)
    patch.setattr(World, "woken", wakes)


def never_doubts_its_lease(patch: Patch) -> None:
    """A relay publishes however long it could not renew."""
    patch.setattr(TrustWindow, "may_publish", lambda self, now: True)


def trusts_from_the_answer(patch: Patch) -> None:
    """The window counts from the renewal's answer, and to the end of the lease."""

    original = Keeper._renew

    async def renew(self: Keeper) -> None:
        before = self._trust.renewed_at
        await original(self)
        if self._trust.renewed_at > before:
            self._trust.renewed(self._around.clock.now())

    patch.setattr(Keeper, "_renew", renew)
    patch.setattr(TrustWindow, "may_publish", lambda self, now: self.left(now) > 0)


def renews_what_was_taken(patch: Patch) -> None:
    """A renewal takes lanes back from whoever has them now."""
    original = Database.__init__

    def init(self: Database, *parts: Any) -> None:
        original(self, *parts)
        leases = self.leases

        def renew(lease: Lease, *, noted_id: int, lease_seconds: float) -> None:
            for lane in lease.lanes:
                row = leases._rows[lane]
                row.nonce, row.expires_at = lease.term.nonce, self.clock.now() + lease_seconds

        leases.renew = renew

    patch.setattr(Database, "__init__", init)


def gives_before_it_is_settled(patch: Patch) -> None:
    """Lanes are handed back while batches of theirs are under way."""
    patch.setattr(Reading, "lanes_in_flight", lambda self: set())


def keeps_rows_of_given_lanes(patch: Patch) -> None:
    """What waits of lanes that were handed back is published all the same."""
    patch.setattr(Dispatcher, "let_go", lambda self: None)
    patch.setattr(Dispatcher, "_without_given", lambda self, batch: batch)
    patch.setattr(Reading, "lanes_in_flight", lambda self: set())


def takes_what_is_held(patch: Patch) -> None:
    """A relay takes lanes whose lease has not ended."""
    original = Database.__init__

    def init(self: Database, *parts: Any) -> None:
        original(self, *parts)
        lives = self.leases._lives
        self.leases._lives = lambda lane: lane >= 64 and lives(lane)

    patch.setattr(Database, "__init__", init)


def loses_what_it_took(patch: Patch) -> None:
    """Lanes whose taking got no answer are not looked for."""
    look = Database.look

    def forgetful(self: Database, lease: Lease) -> Any:
        from dataclasses import replace

        return replace(look(self, lease), own=frozenset())

    patch.setattr(Database, "look", forgetful)


def asks_the_schema_first(patch: Patch) -> None:
    """After a failover the tables are looked at before a new term begins."""
    original = EventProducer._run

    async def run(self: EventProducer, until_empty: bool) -> None:
        await original(self, until_empty)

    def never(self: EventProducer) -> float:
        return float("-inf")

    patch.setattr(
        EventProducer, "_schema_due", property(never, lambda self, at: None), raising=False
    )
    patch.setattr(EventProducer, "_run", run)


def ends_the_stop_when_all_is_done(patch: Patch) -> None:
    """A stop takes as long as what is under way."""

    async def run(self: EventProducer, *, until_empty: bool = False) -> None:
        await self._run(until_empty)
        await self._close()

    patch.setattr(EventProducer, "run", run)


def skip_locked_by_row(patch: Patch) -> None:
    """No lease: every relay reads the rows that no other has locked."""
    original = Database.__init__

    def init(self: Database, *parts: Any) -> None:
        original(self, *parts)
        leases, number = self.leases, iter(range(1, 1_000_000))

        def acquire(owner: str, *, server: str, **terms: object) -> Lease:
            nonce = f"nonce-{next(number)}"
            # That nobody holds a lease is not what this is about.
            self.oracle.terms[nonce] = TermSeen(nonce, owner, overtaken=True)
            return Lease(term=Term(1, nonce, ALL_LANES), server=server, noted_id=0, crash_count=0)

        leases.acquire = acquire
        leases.require = leases.renew = lambda *_, **__: None
        self.locks: dict[int, Process] = {}

    async def read(self: SimulatedStore, plan: Any) -> Any:
        database, process = self._database, self.process

        def effect() -> Any:
            locks = database.locks
            rows = [
                s.row
                for s in database._matching(plan)
                if (s.committed and not (s.row.id in locks and locks[s.row.id].alive))
                or locks.get(s.row.id) is process
            ][: plan.limit]
            locks.update(dict.fromkeys((row.id for row in rows), process))
            return rows

        return await self._ask("read", READS, effect)

    patch.setattr(Database, "__init__", init)
    patch.setattr(SimulatedStore, "_read", read)
    patch.setattr(Oracle, "_fenced", lambda *_: None)


def gives_up_at_lost_lease(patch: Patch) -> None:
    """A relay whose lease is gone waits for somebody to restart it."""
    original = EventProducer._one_term

    async def one_term(self: EventProducer, until_empty: bool) -> bool:
        try:
            return await original(self, until_empty)
        except LeaseLost:
            await self._stop.wait()
            return False

    patch.setattr(EventProducer, "_one_term", one_term)
