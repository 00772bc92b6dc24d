"""What each kind of fault does to a world, and how it ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from outbox_relay.schema import Status
from tests.simulation.knobs import FEW_DEAD_LETTERS
from tests.simulation.oracle import Event
from tests.simulation.scenario import LEASE_SECONDS, OF_THE_LIST, STATEMENTS, Fault
from tests.simulation.world import Relay, World

Cure = Callable[[], None]


class Faults:
    """The faults of one world. Each method is a kind; what it returns ends it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._cures: dict[int, tuple[str, Cure]] = {}
        self._count = 0
        self._over = False
        self._cleared = False
        self._last: tuple[str, str, int] | None = None

    def begin(self, fault: Fault) -> None:
        """Let it come, now."""
        if self._over:
            return
        kind = fault.kind
        how = getattr(self, "_" + kind.replace(" ", "_").lower())
        world = self._world
        before = world.hit[kind]
        cure = how(fault)
        if cure is False:
            return  # there was nobody to meet
        if kind not in COUNTED_WHEN_MET:
            world.hit[kind] = before + 1
        world.trace("fault", kind, f"for {fault.seconds:.1f} s" if cure else "")
        if cure is not None:
            self._count += 1
            number = self._count
            self._cures[number] = (kind, cure)
            world.loop.later(fault.seconds, self._end_one, number)

    def _end_one(self, number: int) -> None:
        kind, cure = self._cures.pop(number, ("", None))
        if cure is not None:
            self._world.trace("fault", kind, "ends")
            cure()

    def end(self, *, lasting: str) -> None:
        """All of them end; but *lasting* begins, or stays."""
        world = self._world
        self._make_up()
        self._over = True
        world.trace("fault", "all end", f"but {lasting}" if lasting else "")
        for number in list(self._cures):
            self._end_one(number)
        for relay in world.relays:
            relay.crash_at_step = -1
        world.network.armed.clear()
        world.cluster.armed.clear()
        world.database.paused.clear()
        world.cluster.sick.clear()
        while len(world.living()) < min(2, world.scenario.relays):
            world.start()
        topic = next(iter(world.scenario.topics))
        self._last = None
        if lasting == "partition sick":
            world.cluster.sick.add((topic, 0))
            self._last = (lasting, topic, 0)
        elif lasting:
            world.database.paused.add(topic)
            self._last = (lasting, topic, -1)
        if not lasting:
            world.cluster.healed = True
        if lasting and not world.scenario.hold_key:
            # What is requeued lies below the cursor, perhaps behind rows that cannot go.
            self._requeue_all()

    def _make_up(self) -> None:
        """See `Scenario.least_faults`."""
        world = self._world
        while faults_met(world.hit) < world.scenario.least_faults:
            if not world.living():
                world.start()
            world.hit["crash"] += 1
            world.crash(world.living()[0])

    def _requeue_all(self) -> None:
        database = self._world.database
        self._world.cluster.healed = True
        for row_id in list(database.dead):
            if database.rows[row_id].event.kind != "unreadable":
                database.requeue(row_id)

    def blocked(self, events: list[Event]) -> list[Event]:
        """Those of *events* that have no excuse to wait."""
        if self._last is None:
            return self._not_held(events)
        kind, topic, partition = self._last
        world = self._world
        if kind == "partition sick" and world.cluster.topics[topic] > 1:
            return self._not_held(
                [e for e in events if not self._in_partition(e, topic, partition)]
            )
        return self._not_held([e for e in events if e.row.topic != topic])

    def _in_partition(self, event: Event, topic: str, partition: int) -> bool:
        from outbox_relay.relay.partitioning import murmur2

        row, count = event.row, self._world.cluster.topics[topic]
        if row.topic != topic:
            return False
        number = row.id if row.key is None else murmur2(row.key) & 0x7FFFFFFF
        return number % count == partition

    def _not_held(self, events: list[Event]) -> list[Event]:
        if not self._world.scenario.hold_key:
            return events
        dead = {
            (e.row.topic, e.row.key)
            for e in self._world.oracle.events.values()
            if e.status is Status.DEAD and not e.gone
        }
        if self._world.scenario.few and len(self._world.database.dead) > FEW_DEAD_LETTERS:
            return [e for e in events if e.row.key is None]  # whose they are is not known
        return [e for e in events if (e.row.topic, e.row.key) not in dead]

    def clear_dead_letters(self) -> list[Event]:
        """Requeue what is dead, unless nobody can ever read it. What is not settled."""
        world = self._world
        database = world.database
        if not world.scenario.hold_key and not self._cleared:
            self._cleared = True
            self._requeue_all()
        if world.scenario.hold_key:
            for row_id in list(database.dead):
                if database.rows[row_id].event.kind == "unreadable":
                    database.discard(row_id)
                else:
                    database.requeue(row_id)
        return world.oracle.unfinished()

    # Processes

    def _relay(self, fault: Fault) -> Relay | None:
        living = [relay for relay in self._world.living() if not relay.frozen]
        # Whoever holds a term is hit more often than whoever stands by.
        active = [relay for relay in living if relay.producer.active]
        some = active if active and fault.more < 0.8 else living
        return some[fault.which % len(some)] if some else None

    def _crash(self, fault: Fault) -> Cure | None | bool:
        relay = self._relay(fault)
        if relay is None:
            return False
        relay.crash_at_step = relay.steps + 1 + int(60 * fault.more * fault.more)
        return None

    def _arm_statement(self, fault: Fault) -> Cure | None | bool:
        relay = self._relay(fault)
        if relay is None:
            return False
        self._world.network.arm(relay, fault.kind, STATEMENTS[fault.which % len(STATEMENTS)])
        return None

    _crash_at_a_statement = _statement_lost = _answer_lost = _statement_late = _arm_statement

    def _statement_waits_for_a_lock(self, fault: Fault) -> Cure | None | bool:
        relay = self._relay(fault)
        if relay is None:
            return False
        self._world.network.arm(relay, fault.kind, "mark" if fault.which % 3 else "dead")
        return None

    def _arm_batch(self, fault: Fault) -> Cure | None | bool:
        relay = self._relay(fault)
        if relay is None:
            return False
        self._world.cluster.armed.append((relay, fault.kind))
        return None

    def _relay_cut_off_from_the_database(self, fault: Fault) -> Cure | None | bool:
        relay, world = self._relay(fault), self._world
        if relay is None:
            return False
        world._unclean(relay)
        world.network.cut_off.add(relay)

        def cure() -> None:
            world._unclean(relay)
            world.network.cut_off.discard(relay)

        return cure

    _sigterm_after_an_ack = _crash_after_an_ack = _request_lost = _ack_lost = _append_late = (
        _arm_batch
    )

    def _pause(self, fault: Fault) -> Cure | None | bool:
        relay, world = self._relay(fault), self._world
        if relay is None:
            return False
        relay.frozen = True
        relay.stood_still_at = world.loop.time()
        world._unclean(relay)
        world.oracle.stalled(world._terms(relay))

        def wake() -> None:
            if relay.alive:
                world.loop.thaw(relay)
                world.woken(relay)

        if fault.kind == "pause longer than the lease":
            world.loop.later(LEASE_SECONDS + fault.seconds, wake)
        else:
            world.loop.later(fault.seconds, wake)
        return None

    _pause_shorter_than_the_lease = _pause_longer_than_the_lease = _pause

    def _sigterm(self, fault: Fault) -> Cure | None | bool:
        relay, world = self._relay(fault), self._world
        if relay is None:
            return False
        world.stop(relay)
        world.loop.later(0.2 + fault.seconds, world.replace)
        return None

    def _join(self, fault: Fault) -> Cure | None | bool:
        if len(self._world.living()) > 5:
            return False
        self._world.start()
        return None

    # Database

    def _switch(self, on: object, name: str, value: object, calm: object) -> Cure:
        setattr(on, name, value)
        self._world.everyone_in_trouble()

        def cure() -> None:
            setattr(on, name, calm)
            self._world.everyone_in_trouble()

        return cure

    def _database_refuses(self, fault: Fault) -> Cure | None | bool:
        return self._switch(self._world.network, "refuses", True, False)

    def _database_hangs(self, fault: Fault) -> Cure | None | bool:
        return self._switch(self._world.network, "hangs", True, False)

    def _database_slow(self, fault: Fault) -> Cure | None | bool:
        return self._switch(self._world.network, "slow", 50.0 + 800.0 * fault.more, 1.0)

    def _schema_does_not_fit(self, fault: Fault) -> Cure | None | bool:
        return self._switch(self._world.database, "schema_problem", "too old", None)

    def _failover(self, fault: Fault) -> Cure | None | bool:
        world = self._world
        replica, primary = world.database.snapshot(), world.database.server

        def promote() -> None:
            nonlocal replica
            if world.database.server != primary:
                # Another one was promoted meanwhile: this one follows it.
                replica = world.database.snapshot()
            wanted = frozenset(world.database.paused)
            lost = world.database.promote(replica)
            if self._over:
                # A resumption may be lost too: only who asked for it can ask again.
                world.loop.later(1.0, lambda: world.database.paused.intersection_update(wanted))
            world.everyone_in_trouble(overtaken=True)
            world.trace("database", "failover, rows lost:", lost)

        world.loop.later(0.3 * fault.more, promote)
        return None

    def _database_clock_ahead(self, fault: Fault) -> Cure | None | bool:
        self._world.database.clock.ahead += 1.0 + 6.0 * fault.more
        self._world.everyone_in_trouble(overtaken=True)
        return None

    def _database_clock_back(self, fault: Fault) -> Cure | None | bool:
        self._world.database.clock.ahead -= 3.0 * fault.more
        return None

    def _wall_clock_back(self, fault: Fault) -> Cure | None | bool:
        for relay in self._world.relays:
            relay.clock.wall_ahead -= 20.0 * fault.more
        return None

    # Broker

    def _broker_refuses(self, fault: Fault) -> Cure | None | bool:
        return self._switch(self._world.cluster, "refuses", True, False)

    def _broker_hangs(self, fault: Fault) -> Cure | None | bool:
        return self._switch(self._world.cluster, "hangs", True, False)

    def _broker_slow(self, fault: Fault) -> Cure | None | bool:
        return self._switch(self._world.cluster, "slow", 20.0 + 400.0 * fault.more, 1.0)

    def _broker_throttles(self, fault: Fault) -> Cure | None | bool:
        return self._switch(self._world.cluster, "throttles", True, False)

    def _topic(self, fault: Fault) -> str:
        topics = sorted(self._world.scenario.topics)
        return topics[fault.which % len(topics)]

    def _partition_sick(self, fault: Fault) -> Cure | None | bool:
        cluster, topic = self._world.cluster, self._topic(fault)
        place = (topic, int(fault.more * cluster.topics[topic]))
        cluster.sick.add(place)
        return lambda: cluster.sick.discard(place)

    def _topic_missing(self, fault: Fault) -> Cure | None | bool:
        missing, topic = self._world.cluster.missing, self._topic(fault)
        missing.add(topic)
        return lambda: missing.discard(topic)

    def _topic_refuses(self, fault: Fault) -> Cure | None | bool:
        refusing, topic = self._world.cluster.refusing, self._topic(fault)
        refusing.add(topic)
        return lambda: refusing.discard(topic)

    def _partitions_grow(self, fault: Fault) -> Cure | None | bool:
        self._world.cluster.grow(self._topic(fault), 1 + fault.which % 2)
        return None

    # Operators

    def _operator_pauses_a_topic(self, fault: Fault) -> Cure | None | bool:
        topic = self._topic(fault)
        self._world.database.paused.add(topic)
        return lambda: self._world.database.paused.discard(topic)

    def _operator_pauses_everything(self, fault: Fault) -> Cure | None | bool:
        self._world.database.paused.add("*")
        return lambda: self._world.database.paused.discard("*")

    def _operator_requeues(self, fault: Fault) -> Cure | None | bool:
        database = self._world.database
        if not database.dead:
            return False
        if fault.more < 0.5:
            self._world.cluster.healed = True
        for row_id in list(database.dead)[fault.which % 2 :]:
            database.requeue(row_id)
        return None

    def _operator_discards(self, fault: Fault) -> Cure | None | bool:
        database = self._world.database
        if not database.dead:
            return False
        database.discard(database.dead[fault.which % len(database.dead)])
        return None


def faults_met(hit: Counter[str]) -> int:
    """How many of the list came about: no rollbacks, transactions that stay open, or operators."""
    return sum(count for kind, count in hit.items() if kind in OF_THE_LIST)


COUNTED_WHEN_MET = {
    "crash",
    "crash at a statement",
    "crash after an ack",
    "SIGTERM after an ack",
    "statement lost",
    "answer lost",
    "statement late",
    "statement waits for a lock",
    "request lost",
    "ack lost",
    "append late",
}
