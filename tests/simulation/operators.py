"""
Operators of the simulation: the real code of `replay`, `purge`, `dead-letters requeue` and `discard`, each in a
process that may be killed between any two of its steps, over statements and batches that may go wrong.

Whoever was killed, or could not go on, gives the same command again: a replay with its file.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from outbox_relay.cli import dead_letter_work
from outbox_relay.errors import OutboxRelayError, StoreUnavailable
from outbox_relay.operations.purging import HandPurge, PurgePaused
from outbox_relay.operations.replay_state import ReplayOrder, ReplayState
from outbox_relay.operations.replaying import EvenPace, Replay, Told
from outbox_relay.operations.selection import EventFilter
from outbox_relay.relay.dead_letters import Found, Selection
from outbox_relay.relay.outcomes import Outcome
from outbox_relay.relay.ports import Aged, PurgePlan, Record, Row
from outbox_relay.relay.purge import PURGE
from outbox_relay.relay.wire import Encoder
from outbox_relay.schema import Status
from tests.simulation.broker import SimulatedBroker
from tests.simulation.loop import Process
from tests.simulation.oracle import Call, Event, Replayed, TermSeen
from tests.simulation.scenario import Operation

if TYPE_CHECKING:
    from tests.simulation.world import World

AGAIN_SECONDS = 0.5
"""So long after it failed a command is given again."""

_BEGINNING = datetime(1970, 1, 1)  # noqa: DTZ001 - as the tables have it
_LOST = ("answer lost", "statement lost", "statement late")


class Operator(Process):
    """The process of a command."""

    work: Work


class Work:
    """A command, given until it has done what it was to do."""

    names: tuple[str, ...] = ()
    """Its statements, one of which may go wrong."""

    def __init__(self, world: World, operation: Operation) -> None:
        self.world = world
        self.operation = operation
        self.done = False

    async def run(self, access: OperatorAccess) -> None:
        """Give the command once."""
        raise NotImplementedError


class OperatorAccess:
    """An operator's connection: nobody tests which server answers, since each command has its own."""

    def __init__(self, process: Process, world: World) -> None:
        self.process = process
        self._world = world
        self._server = world.database.server

    @property
    def server(self) -> str:
        """Who answers now."""
        return self._world.database.server

    def arrives(self, channel: int) -> None:
        """A statement reaches the server, if it still is the one of this connection."""
        if self.server != self._server:
            raise StoreUnavailable("the server has gone away")

    async def ask(self, name: str, effect: Callable[[], Any]) -> Any:
        """One statement."""
        answer: asyncio.Future[Any] = self._world.loop.create_future()
        self._world.network.statement(self, name, 0, effect, None, answer)  # type: ignore[arg-type]
        return await answer


