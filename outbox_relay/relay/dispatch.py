"""
From rows to outcomes: routes rows to tracks, publishes each track's batches in order, and acts on
what `decide` says.

The invariant that everything here serves: a relay publishes row n only after every earlier row of
its (topic, key) is acked or durably dead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from functools import partial
from typing import assert_never

from outbox_relay.errors import BrokerUnavailable, LeaseLost, StoreUnavailable, TopicUnavailable
from outbox_relay.relay import decide as decisions
from outbox_relay.relay.careful import Careful
from outbox_relay.relay.decide import Backoff, TrustWindow, decide
from outbox_relay.relay.gate import Gate
from outbox_relay.relay.held import HeldKeys
from outbox_relay.relay.marker import Marker
from outbox_relay.relay.outage import BrokerWatch
from outbox_relay.relay.outcomes import Acked, FailureKind, Outcome, RejectReason, Unknown, Unsent
from outbox_relay.relay.partitioning import KeyPartitions
from outbox_relay.relay.pauses import Pauses
from outbox_relay.relay.ports import Row
from outbox_relay.relay.reading import Reading
from outbox_relay.relay.surroundings import Surroundings
from outbox_relay.relay.track import Batch, Route, Track, Unreadable, next_batch
from outbox_relay.relay.wire import Encoder


class Dispatcher:
    """Routes, tracks and pauses of one term."""

    def __init__(
        self,
        around: Surroundings,
        *,
        reading: Reading,
        encoder: Encoder,
        marker: Marker,
        trust: TrustWindow,
    ) -> None:
        self._around = around
        self._holding = around.holding
        self._reading = reading
        self._encoder = encoder
        self._marker = marker
        self._trust = trust
        self._ended = asyncio.Event()
        self._backoff = Backoff(max_seconds=around.options.backoff_max_seconds)
        self._routes: dict[str, Route] = {}
        self._gate = Gate(around.clock)
        self._in_doubt: set[int] = set()
        self.careful = Careful(around, self._ended)
        self.watch = BrokerWatch(around, self._ended, self._fail)
        self.held = HeldKeys(around)
        self.pauses = Pauses(
            around,
            routes=self._routes,
            reading=reading,
            watch=self.watch,
            held=self.held,
            learn=self._learn,
        )
        self.failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    # Routing

    def route(self, rows: Iterable[Row]) -> None:
        """Put *rows*, oldest first, on their tracks. Rows of what pauses stay pending."""
        reading = self._reading
        topic: str | None = None
        if not self._holding.all:
            lanes = self._holding.lanes
            rows = [row for row in rows if row.lane in lanes]
        for row in self.held.without_held(rows) if self.held.is_on else rows:
            if row.topic != topic:  # neighbours are often alike
                topic = row.topic
                route = self._routes.get(topic) or self._new_route(topic)
            if route.paused:
                continue
            if route.partitions is None:
                reading.take(row)
                route.waiting.append(row)
                continue
            track = route.track_of(row)
            if track.parked:
                continue
            reading.take(row)
            track.queue.append(row)
            if track.task is None:
                self._start(route, track)

    def _new_route(self, topic: str) -> Route:
        # None that an operator paused: rows of those are not read.
        route = self._routes[topic] = Route(topic)
        self._learn(route)
        return route

    def _learn(self, route: Route) -> None:
        """Ask how many partitions the topic has; its rows wait meanwhile."""
        route.lookup = asyncio.create_task(self._look_up(route))

    def _start(self, route: Route, track: Track) -> None:
        track.task = asyncio.create_task(self._run_track(route, track))

    async def _look_up(self, route: Route) -> None:
        try:
            while not self._ended.is_set():
                try:
                    count = await self._around.broker.partitions(route.topic)
                except TopicUnavailable as error:
                    kind = FailureKind.AUTH if error.unauthorised else FailureKind.UNKNOWN_TOPIC
                    self._around.observer.topic_unavailable(route.topic, kind)
                    self.pauses.pause(route, str(error))
                    return
                except BrokerUnavailable as error:
                    self._around.observer.log("broker_unavailable", error=str(error))
                    await self.watch.wait_until_up()
                    continue
                route.partitions = KeyPartitions(count)
                rows, route.waiting = route.waiting, []
                for row in rows:
                    track = route.track_of(row)
                    track.queue.append(row)
                    if track.task is None:
                        self._start(route, track)
                return
        except BaseException as error:  # noqa: BLE001 - a bug ends the term; it must not end in silence
            self._broke_off(error)
        finally:
            route.lookup = None

    # Publishing

    async def _run_track(self, route: Route, track: Track) -> None:
        try:
            while track.queue and not self._ended.is_set():
                has_place = await self._gate.enter()
                try:
                    if not await self._publish_next(route, track):
                        return
                finally:
                    if has_place:
                        self._gate.leave()
        except BaseException as error:  # noqa: BLE001 - LeaseLost, or a bug: the term ends
            self._broke_off(error)
        finally:
            track.task = None
            track.sent_at = None

    async def _publish_next(self, route: Route, track: Track) -> bool:
        """Publish what waits for *track* now, as one batch. False if it was dropped."""
        if not track.queue or self._ended.is_set():
            # Let go while it waited for its turn.
            return True
        most = min(route.batch_bytes, self._around.options.batch_bytes)
        make = partial(next_batch, encoder=self._encoder, batch_bytes=most)
        batch = await self.careful.next_batch(track, make) if self.careful.on else make(track)
        if batch is None:
            return True
        if isinstance(batch, Unreadable):
            await self._dead_letter(route, track, batch.row, batch.reason, batch.detail)
            await self.careful.given_up(batch.row)
            return True
        tracing = self._around.tracing
        if tracing is None:
            return await self._publish(route, track, batch)
        records = tracing.begin(route.topic, track.partition, batch.rows, batch.records)
        batch = Batch(batch.rows, records, batch.byte_count)
        try:
            return await self._publish(route, track, batch)
        finally:
            tracing.ended(batch.rows, "not published")

    async def _publish(self, route: Route, track: Track, batch: Batch) -> bool:
        """Publish *batch* until it is settled. False if it was dropped, still pending."""
        while await self._may_publish():
            if self._holding.giving:
                batch = self._without_given(batch)
                if not batch.rows:
                    return True
            outcome = await self._attempt(route, track, batch)
            answers = not isinstance(outcome, Unknown) or await self._around.broker.probe()
            decision = decide(
                outcome,
                records=len(batch.rows),
                unknown_in_a_row=track.unknown_in_a_row,
                rejected_in_a_row=len(route.rejected_keys),
                broker_answers=answers,
            )
            match decision:
                case decisions.MarkProduced():
                    return True
                case decisions.Split():
                    return await self._publish_halves(route, track, batch)
                case decisions.DeadLetter(reason=reason, detail=detail):
                    row = batch.rows[0]
                    route.rejected_keys.add(row.id if row.key is None else row.key)
                    await self._dead_letter(route, track, row, reason, detail)
                    return True
                case decisions.PublishAgain():
                    await self._pause_for(track.unknown_in_a_row)
                case decisions.AwaitBroker():
                    await self.watch.wait_until_up()
                case decisions.ParkPartition(detail=detail):
                    self.pauses.park(route, track, detail)
                case decisions.PauseTopic(detail=detail):
                    self.pauses.pause(route, detail)
                case _:
                    assert_never(decision)
            if track.parked or route.paused:
                break
        self.pauses.drop(batch.rows)
        self.pauses.drop(track.unsent())
        return False

    async def _publish_halves(self, route: Route, track: Track, batch: Batch) -> bool:
        first, second = batch.halves()
        if await self._publish(route, track, first):
            # A key of the second may be held by now. Its later rows were perhaps queued before that:
            # they must not go while these wait.
            held = [row for row in second.rows if self.held.holds(row)]
            if held:
                self.pauses.drop(held)
                self.pauses.drop(track.take_out(self.held.holds))
                second = second.without(held)
            return not second.rows or await self._publish(route, track, second)
        self.pauses.drop(second.rows)
        return False

    def _without_given(self, batch: Batch) -> Batch:
        """*batch* without the rows of lanes that are given back: they stay pending."""
        given = [row for row in batch.rows if row.lane in self._holding.giving]
        self.pauses.drop(given)
        return batch.without(given)

    def let_go(self) -> None:
        """Drop what waits of the lanes that are given back; what is under way goes on."""
        giving = self._holding.giving
        for route in self._routes.values():
            self.pauses.drop(row for row in route.waiting if row.lane in giving)
            route.waiting = [row for row in route.waiting if row.lane not in giving]
            for track in route.tracks.values():
                self.pauses.drop(track.take_out(lambda row: row.lane in giving))

    async def _attempt(self, route: Route, track: Track, batch: Batch) -> Outcome:
        around = self._around
        started = around.clock.now()
        # Of a batch that stays unsent the first time counts: what waits behind it keeps room.
        track.sent_at = track.sent_at or started
        outcome = await around.broker.publish(route.topic, track.partition, batch.records)
        if isinstance(outcome, Unsent):
            return outcome
        track.sent_at = None
        if isinstance(outcome, Acked):
            self._acked(route, track, batch, started)
        elif isinstance(outcome, Unknown):
            track.unknown_in_a_row += 1
            self._in_doubt.update(row.id for row in batch.rows)
            around.observer.publish_failed(route.topic, outcome)
            if around.tracing is not None:
                around.tracing.troubled(batch.rows, outcome.detail)
            around.observer.log(
                "publish_unknown",
                topic=route.topic,
                partition=track.partition,
                rows=len(batch.rows),
                fault=outcome.fault,
                error=outcome.detail,
            )
        else:
            # An answer: the partition is well, only these records are not.
            track.unknown_in_a_row = 0
            if outcome.reason is RejectReason.TOO_LARGE and len(batch.rows) > 1:
                # The topic's limit is for whole batches. Later ones must not run into it again.
                route.batch_bytes = batch.byte_count // 2
        return outcome

    def _acked(self, route: Route, track: Track, batch: Batch, started: float) -> None:
        around = self._around
        # Broker first, database second. A crash in between publishes the batch again; the other
        # order would lose it, and nobody would notice.
        ids = [row.id for row in batch.rows]
        self._marker.add(ids)
        if self._in_doubt and (again := self._in_doubt.intersection(ids)):
            self._in_doubt -= again
            around.observer.redelivered(len(again))
        now = around.clock.now()
        self.watch.acked(now)
        track.unknown_in_a_row = track.parkings = route.pauses = 0
        route.rejected_keys.clear()
        if around.tracing is not None:
            around.tracing.acked(batch.rows)
        around.observer.published(route.topic, len(batch.rows), batch.byte_count, now - started)
        oldest = batch.rows[0].created_us
        around.observer.latency((around.clock.wall_us() - oldest) / 1e6, len(batch.rows))

    async def _dead_letter(
        self, route: Route, track: Track, row: Row, reason: RejectReason, detail: str
    ) -> None:
        """Give *row* up. Returns when that is durable: only then may its key go on."""
        around = self._around
        failures = 0
        while True:
            try:
                await around.store.mark_dead(
                    row.id, f"{reason}: {detail}", around.lease.term, requeued_us=row.requeued_us
                )
                break
            except LeaseLost as error:
                if self._holding.is_over(error):
                    raise
            except StoreUnavailable as error:
                if error.ends_term:
                    raise
                around.observer.log("dead_letter_failed", row_id=row.id, error=str(error))
                failures += 1
                jitter = around.random.random()
                # Also while the term ends: it is tried until the budget of the stop is spent.
                await around.clock.sleep(self._backoff.delay_seconds(failures, jitter=jitter))
        self._reading.settled([row.id])
        self._in_doubt.discard(row.id)
        self.held.give_up(row)
        if around.tracing is not None:
            around.tracing.ended([row], f"dead letter: {reason}")
        self.pauses.drop(track.take_out(self.held.holds))
        around.observer.dead_letter(route.topic, reason)
        around.observer.log(
            "dead_letter", topic=route.topic, row_id=row.id, reason=reason, error=detail
        )

    # Waiting

    async def _may_publish(self) -> bool:
        """Wait until the lease is trusted for a whole deadline. False when the term ends."""
        clock = self._around.clock
        while not self._ended.is_set():
            if self._trust.may_publish(clock.now()):
                return True
            await clock.wait(self._ended, 0.05)
        return False

    async def _pause_for(self, failures: int) -> None:
        if failures:
            delay = self._backoff.delay_seconds(failures, jitter=self._around.random.random())
            await self._around.clock.wait(self._ended, delay)

    # The end

    def _broke_off(self, error: BaseException) -> None:
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task and not task.cancelling():
            error = RuntimeError(
                "an adapter gave up a task, whose rows would be in flight for ever"
            )
        if not isinstance(error, Exception):
            raise error
        self._fail(error)

    def _fail(self, error: Exception) -> None:
        if not self.failure.done():
            self.failure.set_exception(error)

    def end(self) -> None:
        """Publish nothing more. What is under way goes on to its outcome."""
        self._ended.set()
        self.watch.up.set()

    async def settle(self) -> None:
        """Wait for the outcomes of what is under way."""
        while tasks := self._tasks():
            await asyncio.wait(tasks)

    def cancel(self) -> None:
        """Drop everything: what is under way stays unknown, and its rows pending."""
        self.end()
        for task in self._tasks():
            task.cancel()

    def _tasks(self) -> Sequence[asyncio.Task[None]]:
        found: list[asyncio.Task[None] | None] = [*self.watch.tasks()]
        for route in self._routes.values():
            found.append(route.lookup)
            found += [track.task for track in route.tracks.values()]
        return [task for task in found if task is not None]
