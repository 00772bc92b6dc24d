"""
One world: relays, writers and operators over one database and one broker, from the first insert to
the last relay's end. `run` says what was broken, if anything.

It ends in three phases. First all faults end but one that lasts: whatever is not its business must be
settled soon. Then that one ends too, and dead letters are requeued: everything must be settled. Then
every relay is asked to stop, and must have handed its lanes back within its budget.
"""

from __future__ import annotations

import asyncio
from asyncio import events as asyncio_events
from collections import Counter
from random import Random

from outbox_relay.relay.canary_options import CanaryOptions
from outbox_relay.relay.options import RelayOptions
from outbox_relay.relay.producer import EventProducer, SystemClock
from outbox_relay.relay.watching import Silent
from tests.simulation.broker import Cluster, SimulatedBroker
from tests.simulation.database import Database
from tests.simulation.knobs import knobs, set_knobs
from tests.simulation.loop import Process, VirtualLoop
from tests.simulation.network import Network
from tests.simulation.operators import Operator, Operators
from tests.simulation.oracle import Event, Oracle, TermSeen, Violation
from tests.simulation.scenario import (
    BUSY_SECONDS,
    DEADLINE_SECONDS,
    LEASE_SECONDS,
    OUTAGE,
    STOP_SECONDS,
    Scenario,
)
from tests.simulation.store import SimulatedStore
from tests.simulation.writers import Writers

SETTLE_SECONDS = 60.0
"""Within this time after the faults have ended, everything is settled."""

IDLE_SECONDS = 8.0
"""A relay asks for a lease, or renews its own, at least so often."""

PROMPT_SECONDS = 1.5
"""A stop takes no longer when nothing is in its way."""

MOST_STEPS = 150_000
SLACK_SECONDS = 0.3


class ProcessClock(SystemClock):
    """A relay's own clock: virtual, with a beginning of its own."""

    def __init__(self, loop: VirtualLoop, began: float) -> None:
        self._loop = loop
        self._began = began
        self.wall_ahead = 0.0

    def now(self) -> float:
        return self._began + self._loop.time()

    def wall_us(self) -> int:
        return 1_700_000_000_000_000 + int((self._loop.time() + self.wall_ahead) * 1_000_000)


class Watch(Silent):
    """Tells the world what a relay logs."""

    def __init__(self, world: World, relay: Relay) -> None:
        self._world = world
        self._relay = relay
        self._name = relay.name

    def canary(self, outcome: str, seconds: float) -> None:
        world = self._world
        world.hit[f"canary {outcome}"] += 1
        world.trace(self._name, "canary", outcome)
        if outcome == "acked":
            world.oracle.canary_acked(self._relay.store.canary, seconds)

    def log(self, event: str, **fields: object) -> None:
        if self._world.keeps_trace:
            said = {k: v for k, v in fields.items() if k not in ("error", "detail")}
            self._world.trace(self._name, "says", event, *sorted(said.items()))


class Relay(Process):
    """A relay's process."""

    producer: EventProducer
    store: SimulatedStore
    clock: ProcessClock
    task: asyncio.Task[None]
    stop_by: float | None = None
    stood_still_at = 0.0


