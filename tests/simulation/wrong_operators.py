"""What operators do, done wrongly. Each is the real command, or the relay that heeds it, with one rule taken out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from outbox_relay.cli import dead_letter_work
from outbox_relay.operations.replaying import Replay
from outbox_relay.relay import canary
from outbox_relay.relay.outcomes import Acked, Unknown
from outbox_relay.relay.pauses import Pauses
from outbox_relay.relay.ports import CANARY_DEAD, PurgePlan
from tests.simulation.database import Database
from tests.simulation.operators import PublishAgain, ReplayBroker, ReplayRows

Patch = Any


def replay_ignores_order(patch: Patch) -> None:
    """A replay publishes each page from its newest row."""
    original = Replay._publish_page

    async def publish(self: Replay, page: Sequence[Any]) -> int:
        return await original(self, page[::-1])

    patch.setattr(Replay, "_publish_page", publish)


def replay_remembers_too_soon(patch: Patch) -> None:
    """A replay notes how far it is before a page is settled: killed in between, it leaves the page out."""
    original = Replay._publish_page

    async def publish(self: Replay, page: Sequence[Any]) -> int:
        if page:
            self._told.saved(replace(self._states[-1], after_id=page[-1].id))
        return await original(self, page)

    run = Replay.run

    async def runs(self: Replay, state: Any, *parts: Any, **more: Any) -> Any:
        self._states = [state]
        saved = self._told.saved

        def save(now: Any) -> None:
            self._states.append(now)
            saved(now)

        self._told.saved = save
        return await run(self, state, *parts, **more)

    patch.setattr(Replay, "_publish_page", publish)
    patch.setattr(Replay, "run", runs)


def replay_takes_unknown_for_done(patch: Patch) -> None:
    """A replay goes on after a batch without an answer."""
    original = ReplayBroker.publish

    async def publish(self: ReplayBroker, *parts: Any) -> Any:
        outcome = await original(self, *parts)
        return Acked() if isinstance(outcome, Unknown) else outcome

    patch.setattr(ReplayBroker, "publish", publish)


def replay_of_what_waits(patch: Patch) -> None:
    """A replay reads rows whatever their status is."""

    def page(self: ReplayRows, after_id: int, last_id: int, rows: int) -> list[Any]:
        found = sorted(self._database.rows.items())
        return [s.row for i, s in found if after_id < i <= last_id and s.committed][:rows]

    patch.setattr(ReplayRows, "page", page)


def replay_begins_anew(patch: Patch) -> None:
    """A replay as new that goes on gives other new ids than before: an inbox would handle events twice."""
    original = PublishAgain.run

    async def run(self: PublishAgain, access: Any) -> None:
        self.order = replace(self.order, replay_id=f"{1000 + int(access.process.name[9:]):032x}")
        await original(self, access)

    patch.setattr(PublishAgain, "run", run)


def purge_by_hand_takes_all_below(patch: Patch) -> None:
    """A purge by hand deletes every row up to the last one that is due."""
    original = Database.purge_by_hand

    def purge(self: Database, ids: Sequence[int], plan: PurgePlan) -> int:
        if plan.older_than_seconds < 10:
            for row_id in [i for i in self.pending if i <= ids[-1] and self.rows[i].committed]:
                stored = self.rows.pop(row_id)
                self.oracle.deleted(stored.event, plan.status)
                self._leave(self.pending, row_id)
        return original(self, ids, plan)

    patch.setattr(Database, "purge_by_hand", purge)


def discards_what_died_since(patch: Patch) -> None:
    """Dead letters that came after somebody was asked are discarded with the others."""
    patch.setattr(dead_letter_work.Survey, "last_id", 10**9)
    patch.setattr(dead_letter_work.Survey, "has", lambda surveyed, letter: True)


def discards_what_died_before_a_moment(patch: Patch) -> None:
    """Dead letters are meant by when they died, though the database's clock may be set back."""

    def has(surveyed: Any, letter: Any) -> bool:
        return dead_letter_work._died(letter) <= max(surveyed.died, default=0)

    patch.setattr(dead_letter_work.Survey, "has", has)


def resume_skips(patch: Patch) -> None:
    """A topic that goes on is read from where the others are; what it left behind is nobody's."""
    follow = Pauses._follow_operator

    def followed(self: Pauses) -> bool:
        follow(self)
        return False

    patch.setattr(Pauses, "_follow_operator", followed)
    patch.setattr(Pauses, "_try_to_resume", _without_a_rewind(Pauses._try_to_resume))


def _without_a_rewind(resume: Any) -> Any:
    def resumed(self: Pauses, *parts: Any) -> bool:
        resume(self, *parts)
        return False

    return resumed


def canary_that_is_dead_sings(patch: Patch) -> None:
    """A canary that became a dead letter counts as acked."""
    fate = canary.fate

    def wrong(seconds: float | None, *facts: float) -> Any:
        return fate(0.0 if seconds == CANARY_DEAD else seconds, *facts)

    patch.setattr(canary, "fate", wrong)


def canary_that_is_gone_sings(patch: Patch) -> None:
    """A canary whose row is gone counts as acked, also where rows are kept for a week."""
    fate = canary.fate

    def wrong(seconds: float | None, waited: float, retention_seconds: float) -> Any:
        return fate(seconds, waited, 0.0)

    patch.setattr(canary, "fate", wrong)