class Operators:
    """All operators of one world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._count = 0
        self.works: list[Work] = []

    def begin(self, operation: Operation) -> None:
        """Somebody gives a command."""
        work = WORKS[operation.kind](self._world, operation)
        self._world.hit[f"operator: {operation.kind}"] += 1
        self.works.append(work)
        process = self._start(work)
        if operation.killed_after:
            process.crash_at_step = operation.killed_after
        if operation.goes_wrong < len(_LOST):
            name = work.names[operation.which % len(work.names)]
            self._world.network.arm(process, _LOST[operation.goes_wrong], name)

    def _start(self, work: Work) -> Operator:
        world = self._world
        self._count += 1
        process = Operator(f"operator-{self._count}")
        process.work = work
        world.trace(process.name, "begins", work.operation.kind)
        task = world.loop.create_task(
            work.run(OperatorAccess(process, world)), context=process.context
        )
        task.add_done_callback(lambda _: self._ended(process, task), context=world.loop.world)
        return process

    def _ended(self, process: Operator, task: asyncio.Task[None]) -> None:
        world, error = self._world, task.exception()
        if not process.alive:
            return  # killed before anybody saw how it ended; the command is given again as it is
        world.loop.kill(process)
        if error is None:
            process.work.done = True
            world.trace(process.name, "has done it")
        elif isinstance(error, OutboxRelayError):
            world.trace(process.name, "could not:", type(error).__name__)
            world.loop.later(AGAIN_SECONDS, self._start, process.work)
        else:
            world.oracle.broken("bug", f"{process.work.operation.kind} died of {error!r}")

    def killed(self, process: Operator) -> None:
        """As `kill -9`; the command is given again."""
        world = self._world
        world.hit["operator killed"] += 1
        world.trace(process.name, "is killed")
        world.loop.kill(process)
        world.loop.later(AGAIN_SECONDS * (0.5 + world.random.random()), self._start, process.work)

    def all_done(self) -> bool:
        """Whether every command has done what it was to do."""
        return all(work.done for work in self.works)


# Dead letters


class Letters:
    """The `DeadLetters` port as far as commands that change them need it."""

    def __init__(self, access: OperatorAccess, world: World, asked: set[bytes]) -> None:
        self._access = access
        self._database = world.database
        self._oracle = world.oracle
        self._hit = world.hit
        self._asked = asked

    async def find(
        self, selection: Selection, *, after_id: int = 0, limit: int = 1000
    ) -> list[Found]:
        def effect() -> list[Found]:
            rows = [self._database.rows[row_id] for row_id in self._database.dead]
            found = [
                Found(
                    s.row.id,
                    s.row.topic,
                    UUID(bytes=s.row.event_id),
                    "invalid_record",
                    _BEGINNING + timedelta(seconds=s.settled_at),
                )
                for s in rows
                if s.row.id > after_id
            ]
            if selection.last_id is not None:
                found = [letter for letter in found if letter.id <= selection.last_id]
            if (at := selection.known_at) is not None:
                found = [letter for letter in found if letter.dead_at and letter.dead_at <= at]
            return found[:limit]

        return await self._access.ask("find", effect)

    async def requeue(self, ids: Sequence[int]) -> int:
        def effect() -> int:
            dead = [row_id for row_id in ids if row_id in self._database.dead]
            for row_id in dead:
                self._database.requeue(row_id)
            self._hit["dead letter changed"] += len(dead)
            return len(dead)

        return await self._access.ask("requeue", effect)

    async def discard(self, ids: Sequence[int]) -> int:
        def effect() -> int:
            dead = [row_id for row_id in ids if row_id in self._database.dead]
            for row_id in dead:
                if self._database.rows[row_id].row.event_id not in self._asked:
                    self._oracle.broken("I2", f"row {row_id} is discarded, and nobody was asked")
                self._database.discard(row_id)
            self._hit["dead letter changed"] += len(dead)
            return len(dead)

        return await self._access.ask("discard", effect)


class Change(Work):
    """`dead-letters requeue --all` or `discard --all`."""

    names = ("find", "requeue", "discard")

    async def run(self, access: OperatorAccess) -> None:
        asked: set[bytes] = set()
        letters: Any = Letters(access, self.world, asked)
        surveyed = await dead_letter_work.survey(letters, Selection())
        for letter in await letters.find(Selection(last_id=surveyed.last_id)):
            asked.add(letter.event_id.bytes)
        # Somebody reads the question.
        await asyncio.sleep(self.operation.seconds)
        await dead_letter_work.act_on_all(
            letters,
            Selection(),
            surveyed,
            act=letters.requeue if self.operation.kind == "requeue" else letters.discard,
            acted=lambda found: None,
            pace=dead_letter_work.Pace(self.operation.rows_at_once),
            advance=lambda rows: None,
        )


class NeverStopped:
    """Stands in for the signals of a real process."""

    signal = None

    def is_set(self) -> bool:
        return False

    async def wait_for(self, seconds: float) -> None:
        await asyncio.sleep(0.02)


@contextmanager
def no_signals() -> Iterator[NeverStopped]:
    """As `dead_letter_work.stop_signals`, without a real process around it."""
    yield NeverStopped()


# Purge by hand


class Purger:
    """Where rows are deleted by hand."""

    def __init__(self, access: OperatorAccess, world: World) -> None:
        self._access = access
        self._database = world.database
        self._hit = world.hit

    async def aged(self, plan: PurgePlan) -> list[Aged]:
        return await self._access.ask("aged", lambda: self._database.aged(plan))

    async def purge_by_hand(self, ids: Sequence[int], plan: PurgePlan) -> int:
        def effect() -> int:
            count = self._database.purge_by_hand(ids, plan)
            self._hit["row purged by hand"] += count
            return count

        return await self._access.ask("purge", effect)

    async def close(self) -> None:
        return


class PurgeByHand(Work):
    """`purge --older-than`."""

    names = ("aged", "purge")

    async def run(self, access: OperatorAccess) -> None:
        world = self.world

        async def is_paused() -> str | None:
            paused = await access.ask("paused", lambda: PURGE in world.database.paused)
            return "paused" if paused else None

        async def sleep(seconds: float) -> bool:
            await asyncio.sleep(0.01)
            return True

        purge = HandPurge(
            Purger(access, world),
            Status.PRODUCED,
            self.operation.seconds,
            is_paused,
            sleep,
            clock=world.loop.time,
        )
        purge._walk.pace.rows = self.operation.rows_at_once
        try:
            await purge.run()
        except PurgePaused:
            return


# Replay


class ReplayRows:
    """As `operations.replay_rows.ReplayRows`."""

    def __init__(self, access: OperatorAccess, world: World) -> None:
        self._access = access
        self._database = world.database

    async def pages(
        self, *, after_id: int, last_id: int, rows: int
    ) -> AsyncIterator[tuple[list[Row], int]]:
        while after_id < last_id:
            page = await self._access.ask(
                "page", lambda after=after_id: self.page(after, last_id, rows)
            )
            after_id = page[-1].id if len(page) >= rows else last_id
            yield page, after_id
        yield [], last_id

    def page(self, after_id: int, last_id: int, rows: int) -> list[Row]:
        """Produced rows, oldest first."""
        return [
            stored.row
            for row_id, stored in sorted(self._database.rows.items())
            if after_id < row_id <= last_id and stored.status is Status.PRODUCED
        ][:rows]

    async def payload(self, row_id: int) -> bytes | None:
        return await self._access.ask("payload", lambda: self._database.payload(row_id))


class ReplayBroker(SimulatedBroker):
    """A producer of the replay's own: no lease, and the copies are on purpose."""

    def __init__(self, process: Process, work: PublishAgain) -> None:
        super().__init__(process, work.world.cluster, None)
        self._seen = work.seen
        self._hit = work.world.hit

    async def publish(self, topic: str, partition: int, records: Sequence[Record]) -> Outcome:
        cluster = self._cluster
        events = [self._seen.sends(topic, record) for record in records]
        call = Call(TermSeen("", self._process.name), [event for event in events if event])
        seqs = [int(record.seq) for record in records]
        cluster.trace(self._process.name, "publishes", topic, partition, seqs)
        answer: asyncio.Future[Outcome] = cluster.loop.create_future()
        self._request(topic, partition, call, answer)
        outcome: Outcome = await self._answer(answer)
        cluster.trace(self._process.name, type(outcome).__name__.lower(), topic, seqs)
        return outcome

    def _appended(self, call: Call) -> None:
        self._hit["row published again"] += len(call.events)
        self._seen.appended(call.events)