class World:
    """See the module."""

    def __init__(self, scenario: Scenario, *, trace: bool = False) -> None:
        self.scenario = scenario
        self.random = Random(scenario.schedule)
        self.loop = VirtualLoop(self.random)
        self.hit: Counter[str] = Counter()
        self.lines: list[str] = []
        self.keeps_trace = trace
        self.oracle = Oracle(
            hold_key=scenario.hold_key,
            retention_seconds=scenario.retention_seconds,
            in_flight_rows=scenario.in_flight_rows,
            chunk_rows=scenario.chunk_rows,
        )
        self.database = Database(self.loop, self.oracle)
        self.network = Network(self.loop, self.random, self.hit, self.trace)
        self.cluster = Cluster(
            self.loop, self.random, self.oracle, scenario.topics, self.hit, self.trace
        )
        self.relays: list[Relay] = []
        self.writers = Writers(
            self.database, engine=scenario.engine, hit=self.hit, trace=self.trace
        )
        self.operators = Operators(self)
        self.closing = False
        self.network.on_trouble = self._unclean
        self.network.on_crash = self.crash
        self.cluster.on_crash = self.crash
        self.cluster.on_sigterm = self.leave
        self.loop.on_step = self._crash_between_steps

    def trace(self, who: str, *what: object) -> None:
        """Keep a line, if anybody wants it."""
        if self.keeps_trace:
            self.lines.append(f"{self.loop.time():9.4f}  {who:9} {' '.join(map(str, what))}")

    # Relays

    def start(self) -> None:
        """One more relay."""
        s = self.scenario
        relay = Relay(f"relay-{len(self.relays)}")
        relay.store = SimulatedStore(relay, self.database, self.network, engine=s.engine)
        relay.clock = ProcessClock(self.loop, 1000.0 * self.random.random())

        def make() -> EventProducer:
            return EventProducer(
                relay.store,
                SimulatedBroker(relay, self.cluster, relay.store),
                options=RelayOptions(
                    in_flight_rows=s.in_flight_rows,
                    in_flight_bytes=60_000,
                    chunk_rows=s.chunk_rows,
                    batch_bytes=s.batch_bytes,
                    poll_seconds=1.0,
                    sweep_rows_per_second=s.sweep_rows,
                    max_active_relays=s.slots,
                    lease_seconds=LEASE_SECONDS,
                    standby_seconds=0.7,
                    stop_seconds=STOP_SECONDS,
                    backoff_max_seconds=2.0,
                    on_dead_letter="hold_key" if s.hold_key else "skip",
                    retention_seconds=s.retention_seconds,
                ),
                publish_deadline_seconds=DEADLINE_SECONDS,
                owner=relay.name,
                observer=Watch(self, relay),
                clock=relay.clock,
                random=Random(self.random.random()),
                canary=CanaryOptions(
                    topic=next(iter(s.topics)) if s.canary_seconds else "",
                    every_seconds=s.canary_seconds or 60.0,
                ),
            )

        relay.producer = relay.context.run(make)
        relay.task = self.loop.create_task(relay.producer.run(), context=relay.context)
        relay.task.add_done_callback(lambda task: self._ended(relay), context=self.loop.world)
        self.relays.append(relay)
        self.trace(relay.name, "starts")

    def _ended(self, relay: Relay) -> None:
        """`run` returned: the process leaves, whatever else it has under way."""
        now = self.loop.time()
        self.trace(relay.name, "has stopped")
        self.oracle.stalled(self._terms(relay))
        self.loop.kill(relay)
        error = None if relay.task.cancelled() else relay.task.exception()
        if error is not None:
            self.oracle.broken("I9", f"{relay.name} died of {error!r}")
        elif relay.stop_by is None:
            self.oracle.broken("I9", f"{relay.name} ended, and nobody asked it to")
        elif now > relay.stop_by + SLACK_SECONDS:
            self.oracle.broken("I9", f"{relay.name} took {now - relay.stop_by:.1f} s too long")

    def _terms(self, relay: Process) -> list[TermSeen]:
        return [term for term in self.oracle.terms.values() if term.owner == relay.name]

    def _unclean(self, relay: Process) -> None:
        self.oracle.trouble(self._terms(relay))

    def everyone_in_trouble(self, *, overtaken: bool = False) -> None:
        """A fault that no relay can help."""
        self.oracle.trouble(self.oracle.terms.values(), overtaken=overtaken)

    def crash(self, relay: Process) -> None:
        """As `kill -9`; another one starts a little later."""
        if relay.alive:
            self.trace(relay.name, "is killed")
            self._lose(relay)
            self.loop.later(0.05 + self.random.random(), self.replace)

    def _crash_between_steps(self, process: Process) -> None:
        if isinstance(process, Operator):
            self.operators.killed(process)
            return
        self.hit["crash"] += 1
        self.crash(process)

    def _lose(self, relay: Process) -> None:
        terms = self._terms(relay)
        self.oracle.trouble(terms)
        self.oracle.stalled(terms)
        self.loop.kill(relay)

    def replace(self) -> None:
        """Start a relay, unless as many run as should."""
        if self.closing:
            return
        if sum(1 for relay in self.relays if relay.alive) < self.scenario.relays:
            self.start()

    def stop(self, relay: Relay) -> None:
        """SIGTERM."""
        if relay.alive and relay.stop_by is None:
            self.trace(relay.name, "gets SIGTERM")
            relay.stop_by = self.loop.time() + STOP_SECONDS
            self.loop.call_soon(relay.producer.stop, context=relay.context)
            self.loop.later(STOP_SECONDS + SLACK_SECONDS, self._must_have_stopped, relay)

    def leave(self, relay: Relay) -> None:
        """SIGTERM; another one starts a little later."""
        self.stop(relay)
        self.loop.later(0.2 + self.random.random(), self.replace)

    def woken(self, relay: Relay) -> None:
        """It stood still. A signal that came meanwhile is heard only now."""
        relay.store.asked_at = self.loop.time()
        if relay.stop_by is not None:
            relay.stop_by = self.loop.time() + STOP_SECONDS
            self.loop.later(STOP_SECONDS + SLACK_SECONDS, self._must_have_stopped, relay)

    def _must_have_stopped(self, relay: Relay) -> None:
        assert relay.stop_by is not None
        late = self.loop.time() > relay.stop_by + SLACK_SECONDS / 2
        if relay.alive and not relay.frozen and late:
            self.oracle.broken("I9", f"{relay.name} has not stopped within its budget")

    def living(self) -> list[Relay]:
        """Relays that run and were not asked to stop."""
        return [relay for relay in self.relays if relay.alive and relay.stop_by is None]

    # From the beginning to the end

    def run(self) -> Violation | None:
        """Live through the scenario."""
        asyncio_events._set_running_loop(self.loop)
        before = set_knobs(knobs(self.scenario))
        try:
            self._run()
        finally:
            set_knobs(before)
            self.oracle.violation = self.oracle.violation or self._bug()
            found = self.oracle.violation
            self.loop.over()
            asyncio_events._set_running_loop(None)
        return found

    def _bug(self) -> Violation | None:
        failed = self.loop.failed
        return None if failed is None else Violation("bug", repr(failed))

    def _run(self) -> None:
        from tests.simulation.faults import Faults

        scenario, loop = self.scenario, self.loop
        faults = Faults(self)
        for write in scenario.writes:
            loop.later(write.at, lambda write=write: loop.create_task(self.writers.write(write)))
        for fault in scenario.faults:
            loop.later(fault.at, faults.begin, fault)
        for operation in scenario.operations:
            loop.later(operation.at, self.operators.begin, operation)
        for n in range(scenario.relays):
            loop.later(0.3 * n * self.random.random(), self.start)
        if not self._steps_until(lambda: loop.time() >= BUSY_SECONDS):
            return
        if scenario.lasting == OUTAGE:
            if not self._stop_in_an_outage():
                return
            faults.end(lasting="")
        else:
            faults.end(lasting=scenario.lasting)
        promise = "I7" if scenario.lasting else "I2"
        if not self._settles(lambda: faults.blocked(self.oracle.unfinished()), promise):
            return
        faults.end(lasting="")
        if not self._settles(faults.clear_dead_letters, "I2"):
            return
        if self._operators_end():
            self._close()

    def _operators_end(self) -> bool:
        """With nothing in their way."""
        deadline = self.loop.time() + SETTLE_SECONDS
        operators = self.operators
        if not self._steps_until(lambda: operators.all_done() or self.loop.time() > deadline):
            return False
        if not operators.all_done():
            self.oracle.broken("I2", "a command of an operator never ends")
        return operators.all_done()

    def _stop_in_an_outage(self) -> bool:
        """Everybody gets SIGTERM while nothing answers; then others start, and all is well."""
        loop, network, cluster = self.loop, self.network, self.cluster
        cluster.slow = 30.0
        self.everyone_in_trouble()
        self.closing = True
        if not self._steps_until(lambda: loop.time() >= BUSY_SECONDS + 0.3):
            return False
        self.trace("fault", OUTAGE)
        self.hit[OUTAGE] += 1
        network.hangs = True
        cluster.hangs = self.random.random() < 0.5
        self.everyone_in_trouble()
        some = [relay for relay in self.living() if not relay.frozen]
        for relay in some:
            self.stop(relay)
        if not self._steps_until(lambda: not any(relay.alive for relay in some)):
            return False
        network.hangs = cluster.hangs = self.closing = False
        cluster.slow = 1.0
        self.everyone_in_trouble()
        return True

    def _close(self) -> None:
        """Every relay stops, with nothing in its way."""
        loop, living = self.loop, self.living()
        for relay in living:
            if not relay.frozen and loop.time() - relay.store.asked_at > IDLE_SECONDS:
                self.oracle.broken("I9", f"{relay.name} neither has a lease nor asks for one")
        self.closing = True
        terms = [relay.store.term for relay in living if not relay.frozen]
        for relay in living:
            self.stop(relay)
            relay.stop_by = loop.time() + PROMPT_SECONDS
        self._steps_until(lambda: not any(relay.alive for relay in self.relays))
        # Not those whose hand-over a fault lost that began before the end.
        nonces = {term.nonce for term in terms if term is not None and not term.unclean}
        kept = nonces & set(self.database.leases.owners_by_lane().values())
        if kept and self.oracle.violation is None:
            self.oracle.broken("I9", "lanes are not handed back")

    def _steps_until(self, done) -> bool:
        loop, oracle = self.loop, self.oracle
        while not done():
            for _ in range(5):
                if not loop.step():
                    return True
                if oracle.violation is not None or loop.failed is not None:
                    return False
            if loop.steps > MOST_STEPS:
                oracle.broken("I9", "the relays are busy without an end")
                return False
        return True

    def _settles(self, left, promise: str) -> bool:
        """Whether nothing is *left* soon."""
        deadline = self.loop.time() + SETTLE_SECONDS
        look_at = 0.0
        waiting: list[Event] = []

        def settled() -> bool:
            nonlocal look_at, waiting
            now = self.loop.time()
            if now < look_at:
                return False
            look_at = now + 0.25
            waiting = left() if self.oracle.unsettled or self.writers.writing or look_at else []
            return (not waiting and not self.writers.writing) or now > deadline

        if not self._steps_until(settled):
            return False
        if waiting:
            row = waiting[0].row
            text = f"{len(waiting)} rows wait for ever, the first is {row.id} of {row.topic}/{row.key!r}"
            self.oracle.broken(promise, text)
            return False
        return True
