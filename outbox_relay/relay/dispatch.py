"""
From rows to outcomes: routes rows to tracks, publishes each track's batches in order, and acts on
what `decide` says.

The invariant that everything here serves: a relay publishes row n only after every earlier row of
its (topic, key) is acked or durably dead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import assert_never

from outbox_relay.errors import BrokerUnavailable, StoreUnavailable, TopicUnavailable
from outbox_relay.relay import decide as decisions
from outbox_relay.relay.decide import Backoff, TrustWindow, decide
from outbox_relay.relay.marker import Marker
from outbox_relay.relay.options import RelayOptions
from outbox_relay.relay.outcomes import Acked, Outcome, Rejected, RejectReason, Unknown
from outbox_relay.relay.partitioning import KeyPartitions
from outbox_relay.relay.ports import Broker, Clock, Lease, Observer, Row, Store
from outbox_relay.relay.reading import Reading
from outbox_relay.relay.track import Batch, Route, Track, Unreadable, next_batch
from outbox_relay.relay.wire import Encoder

STUCK_SECONDS = 1.0
"""A batch under way for longer, while others are acked, may not keep the room for others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the parts of a term share."""

    store: Store
    broker: Broker
    clock: Clock
    observer: Observer
    random: Random
    options: RelayOptions
    lease: Lease


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
        self._reading = reading
        self._encoder = encoder
        self._marker = marker
        self._trust = trust
        self._routes: dict[str, Route] = {}
        self._operator_paused: frozenset[str] = frozenset()
        self._ended = asyncio.Event()
        self._broker_up = asyncio.Event()
        self._broker_up.set()
        self._prober: asyncio.Task[None] | None = None
        self._asking: asyncio.Task[None] | None = None
        self._answered_at = 0.0
        self._rewind = False
        self._backoff = Backoff(max_seconds=around.options.backoff_max_seconds)
        self.failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    # Routing

    def route(self, rows: Iterable[Row]) -> None:
        """Put *rows*, oldest first, on their tracks. Rows of what pauses stay pending."""
        routes = self._routes
        reading = self._reading
        for row in rows:
            route = routes.get(row.topic)
            if route is None:
                route = self._new_route(row.topic)
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
        route = self._routes[topic] = Route(topic)
        if self._is_paused_by_operator(topic):
            route.paused = True
        else:
            route.lookup = asyncio.create_task(self._look_up(route))
        return route

    def _start(self, route: Route, track: Track) -> None:
        track.task = asyncio.create_task(self._run_track(route, track))

    async def _look_up(self, route: Route) -> None:
        try:
            while not self._ended.is_set():
                try:
                    count = await self._around.broker.partitions(route.topic)
                except TopicUnavailable as error:
                    self._pause(route, str(error))
                    return
                except BrokerUnavailable as error:
                    self._around.observer.log("broker_unavailable", error=str(error))
                    await self._await_broker()
                    continue
                route.partitions = KeyPartitions(count)
                if route.paused:
                    route.paused = False
                    self._rewind = True
                rows, route.waiting = route.waiting, []
                for row in rows:
                    track = route.track_of(row)
                    track.queue.append(row)
                    if track.task is None:
                        self._start(route, track)
                return
        except Exception as error:  # noqa: BLE001 - a bug ends the term; it must not end in silence
            self._fail(error)
        finally:
            route.lookup = None

    # Publishing

    async def _run_track(self, route: Route, track: Track) -> None:
        try:
            while track.queue and not self._ended.is_set():
                batch = next_batch(
                    track,
                    self._encoder,
                    batch_bytes=min(route.batch_bytes, self._around.options.batch_bytes),
                )
                if isinstance(batch, Unreadable):
                    await self._dead_letter(
                        route, batch.row, RejectReason.UNREADABLE, batch.detail
                    )
                elif not await self._publish(route, track, batch):
                    return
        except Exception as error:  # noqa: BLE001 - LeaseLost, or a bug: the term ends
            self._fail(error)
        finally:
            track.task = None
            track.sent_at = None

    async def _publish(self, route: Route, track: Track, batch: Batch) -> bool:
        """Publish *batch* until it is settled. False if it was dropped, still pending."""
        while await self._may_publish():
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
                    route.rejected_keys.add(batch.rows[0].key)
                    await self._dead_letter(route, batch.rows[0], reason, detail)
                    return True
                case decisions.PublishAgain():
                    await self._pause_for(track.unknown_in_a_row)
                case decisions.AwaitBroker():
                    await self._await_broker()
                case decisions.ParkPartition(detail=detail):
                    self._park(route, track, detail)
                case decisions.PauseTopic(detail=detail):
                    self._pause(route, detail)
                case _:
                    assert_never(decision)
            if track.parked or route.paused:
                break
        self._drop(batch.rows)
        self._drop(track.queue)
        track.queue.clear()
        return False

    async def _publish_halves(self, route: Route, track: Track, batch: Batch) -> bool:
        first, second = batch.halves()
        if await self._publish(route, track, first):
            return await self._publish(route, track, second)
        self._drop(second.rows)
        return False

    async def _attempt(self, route: Route, track: Track, batch: Batch) -> Outcome:
        around = self._around
        started = track.sent_at = around.clock.now()
        outcome = await around.broker.publish(route.topic, track.partition, batch.records)
        track.sent_at = None
        if isinstance(outcome, Acked):
            self._acked(route, track, batch, started)
        elif isinstance(outcome, Unknown):
            track.unknown_in_a_row += 1
            around.observer.publish_failed(route.topic, outcome)
            around.observer.log(
                "publish_unknown",
                topic=route.topic,
                partition=track.partition,
                rows=len(batch.rows),
                fault=outcome.fault,
                error=outcome.detail,
            )
        elif isinstance(outcome, Rejected):
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
        self._marker.add([row.id for row in batch.rows])
        now = self._answered_at = around.clock.now()
        track.unknown_in_a_row = track.parkings = route.pauses = 0
        route.rejected_keys.clear()
        around.observer.published(route.topic, len(batch.rows), batch.byte_count, now - started)
        oldest = batch.rows[0].created_us
        around.observer.latency((around.clock.wall_us() - oldest) / 1e6, len(batch.rows))

    async def _dead_letter(self, route: Route, row: Row, reason: RejectReason, detail: str) -> None:
        """Give *row* up. Returns when that is durable: only then may its key go on."""
        around = self._around
        failures = 0
        while True:
            try:
                await around.store.mark_dead(row.id, f"{reason}: {detail}", around.lease.term)
            except StoreUnavailable as error:
                if error.ends_term:
                    raise
                around.observer.log("dead_letter_failed", row_id=row.id, error=str(error))
                failures += 1
                await self._pause_for(failures)
            else:
                break
        self._reading.settled([row.id])
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
        jitter = self._around.random.random()
        delay = self._backoff.delay_seconds(failures, jitter=jitter)
        await self._around.clock.wait(self._ended, delay)

    async def _await_broker(self) -> None:
        """Wait until a broker answers a probe, or the term ends. One probe serves all who wait."""
        if self._prober is None:
            self._broker_up.clear()
            self._around.observer.log("broker_unreachable")
            self._prober = asyncio.create_task(self._probe())
        await self._broker_up.wait()

    async def _probe(self) -> None:
        around = self._around
        backoff = Backoff(max_seconds=1.0)
        failures = 0
        try:
            while not self._ended.is_set() and not await around.broker.probe():
                failures += 1
                delay = backoff.delay_seconds(failures, jitter=around.random.random())
                await around.clock.wait(self._ended, delay)
            if not self._ended.is_set():
                around.observer.log("broker_reachable")
        except Exception as error:  # noqa: BLE001 - a bug ends the term; it must not end in silence
            self._fail(error)
        finally:
            self._prober = None
            self._broker_up.set()

    @property
    def broker_up(self) -> asyncio.Event:
        """Set unless an outage is known: nothing is read meanwhile."""
        return self._broker_up

    # Parking: what cannot be published now lets go of its room, and is found again by `rewind`

    def _park(self, route: Route, track: Track, detail: str) -> None:
        track.parked = True
        track.parkings += 1
        track.resume_at = self._resume_at(track.parkings)
        self._around.observer.log(
            "partition_parked", topic=route.topic, partition=track.partition, error=detail
        )
        self._drop(track.queue)
        track.queue.clear()

    def _pause(self, route: Route, detail: str) -> None:
        if not route.paused:
            self._around.observer.log("topic_paused", topic=route.topic, error=detail)
        route.paused = True
        route.pauses += 1
        route.resume_at = self._resume_at(route.pauses)
        self._drop(route.unsent())
        self._tell_skipped()

    def _resume_at(self, failures: int) -> float:
        jitter = self._around.random.random()
        return self._around.clock.now() + self._backoff.delay_seconds(failures, jitter=jitter)

    def _drop(self, rows: Iterable[Row]) -> None:
        self._reading.dropped([row.id for row in rows])

    def operator_paused(self, topics: frozenset[str]) -> None:
        """The topics that an operator paused, as the control table says now."""
        if topics == self._operator_paused:
            return
        self._around.observer.log("operator_paused", topics=sorted(topics))
        # What is no longer paused was skipped in SQL, perhaps without a route here.
        self._rewind |= bool(self._operator_paused - topics)
        self._operator_paused = topics
        for route in self._routes.values():
            if self._is_paused_by_operator(route.topic) and not route.paused:
                route.paused = True
                self._drop(route.unsent())
        self._tell_skipped()

    def _is_paused_by_operator(self, topic: str) -> bool:
        return topic in self._operator_paused or "*" in self._operator_paused

    def all_paused(self) -> bool:
        """Whether an operator paused everything."""
        return "*" in self._operator_paused

    def tick(self) -> None:
        """Let go on what is due, switch to new partition counts, free the room of stuck tracks."""
        now = self._around.clock.now()
        for route in list(self._routes.values()):
            if route.paused:
                self._try_to_resume(route, now)
                continue
            if route.partitions is not None:
                self._watch_partitions(route, route.partitions.partitions)
            for track in route.tracks.values():
                if track.parked and track.task is None and track.resume_at <= now:
                    track.parked = False
                    self._rewind = True
        if not self._reading.room():
            self._free_room(now)
        if self._rewind:
            # One ordered pass from the first pending row: what was skipped is published before
            # anything newer of its key.
            self._rewind = False
            self._reading.rewind()
            self._tell_skipped()

    def _try_to_resume(self, route: Route, now: float) -> None:
        """Learn a paused topic anew once it is due and drained; it goes on if the broker knows it."""
        if route.resume_at > now or route.busy() or self._is_paused_by_operator(route.topic):
            return
        fresh = Route(route.topic, paused=True, pauses=route.pauses)
        # One more rejection pauses it again, so that what is wrong costs one dead letter a probe.
        fresh.rejected_keys = set(list(route.rejected_keys)[1:])
        self._routes[route.topic] = fresh
        fresh.lookup = asyncio.create_task(self._look_up(fresh))

    def _watch_partitions(self, route: Route, used: int) -> None:
        known = self._around.broker.known_partitions(route.topic)
        if known is not None and known != used:
            # A key may belong to another partition now: drain the topic, then learn it anew.
            self._around.observer.log(
                "partitions_changed", topic=route.topic, before=used, now=known
            )
            route.paused = True
            self._drop(route.unsent())

    def _free_room(self, now: float) -> None:
        """Let go of what waits behind batches that are stuck while the broker answers others."""
        stuck = [
            (route, track)
            for route in self._routes.values()
            for track in route.tracks.values()
            if track.queue and track.sent_at is not None and now - track.sent_at > STUCK_SECONDS
        ]
        for route, track in stuck:
            if track.sent_at is not None and self._answered_at - track.sent_at > STUCK_SECONDS / 2:
                self._park(route, track, "a batch is under way for long while others are answered")
            elif self._asking is None:
                # Its rows may fill the whole room, so that no other could be acked.
                self._asking = asyncio.create_task(self._ask())

    async def _ask(self) -> None:
        try:
            if await self._around.broker.probe():
                self._answered_at = self._around.clock.now()
            else:
                await self._around.clock.wait(self._ended, STUCK_SECONDS)
        except Exception as error:  # noqa: BLE001 - a bug ends the term; it must not end in silence
            self._fail(error)
        finally:
            self._asking = None

    def _tell_skipped(self) -> None:
        paused = [route.topic for route in self._routes.values() if route.paused]
        parked = sum(t.parked for r in self._routes.values() for t in r.tracks.values())
        self._reading.skip_topics = frozenset(paused) | (self._operator_paused - {"*"})
        self._around.observer.parked(self._reading.skip_topics, parked)

    # The end

    def _fail(self, error: Exception) -> None:
        if not self.failure.done():
            self.failure.set_exception(error)

    def end(self) -> None:
        """Publish nothing more. What is under way goes on to its outcome."""
        self._ended.set()
        self._broker_up.set()

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
        found = [self._prober, self._asking]
        for route in self._routes.values():
            found.append(route.lookup)
            found += [track.task for track in route.tracks.values()]
        return [task for task in found if task is not None]
