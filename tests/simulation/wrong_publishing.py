"""Relays that publish, mark or give up wrongly. Each is the real one with one rule taken out."""

from __future__ import annotations

import asyncio
from typing import Any

from outbox_relay.errors import LeaseLost, StoreUnavailable
from outbox_relay.relay import decide as decisions
from outbox_relay.relay import dispatch
from outbox_relay.relay.dispatch import Dispatcher
from outbox_relay.relay.marker import Marker
from outbox_relay.relay.outcomes import Acked, Rejected, RejectReason, Unknown, Unsent
from outbox_relay.relay.pauses import Pauses
from outbox_relay.relay.purge import PurgePlan
from outbox_relay.relay.term import TermRun
from outbox_relay.schema import Status
from tests.simulation.database import Database
from tests.simulation.store import SimulatedStore

Patch = Any


def mark_before_ack(patch: Patch) -> None:
    """A row is marked when it is handed to the broker."""
    original = Dispatcher._attempt

    async def attempt(self: Dispatcher, route: Any, track: Any, batch: Any) -> Any:
        self._marker.add([row.id for row in batch.rows])
        return await original(self, route, track, batch)

    patch.setattr(Dispatcher, "_attempt", attempt)


def _counts_as_acked(patch: Patch, kind: type[Unknown | Unsent]) -> None:
    original = Dispatcher._attempt

    async def attempt(self: Dispatcher, route: Any, track: Any, batch: Any) -> Any:
        outcome = await original(self, route, track, batch)
        if isinstance(outcome, kind):
            self._acked(route, track, batch, self._around.clock.now())
            return Acked()
        return outcome

    patch.setattr(Dispatcher, "_attempt", attempt)


def unknown_is_acked(patch: Patch) -> None:
    """No answer counts as an ack."""
    _counts_as_acked(patch, Unknown)


def unsent_is_acked(patch: Patch) -> None:
    """A batch that a broker's quota kept from being sent counts as acked."""
    _counts_as_acked(patch, Unsent)


def unsent_goes_without_asking(patch: Patch) -> None:
    """A batch that was kept from being sent goes later, whoever has its lanes by then."""
    original = Dispatcher._attempt

    async def attempt(self: Dispatcher, route: Any, track: Any, batch: Any) -> Any:
        while isinstance(outcome := await original(self, route, track, batch), Unsent):
            pass
        return outcome

    patch.setattr(Dispatcher, "_attempt", attempt)


def _decide(patch: Patch, change: Any) -> None:
    original = decisions.decide

    def decide(outcome: Any, **facts: Any) -> Any:
        return change(outcome, facts) or original(outcome, **facts)

    patch.setattr(dispatch, "decide", decide)


def dead_letter_on_an_outage(patch: Patch) -> None:
    """A row is given up after some attempts without an answer."""

    def change(outcome: Any, facts: Any) -> Any:
        if isinstance(outcome, Unknown) and facts["unknown_in_a_row"] > 1 and facts["records"] == 1:
            reason = RejectReason.INVALID_RECORD
            return decisions.DeadLetter(reason=reason, detail="given up")
        return None

    _decide(patch, change)


def refused_without_end(patch: Patch) -> None:
    """A batch that is refused is published again, as it is."""

    def change(outcome: Any, facts: Any) -> Any:
        return decisions.PublishAgain() if isinstance(outcome, Rejected) else None

    _decide(patch, change)


def refused_batch_given_up(patch: Patch) -> None:
    """A batch that is refused makes dead letters of all its rows."""

    async def halves(self: Dispatcher, route: Any, track: Any, batch: Any) -> bool:
        for row in batch.rows:
            reason = RejectReason.INVALID_RECORD
            await self._dead_letter(route, track, row, reason, "in a refused batch")
        return True

    patch.setattr(Dispatcher, "_publish_halves", halves)


def second_half_forgotten(patch: Patch) -> None:
    """Of a batch that is refused, only the first half goes on."""

    async def halves(self: Dispatcher, route: Any, track: Any, batch: Any) -> bool:
        return await self._publish(route, track, batch.halves()[0])

    patch.setattr(Dispatcher, "_publish_halves", halves)


def queued_behind_what_was_dropped(patch: Patch) -> None:
    """Half a refused batch is left pending for its key, and later rows of the key in the queue go."""

    async def halves(self: Dispatcher, route: Any, track: Any, batch: Any) -> bool:
        first, second = batch.halves()
        if await self._publish(route, track, first):
            held = [row for row in second.rows if self.held.holds(row)]
            self.pauses.drop(held)
            second = second.without(held)
            return not second.rows or await self._publish(route, track, second)
        self.pauses.drop(second.rows)
        return False

    patch.setattr(Dispatcher, "_publish_halves", halves)


def goes_on_after_unknown(patch: Patch) -> None:
    """A batch without an answer is left for later, and its track goes on."""
    original = Dispatcher._publish

    async def publish(self: Dispatcher, route: Any, track: Any, batch: Any) -> bool:
        if not await self._may_publish():
            return False
        outcome = await self._attempt(route, track, batch)
        if isinstance(outcome, Unknown):
            self.pauses.drop(batch.rows)
            return True
        return isinstance(outcome, Acked) or await original(self, route, track, batch)

    patch.setattr(Dispatcher, "_publish", publish)


