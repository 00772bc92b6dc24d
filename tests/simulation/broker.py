"""
The simulated broker: topics with a log for each partition, and for each relay a `MessageBroker` port as
`outbox_relay.brokers.kafka` has it, idempotent: what the client repeats by itself is appended once.
A request whose deadline has passed may still be appended, for as long as it lies in a buffer.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from outbox_relay.errors import BrokerUnavailable, TopicUnavailable
from outbox_relay.relay.outcomes import (
    Acked,
    Fault,
    Outcome,
    Rejected,
    RejectReason,
    Unknown,
    Unsent,
)
from outbox_relay.relay.ports import Record
from tests.simulation.loop import Process, VirtualLoop
from tests.simulation.network import Trace
from tests.simulation.oracle import Call, Event, Oracle
from tests.simulation.scenario import DEADLINE_SECONDS
from tests.simulation.store import SimulatedStore

METADATA_SECONDS = 0.3
"""How long a client may not know of new partitions."""

MOVING_SECONDS = 1.0
"""How long brokers are slow after that."""

LARGE_BYTES = 4000


class Cluster:
    """The brokers, as of now."""

    def __init__(
        self,
        loop: VirtualLoop,
        random: Random,
        oracle: Oracle,
        topics: dict[str, int],
        hit: Counter[str],
        trace: Trace,
    ) -> None:
        self.loop = loop
        self.random = random.random
        self.oracle = oracle
        self.trace = trace
        self.topics = dict(topics)
        self.grown: dict[str, tuple[float, int]] = {}
        self.refuses = False
        self.hangs = False
        self.slow = 1.0
        self.throttles = False
        self.sick: set[tuple[str, int]] = set()
        self.missing: set[str] = set()
        self.refusing: set[str] = set()
        self.healed = False
        """Whether what was refused is taken from now on, as when a limit was raised."""
        self.armed: list[tuple[Process, str]] = []
        self.hit = hit
        self.moving_until = 0.0
        self.on_crash: Callable[[Process], None] = lambda process: None
        self.on_sigterm: Callable[[Any], None] = lambda process: None

    def grow(self, topic: str, by: int) -> None:
        """More partitions."""
        now = self.loop.time()
        self.grown[topic] = (now + METADATA_SECONDS * self.random(), self.topics[topic])
        self.moving_until = now + MOVING_SECONDS
        self.topics[topic] += by

    def known(self, topic: str) -> int:
        """How many partitions clients know of."""
        until, before = self.grown.get(topic, (0.0, 0))
        return before if self.loop.time() < until else self.topics[topic]

    def fault(self, process: Process) -> str:
        """What goes wrong with the next batch of *process*."""
        for index, (whose, kind) in enumerate(self.armed):
            if whose is process:
                del self.armed[index]
                self.hit[kind] += 1
                return kind
        return ""

    def verdict(self, topic: str, partition: int, events: Sequence[Event]) -> Outcome:
        """What the brokers say of a batch that reaches them."""
        if topic in self.missing:
            return Unknown(fault=Fault.TOPIC, detail="unknown topic")
        if (topic, partition) in self.sick:
            return Unknown(fault=Fault.PARTITION, detail="not enough replicas")
        if topic in self.refusing:
            return Rejected(reason=RejectReason.INVALID_RECORD, detail="the topic takes nothing")
        if not self.healed:
            kinds = {event.kind for event in events}
            if "large" in kinds:
                return Rejected(reason=RejectReason.TOO_LARGE, detail="more than the topic's limit")
            if "invalid" in kinds:
                return Rejected(reason=RejectReason.INVALID_RECORD, detail="refused")
        return Acked()


class SimulatedBroker:
    """The `MessageBroker` port of one relay."""

    def __init__(self, process: Process, cluster: Cluster, store: SimulatedStore | None) -> None:
        self._process = process
        self._cluster = cluster
        self._store = store

    def known_partitions(self, topic: str) -> int | None:
        return None if topic in self._cluster.missing else self._cluster.known(topic)

    async def _round_trip(self) -> bool:
        """Whether a broker answers a request for metadata."""
        cluster = self._cluster
        hangs = cluster.hangs
        await asyncio.sleep(0.5 if hangs else 0.001 * cluster.random() * cluster.slow)
        return not (hangs or cluster.hangs or cluster.refuses)

    async def partitions(self, topic: str) -> int:
        if not await self._round_trip():
            raise BrokerUnavailable("no broker answers")
        if topic in self._cluster.missing:
            raise TopicUnavailable(f"topic {topic} does not exist")
        return self._cluster.known(topic)

    async def probe(self) -> bool:
        return await self._round_trip()

    async def close(self, *, timeout_seconds: float) -> None:
        return

    async def publish(self, topic: str, partition: int, records: Sequence[Record]) -> Outcome:
        cluster, oracle = self._cluster, self._cluster.oracle
        assert self._store is not None
        if cluster.throttles:
            # Either before it is queued, or until its deadline: nothing of it goes out.
            await asyncio.sleep(DEADLINE_SECONDS * (1.0 if cluster.random() < 0.1 else 0.5))
            cluster.hit["batch left unsent"] += 1
            return Unsent()
        owners = self._store.lanes()
        call = oracle.sends(self._store.term, topic, records, owners)
        seqs = [int(record.seq) for record in records]
        cluster.trace(self._process.name, "publishes", topic, partition, seqs)
        answer: asyncio.Future[Outcome] = cluster.loop.create_future()
        outcome: Outcome = Unknown(fault=Fault.PARTITION, detail="cancelled")
        try:
            if cluster.random() < 0.2:
                # The client connects first. Whatever happens meanwhile, the batch goes out.
                await asyncio.sleep(0.0005)
            self._request(topic, partition, call, answer)
            outcome = await self._answer(answer)
        finally:
            oracle.answered(
                call, acked=isinstance(outcome, Acked), refused=isinstance(outcome, Rejected)
            )
            cluster.trace(self._process.name, type(outcome).__name__.lower(), topic, seqs)
        return outcome

    @staticmethod
    async def _answer(answer: asyncio.Future[Outcome]) -> Outcome:
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                return await answer
        except TimeoutError:
            return Unknown(fault=Fault.PARTITION, detail="no answer in time")

    def _appended(self, call: Call) -> None:
        self._cluster.oracle.appended(call.events)

    def _request(
        self, topic: str, partition: int, call: Call, answer: asyncio.Future[Outcome]
    ) -> None:
        cluster, process = self._cluster, self._process
        loop, random = cluster.loop, cluster.random
        fault = cluster.fault(process) if cluster.armed else ""
        lost = fault == "request lost" or (cluster.hangs and random() < 0.5)
        silent = fault in ("ack lost", "append late") or cluster.hangs
        way = (0.0005 + 0.002 * random()) * cluster.slow
        if loop.time() < cluster.moving_until:
            way *= 100
        if fault == "append late":
            way = DEADLINE_SECONDS * (0.5 + 3.0 * random())
        elif silent:
            way *= 1 + 200 * random()

        def arrive() -> None:
            if cluster.refuses:
                outcome: Outcome = Unknown(fault=Fault.BROKER, detail="connection refused")
            else:
                outcome = cluster.verdict(topic, partition, call.events)
            if isinstance(outcome, Acked):
                cluster.trace("broker", "appends", topic, [e.row.id for e in call.events])
                self._appended(call)
                if fault == "crash after an ack":
                    cluster.on_crash(process)
            if fault == "SIGTERM after an ack":
                loop.later(0.008 * random(), cluster.on_sigterm, process)
            if not silent:
                loop.later((0.0005 + 0.002 * random()) * cluster.slow, reply, outcome)

        def reply(outcome: Outcome) -> None:
            if not answer.done():
                answer.set_result(outcome)

        if not lost:
            loop.later(way, arrive)
