"""
Parking: what cannot be published now lets go of its room, and is found again in order.

Parking overflows upward: a partition whose batches get no answer, a topic that is missing or
refuses everything, all topics when an operator says so. Rows of what is parked stay pending and are
skipped; when it goes on, the cursor goes back to the first pending row. Both happen in `tick`, which
the reader calls between two reads: a newer row must not slip in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from outbox_relay.relay.decide import Backoff
from outbox_relay.relay.held import HeldKeys
from outbox_relay.relay.outage import BrokerWatch
from outbox_relay.relay.ports import Row, Waiting
from outbox_relay.relay.reading import Reading
from outbox_relay.relay.surroundings import Surroundings
from outbox_relay.relay.track import Route, Track
from outbox_relay.relay.waiting import Cause

STUCK_SECONDS = 1.0
"""A batch under way for longer, while others are answered, may not keep the room for others."""

FEW_TRACKS = 16
"""So many may wait alone, though no others are known: their rows may fill the room."""

EVERYTHING = "*"

MOST_TRIES = 5
"""Parkings in a row after which a drain (`until_empty`) no longer waits for it."""


class Pauses:
    """Which topics and partitions of a term wait, and until when."""

    def __init__(
        self,
        around: Surroundings,
        *,
        routes: dict[str, Route],
        reading: Reading,
        watch: BrokerWatch,
        held: HeldKeys,
        learn: Callable[[Route], None],
    ) -> None:
        self._around = around
        self._routes = routes
        self._reading = reading
        self._watch = watch
        self._held = held
        self._learn = learn
        self._backoff = Backoff(max_seconds=around.options.backoff_max_seconds)
        self._by_operator: frozenset[str] = frozenset()
        self._wanted: frozenset[str] | None = None

    # Stopping

    def park(self, route: Route, track: Track, detail: str) -> None:
        """Let one partition wait, and the others go on."""
        track.parked = True
        track.parkings += 1
        track.resume_at = self._due(track.parkings)
        self._around.observer.log(
            "partition_parked", topic=route.topic, partition=track.partition, error=detail
        )
        self.drop(track.unsent())

    def pause(self, route: Route, detail: str) -> None:
        """Let a whole topic wait: its settings are at fault, not its records."""
        if not route.paused or route.renewed:
            # Said again each time it is tried in vain: who looks at the log later must see it.
            self._around.observer.log("topic_paused", topic=route.topic, error=detail)
        route.paused = True
        route.renewed = False
        route.pauses += 1
        route.resume_at = self._due(route.pauses)
        self.drop(route.unsent())
        self._tell()

    def drop(self, rows: Iterable[Row]) -> None:
        """Rows that are not published for now."""
        self._reading.dropped([row.id for row in rows])

    def _due(self, failures: int) -> float:
        jitter = self._around.random.random()
        return self._around.clock.now() + self._backoff.delay_seconds(failures, jitter=jitter)

    # An operator's word

    def operator_wants(self, topics: frozenset[str]) -> None:
        """The topics that the control table names; the next `tick` follows."""
        self._wanted = topics

    def by_operator(self, topic: str) -> bool:
        """Whether an operator paused *topic*."""
        return topic in self._by_operator or EVERYTHING in self._by_operator

    def everything(self) -> bool:
        """Whether an operator paused all topics, or nobody has asked yet in this term."""
        return self._wanted is None or EVERYTHING in self._by_operator

    def _follow_operator(self) -> bool:
        if self._wanted is None or self._wanted == self._by_operator:
            return False
        self._around.observer.log("operator_paused", topics=sorted(self._wanted))
        # What goes on was skipped in SQL, perhaps without a route of its own.
        goes_on = bool(self._by_operator - self._wanted)
        self._by_operator = self._wanted
        for route in self._routes.values():
            if self.by_operator(route.topic) and not route.paused:
                route.paused = True
                self.drop(route.unsent())
        self._tell()
        return goes_on

    # Going on

    def tick(self) -> None:
        """Go on with what is due. Call it between two reads."""
        now = self._around.clock.now()
        rewind = self._follow_operator()
        pass_done = self._reading.passed()
        rewind |= self._held.tick(pass_done=pass_done)
        for route in list(self._routes.values()):
            if route.paused:
                rewind |= self._try_to_resume(route, now, pass_done)
                continue
            self._watch_partitions(route)
            for track in route.tracks.values():
                due = track.parked and track.task is None and track.resume_at <= now
                # One pass at a time: else many sick partitions keep the cursor from the tail.
                if due and pass_done:
                    track.parked = False
                    rewind = True
        self.free_room(now)
        if rewind:
            self._reading.rewind()
            self._tell()

    def may_go_on(self, rows: Iterable[Row]) -> list[Row]:
        """*rows* without those that wait for what parks, or a dead letter; they are read again in time."""
        return [row for row in self._held.without_held(rows) if not self._is_parked(row)]

    def _is_parked(self, row: Row) -> bool:
        route = self._routes.get(row.topic)
        if route is None or route.paused or route.partitions is None:
            return route is not None and route.paused
        return route.track_of(row).parked

    def will_go_on(self) -> bool:
        """Whether something waits that has not been tried often yet: it is not given up."""
        return any(
            (r.paused and not self.by_operator(r.topic) and r.pauses <= MOST_TRIES)
            or any(t.parked and t.parkings <= MOST_TRIES for t in r.tracks.values())
            for r in self._routes.values()
        )

    def _try_to_resume(self, route: Route, now: float, pass_done: bool) -> bool:
        """Learn a topic anew once it is due and drained; it goes on when its broker knows it."""
        if route.busy() or self.by_operator(route.topic):
            return False
        if route.renewed:
            if not pass_done:
                return False
            route.paused = route.renewed = False
            return True
        if route.resume_at <= now:
            fresh = Route(route.topic, paused=True, renewed=True, pauses=route.pauses)
            # One more rejection pauses it again, so that a wrong setting costs one dead letter each.
            fresh.rejected_keys = set(list(route.rejected_keys)[1:])
            self._routes[route.topic] = fresh
            self._learn(fresh)
        return False

    def _watch_partitions(self, route: Route) -> None:
        if route.partitions is None:
            return
        used = route.partitions.partitions
        known = self._around.broker.known_partitions(route.topic)
        if known is None or known == used:
            return
        # A key may belong to another partition now: drain the topic, then learn it anew.
        self._around.observer.log("partitions_changed", topic=route.topic, before=used, now=known)
        route.paused = True
        self.drop(route.unsent())

    def free_room(self, now: float) -> None:
        """
        Let go of what waits behind batches that are stuck while the broker answers others.

        Where a broker is only slow, many wait alike. To park most of all tracks would make room for
        nobody, and all their rows would be read once more.
        """
        if self._reading.room() >= self._around.options.chunk_rows // 2:
            return
        stuck, tracks = self._stuck(now)
        some_are_well = len(stuck) <= max(FEW_TRACKS, tracks // 2)
        for route, track, sent_at in stuck:
            late = sent_at + STUCK_SECONDS / 2
            if self._watch.acked_at > late or (some_are_well and self._watch.answered_at > late):
                self.park(route, track, "a batch gets no answer while others do")
            elif some_are_well:
                # Its rows may fill the whole room, so that no other could be acked: ask.
                self._watch.ask()

    def _stuck(self, now: float) -> tuple[list[tuple[Route, Track, float]], int]:
        """What keeps room behind a batch under way for long, and how many tracks there are."""
        found = []
        tracks = 0
        for route in self._routes.values():
            tracks += len(route.tracks)
            for track in route.tracks.values():
                sent_at = track.sent_at
                if track.queue and sent_at is not None and now - sent_at > STUCK_SECONDS:
                    found.append((route, track, sent_at))
        return found, tracks

    def cause(self, waiting: Waiting) -> Cause:
        """Why rows of that topic, or of that topic and key, wait."""
        if self._held.holds_key(waiting.topic, waiting.key):
            return Cause.DEAD
        if self.by_operator(waiting.topic):
            return Cause.PAUSED
        if not self._watch.up.is_set():
            return Cause.BROKER
        route = self._routes.get(waiting.topic)
        if route is None:
            return Cause.TURN
        if route.paused:
            return Cause.TOPIC
        sick = any(track.parked or track.unknown_in_a_row for track in route.tracks.values())
        return Cause.BROKER if sick else Cause.TURN

    def _tell(self) -> None:
        paused = [route.topic for route in self._routes.values() if route.paused]
        parked = sum(t.parked for r in self._routes.values() for t in r.tracks.values())
        self._reading.skip_topics = frozenset(paused) | (self._by_operator - {EVERYTHING})
        self._around.observer.parked(self._reading.skip_topics, parked)