def filtered_by_available_at(patch: Patch) -> None:
    """A row without an ack is tried later by itself; reads leave it out until then."""
    publish, route_rows = Dispatcher._publish, Dispatcher.route

    async def later(self: Dispatcher, route: Any, track: Any, batch: Any) -> bool:
        if not await self._may_publish():
            return False
        outcome = await self._attempt(route, track, batch)
        if isinstance(outcome, Unknown):
            due = self._around.clock.now() + 1.0
            self.__dict__.setdefault("later", {}).update({r.event_id: due for r in batch.rows})
            self.pauses.drop(batch.rows)
            return True
        return isinstance(outcome, Acked) or await publish(self, route, track, batch)

    def route(self: Dispatcher, rows: Any) -> None:
        due, now = self.__dict__.get("later", {}), self._around.clock.now()
        route_rows(self, [row for row in rows if due.get(row.event_id, 0.0) <= now])

    patch.setattr(Dispatcher, "_publish", later)
    patch.setattr(Dispatcher, "route", route)


def two_batches_at_once(patch: Patch) -> None:
    """A track publishes its next batch before the last one is acked."""

    async def publish_next(self: Dispatcher, route: Any, track: Any) -> bool:
        while track.queue and not self._ended.is_set():
            batch = dispatch.next_batch(track, self._encoder, batch_bytes=600)
            if isinstance(batch, dispatch.Unreadable):
                reason = RejectReason.UNREADABLE
                await self._dead_letter(route, track, batch.row, reason, batch.detail)
            else:
                asyncio.create_task(self._publish(route, track, batch))  # noqa: RUF006
                await asyncio.sleep(0)
        return True

    patch.setattr(Dispatcher, "_publish_next", publish_next)


def dead_letter_not_durable(patch: Patch) -> None:
    """A key goes on while its dead letter is still being written."""
    original = Dispatcher._dead_letter

    async def dead_letter(self: Dispatcher, *what: Any) -> None:
        asyncio.create_task(original(self, *what))  # noqa: RUF006

    patch.setattr(Dispatcher, "_dead_letter", dead_letter)


def mark_without_status(patch: Patch) -> None:
    """Marks test the term, and not that the row is pending."""
    patch.setattr(
        Database,
        "to_mark",
        lambda self, ids: [self.rows[i] for i in dict.fromkeys(ids) if i in self.rows],
    )


def given_up_after_a_requeue(patch: Patch) -> None:
    """A statement that comes late makes a dead letter of a row that was requeued meanwhile."""
    patch.setattr(Database, "to_give_up", lambda self, row_id, requeued_us: self.to_mark([row_id]))


def mark_without_term(patch: Patch) -> None:
    """Marks do not test the term."""
    patch.setattr(Database, "fence", lambda self, ids, term: self.owners(ids))


def queued_mark_after_a_failover(patch: Patch) -> None:
    """A connection takes whatever server answers: what waits to be marked is marked there."""
    patch.setattr(SimulatedStore, "check_server", lambda self, server: None)


def mark_given_up(patch: Patch) -> None:
    """A mark whose outcome is not known is not repeated."""

    async def mark(self: Marker, ids: Any) -> None:
        try:
            await self._record(ids, self._holding.lease.term)
        except StoreUnavailable as error:
            if error.ends_term:
                raise

    patch.setattr(Marker, "_mark", mark)


def swallowed_cancellation(patch: Patch) -> None:
    """A task that is told to end while it marks goes on for ever."""
    original = Marker._mark

    async def mark(self: Marker, ids: Any) -> None:
        while True:
            try:
                return await original(self, ids)
            except (asyncio.CancelledError, LeaseLost):
                await asyncio.sleep(0.5)

    patch.setattr(Marker, "_mark", mark)


def lanes_back_before_the_marks(patch: Patch) -> None:
    """A relay that stops hands its lanes back before what was acked is marked."""

    async def settle(self: TermRun) -> None:
        await self._dispatcher.settle()

    patch.setattr(TermRun, "_settle", settle)


def stuck_partition_keeps_the_room(patch: Patch) -> None:
    """A partition without an answer is never parked: its rows wait where others could be."""
    patch.setattr(Pauses, "free_room", lambda self, now: None)

    def change(outcome: Any, facts: Any) -> Any:
        return decisions.PublishAgain() if isinstance(outcome, Unknown) else None

    _decide(patch, change)


def purge_by_id_alone(patch: Patch) -> None:
    """The purge deletes what is old enough, whatever has become of it."""

    def to_purge(self: Database, ids: Any, plan: PurgePlan) -> Any:
        return [self.rows[i] for i in ids if i in self.rows]

    def aged(self: Database, plan: PurgePlan) -> Any:
        from outbox_relay.relay.ports import Aged

        return [
            Aged(i, True, s.row.topic, s.row.event_id, s.error)
            for i, s in sorted(self.rows.items())
            if i > plan.after_id and s.status is not Status.DEAD
        ][: plan.limit]

    patch.setattr(Database, "to_purge", to_purge)
    patch.setattr(Database, "aged", aged)