class PublishAgain(Work):
    """`replay --all --resume FILE`."""

    names = ("survey", "page", "page", "payload")

    def __init__(self, world: World, operation: Operation) -> None:
        super().__init__(world, operation)
        number = len(world.operators.works) + 1
        topics = sorted(world.scenario.topics)
        self.order = ReplayOrder(
            which=EventFilter(),
            to_topic=topics[operation.which % len(topics)] if operation.which % 3 == 0 else None,
            as_new=operation.which % 2 == 0,
            replay_id=f"{number:032x}",
        )
        self.file: ReplayState | None = None
        self.seen = Replayed(world.oracle, self.order.event_id, self.order.to_topic)
        self._incarnation = 0

    async def run(self, access: OperatorAccess) -> None:
        world = self.world
        if self.file is None:
            last_id, produced = await access.ask("survey", self._survey)
            self.seen.expected = produced
            self._incarnation = world.database.incarnation
            self.file = ReplayState(last_id=last_id, rows=len(produced))
        work = Replay(
            self.order,
            ReplayRows(access, world),
            ReplayBroker(access.process, self),
            Encoder(source="/simulated", max_payload_bytes=100_000),
            batch_bytes=world.scenario.batch_bytes,
            told=Told(saved=self._save),
            jitter=lambda: 0.5,
            clock=world.loop.time,
        )
        after = await work.run(
            self.file, EvenPace(4.0 * self.operation.rows_at_once), rest=self._rest
        )
        assert after.done
        if world.database.incarnation == self._incarnation:
            # Else marks were lost, and with them what is produced.
            self.seen.ended({s.row.event_id for s in world.database.rows.values()})

    def _survey(self) -> tuple[int, dict[bytes, Event]]:
        rows = self.world.database.rows
        produced = {s.row.event_id: s.event for s in rows.values() if s.status is Status.PRODUCED}
        return max((i for i, s in rows.items() if s.committed), default=0), produced

    def _save(self, state: ReplayState) -> None:
        self.file = replace(state)

    async def _rest(self, seconds: float) -> bool:
        await asyncio.sleep(0.02)
        return True


WORKS: dict[str, Callable[[World, Operation], Work]] = {
    "replay": PublishAgain,
    "purge": PurgeByHand,
    "requeue": Change,
    "discard": Change,
}
