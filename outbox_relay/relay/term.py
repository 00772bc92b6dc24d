"""
One term: from the lease to its end. Joins reading, dispatching, marking and renewing.

Cursor, open ids and ids in flight live and die with the term.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

from outbox_relay.errors import StoreUnavailable
from outbox_relay.relay.canary import Canary
from outbox_relay.relay.decide import Backoff, TrustWindow
from outbox_relay.relay.dispatch import Dispatcher
from outbox_relay.relay.hints import HINT_GAP_SECONDS
from outbox_relay.relay.keeper import Keeper
from outbox_relay.relay.marker import Marker
from outbox_relay.relay.ports import ReadPlan, Row, Waiting
from outbox_relay.relay.purge import Purge
from outbox_relay.relay.quiet import Quiet
from outbox_relay.relay.reading import NOTE_SECONDS, Reading
from outbox_relay.relay.surroundings import Surroundings
from outbox_relay.relay.waiting import WAITING_ROWS, Cause, Late, together, without_database
from outbox_relay.relay.wire import Encoder

FIRST_POLL_SECONDS = 0.01
SCHEMA_SECONDS = 10.0
BACKLOG_CAP = 100_000
SAMPLE_REST = 20
"""A sample may pass very many rows that are gone: it takes no more than a twentieth of the time."""


class TermRun:
    """The work of one term, as long as `run` lasts."""

    def __init__(self, around: Surroundings, *, encoder: Encoder, trust: TrustWindow) -> None:
        options = around.options
        self._around = around
        self.reading = Reading(
            settle_seconds=around.store.settle_seconds,
            chunk_rows=options.chunk_rows,
            in_flight_rows=options.in_flight_rows,
            in_flight_bytes=options.in_flight_bytes,
            safe=around.lease.noted_id,
            lanes=around.lease.lanes,
        )
        self._marker = Marker(
            around.store,
            around.holding,
            clock=around.clock,
            observer=around.observer,
            random=around.random,
            on_marked=self._on_marked,
            delete=options.retention_seconds == 0,
        )
        self._purge = Purge(around, busy=lambda: self.reading.room() < options.in_flight_rows // 2)
        # Two would delete the same rows.
        self._purge.is_ours = lambda: 0 in around.lease.lanes
        self._dispatcher = Dispatcher(
            around, reading=self.reading, encoder=encoder, marker=self._marker, trust=trust
        )
        self._room = asyncio.Event()
        self._stopping = asyncio.Event()
        self._database_is_back = asyncio.Event()
        self._quiet = Quiet(self.reading, self._dispatcher.held, around.clock.now())
        self._keeper = Keeper(
            around,
            trust=trust,
            quiet=self._quiet,
            reading=self.reading,
            let_go=self._dispatcher.let_go,
            careful=self._dispatcher.careful,
        )
        self._next_schema = around.clock.now() + SCHEMA_SECONDS
        self._trust = trust
        self._causes: dict[Cause, Late] = {}
        self._database_away_us: int | None = None

    async def run(self, *, until_empty: bool = False) -> None:
        """
        Relay until `stop`, or with *until_empty* until nothing is left to publish.

        Raises LeaseLost, ServerChanged or SchemaMismatch when the term is over by itself.
        """
        around = self._around
        reader = self._spawn(self._read(until_empty))
        background = [
            self._spawn(self._marker.run()),
            self._spawn(self._keeper.run()),
            self._spawn(self._note()),
            self._spawn(self._sample()),
            self._spawn(self._purge.run()),
        ]
        if around.canary.topic:
            background.append(self._spawn(Canary(around).run()))
        tasks: list[asyncio.Future[Any]] = [reader, *background, self._dispatcher.failure]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if reader.done() and not reader.exception():
                self._keeper.stop()
                self._dispatcher.end()
                settling = self._spawn(self._settle())
                tasks[0] = settling
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
            await around.store.release(around.lease)
        finally:
            self.stop()
            self._dispatcher.cancel()
            for task in tasks:
                task.cancel()
            await asyncio.gather(reader, *tasks, return_exceptions=True)

    def stop(self) -> None:
        """Read nothing more, settle what is under way, mark it, hand the lanes back."""
        self._stopping.set()
        self._around.hinted.set()
        self._purge.stop()
        self._room.set()

    @staticmethod
    def _spawn(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return asyncio.create_task(work)

    async def _settle(self) -> None:
        await self._dispatcher.settle()
        await self._marker.flush()

    def _on_marked(self, ids: Sequence[int]) -> None:
        self.reading.settled(ids)
        self._keeper.marked()
        self._room.set()

    # Reading

    async def _read(self, until_empty: bool) -> None:
        clock, observer = self._around.clock, self._around.observer
        backoff = Backoff(initial_seconds=0.1, max_seconds=2.0)
        pause = FIRST_POLL_SECONDS
        failures = 0
        while not self._stopping.is_set():
            observer.cycle()
            observer.in_flight(len(self.reading.in_flight), self.reading.bytes_in_flight)
            self._dispatcher.pauses.tick()
            self.reading.forget_settled()
            if not self._may_read():
                self._room.clear()
                await clock.wait(self._room, 0.1)
                continue
            # A hint that comes while the read is under way asks for another one.
            self._around.hinted.clear()
            started = clock.now()
            try:
                await self._take_in_gained()
                found = await self._read_once()
            except StoreUnavailable as error:
                self._raise_if_over(error)
                failures += 1
                observer.log("read_failed", error=str(error))
                jitter = self._around.random.random()
                await clock.wait(self._stopping, backoff.delay_seconds(failures, jitter=jitter))
                continue
            if failures:
                self._database_is_back.set()
            failures = 0
            goes_on = self._dispatcher.pauses.will_go_on()
            if until_empty and self.reading.idle() and not goes_on and await self._all_drained():
                return
            if found >= self._around.options.chunk_rows // 2 or self.reading.goes_on():
                pause = FIRST_POLL_SECONDS
                await clock.sleep(0)
                continue
            pause = FIRST_POLL_SECONDS if found else pause * 1.5
            if self.reading.gained is not None:
                pause = FIRST_POLL_SECONDS
            pause = min(pause, self._around.options.poll_seconds)
            await self._rest(pause, started)

    async def _rest(self, pause: float, read_at: float) -> None:
        """Until the next read is due, by the clock or by a hint."""
        clock = self._around.clock
        if not self._stopping.is_set() and await clock.wait(self._around.hinted, pause):
            gap = read_at + HINT_GAP_SECONDS - clock.now()
            if gap > 0:
                await clock.wait(self._stopping, gap)

    def _may_read(self) -> bool:
        """Whether there is room for half a chunk, and anywhere to publish it."""
        if not self._around.holding.lanes:
            return False
        if self._dispatcher.pauses.everything() or not self._dispatcher.watch.up.is_set():
            return False
        if not self._dispatcher.held.loaded:
            return False
        room = self.reading.room()
        return room >= self._around.options.chunk_rows // 2 or (
            room > 0 and len(self.reading.in_flight) == 0
        )

    @staticmethod
    def _raise_if_over(error: StoreUnavailable) -> None:
        if error.ends_term:
            raise error

    async def _read_once(self) -> int:
        """One read with what belongs to it. How many rows were new."""
        around, reading = self._around, self.reading.turn()
        started = around.clock.now()
        plan = reading.plan(now=started)
        rows = await self._answer(plan)
        if rows and self._quiet.rested:
            # Nobody has asked for a while what operators want: not a row before that.
            await self._look()
            self._dispatcher.pauses.tick()
            if not self._may_read():
                return 0
            plan = reading.plan(now=around.clock.now())
            rows = await self._answer(plan)
        fresh, peek = reading.page(plan, rows)
        if plan.open_ids and (late := sum(row.id in plan.open_ids for row in fresh)):
            around.observer.late_rows("open", late)
        self._quiet.found(len(rows), now=started)
        around.observer.read(len(fresh), around.clock.now() - started)
        if not await self._dispatch(fresh):
            return len(fresh)
        reading.dispatched(fresh)
        if peek is not None:
            reading.peeked(peek, await around.store.uncommitted_ids(peek))
        self.reading.join()
        if self._dispatcher.careful.on and self.reading.idle():
            await self._dispatcher.careful.caught_up()
        if self._quiet.sweep_due(started):
            await self._sweep()
        return len(fresh)

    async def _take_in_gained(self) -> None:
        """Begin to read lanes that came during the term."""
        if self._keeper.gained:
            # What the last owner gave up of them holds up keys: known before their first row.
            goes_on = await self._dispatcher.held.reload()
            lanes, self._keeper.gained = self._keeper.gained, frozenset()
            self.reading.gain(lanes & self._around.holding.lanes)
            if goes_on:
                # The cursor has passed rows of that key: the first of them comes first.
                self.reading.rewind()

    async def _all_drained(self) -> bool:
        """Whether the lanes of others are empty too."""
        around = self._around
        return around.holding.all or (await around.store.sample(cap=1)).rows == 0

    async def _answer(self, plan: ReadPlan) -> list[Row]:
        """The store's answer to *plan*; how long it takes says how much the next may ask for."""
        clock, rows = self._around.clock, None
        started = clock.now()
        try:
            rows = await self._around.store.read(plan)
        finally:
            self.reading.answered(plan, rows, seconds=clock.now() - started)
        return rows

    async def _sweep(self) -> None:
        around, reading = self._around, self.reading
        for part in reading.parts():
            peek = part.peek_open()
            if peek is not None:
                part.peeked(peek, await around.store.uncommitted_ids(peek))
        plan = reading.sweep(around.options.sweep_rows_per_second)
        if plan is None:
            return
        started = around.clock.now()
        rows = await self._answer(plan)
        self._quiet.swept(around.clock.now() - started, now=around.clock.now())
        late = self._dispatcher.pauses.may_go_on(reading.late(rows))
        if late:
            # What somebody requeued is found here on purpose.
            unseen = [row for row in late if row.requeued_us is None]
            if unseen:
                around.observer.late_rows("sweep", len(unseen))
                around.observer.log("late_rows", rows=len(unseen), first_id=unseen[0].id)
            if not await self._dispatch(late):
                return
        reading.swept_to(plan, rows)

    async def _dispatch(self, rows: list[Row]) -> bool:
        """
        Route *rows* in order; large payloads are fetched one by one, as there is room.

        False if a stop came first: nothing may be read after it, since rows are left out.
        """
        start = 0
        # Large payloads of held keys are not even fetched.
        rows = self._dispatcher.held.without_held(rows)
        for index, row in enumerate(rows):
            if row.payload is not None:
                continue
            self._dispatcher.route(rows[start:index])
            start = index + 1
            while self.reading.bytes_in_flight + row.payload_bytes > self.reading.in_flight_bytes:
                if self._stopping.is_set():
                    return False
                self.reading.forget_settled()
                if not self.reading.in_flight:
                    break
                self._around.observer.cycle()
                # Only letting go: what goes on must do so between two reads.
                self._dispatcher.pauses.free_room(self._around.clock.now())
                self._room.clear()
                await self._around.clock.wait(self._room, 0.1)
            payload = await self._around.store.payload(row.id)
            if payload is not None:
                self._dispatcher.route([row._replace(payload=payload)])
        self._dispatcher.route(rows[start:])
        return True

    # Beside it

    async def _note(self) -> None:
        around = self._around
        while True:
            if self._purge.minds_its_word() or not self._quiet.may_rest(around.clock.now()):
                try:
                    await self._look()
                    if around.clock.now() >= self._next_schema:
                        self._next_schema = around.clock.now() + SCHEMA_SECONDS
                        await around.store.check_schema()
                except StoreUnavailable as error:
                    self._raise_if_over(error)
                    around.observer.log("note_failed", error=str(error))
            await around.clock.sleep(NOTE_SECONDS)

    async def _look(self) -> None:
        """What was given out, and what operators want."""
        around = self._around
        # Rows that are deleted on the ack are gone; what was read had been given out.
        read = self.reading.largest_read if around.options.retention_seconds == 0 else 0
        max_id = await around.store.max_id(at_least=read)
        # Noted when the answer is here: every id up to it was given out before.
        now = around.clock.now()
        self.reading.note(max_id, now=now)
        topics = self._purge.operator_wants(await around.store.paused_topics())
        self._dispatcher.pauses.operator_wants(topics)
        await self._dispatcher.held.refresh()
        self._quiet.noted(max_id, now=now)
        self._room.set()

    async def _sample(self) -> None:
        around = self._around
        while True:
            started = around.clock.now()
            self._database_is_back.clear()
            try:
                await self._sample_once()
                around.observer.timed("sample", around.clock.now() - started)
            except StoreUnavailable as error:
                self._raise_if_over(error)
                if self._database_away_us is None:
                    self._database_away_us = around.clock.wall_us()
                causes = without_database(self._causes, since_us=self._database_away_us)
                around.observer.waiting(causes)
                around.observer.log("sample_failed", error=str(error))
            else:
                self._database_away_us = None
            took = around.clock.now() - started
            await around.clock.sleep(around.options.sample_seconds)
            # One that an outage cut off was no load: nobody should see its figures for minutes after.
            rest = SAMPLE_REST * took - around.options.sample_seconds
            if rest > 0:
                await around.clock.wait(self._database_is_back, rest)

    async def _sample_once(self) -> None:
        """Measure the backlog, and where there is one, why it waits."""
        around, held = self._around, self._dispatcher.held
        backlog = await around.store.sample(cap=BACKLOG_CAP)
        around.observer.sampled(backlog)
        found: list[Waiting] = []
        if backlog.rows:
            found = await around.store.waiting(limit=WAITING_ROWS, by_key=held.any())
        # Where the lease or a mark is refused, a broker that is well helps nobody.
        refused = self._marker.failing or self._trust.left(around.clock.now()) <= 0
        turn = Cause.DATABASE if refused else Cause.TURN
        causes = ((self._dispatcher.pauses.cause(w), Late(w.rows, w.oldest_us)) for w in found)
        self._causes = together((turn if c is Cause.TURN else c, late) for c, late in causes)
        around.observer.waiting(self._causes)
