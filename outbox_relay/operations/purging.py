"""
Deleting old rows now, by an operator's word: the steps of the relay's own purge, beside it.

Only rows that are produced go, and dead letters where somebody asks for it; a row that may still be published is
never asked for. It stands still while the purge is paused.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from outbox_relay.errors import OutboxRelayError
from outbox_relay.relay.ports import Aged, PurgePlan
from outbox_relay.relay.purge import Walk, rest_seconds
from outbox_relay.schema import Status

LOOK_ROWS = 2000
COUNT_ROWS = 10_000
ASK_SECONDS = 5.0
"""How often it is asked whether the purge is paused."""


class Purger(Protocol):
    """Where old rows are deleted, without a lease: whoever deletes them, rows that are due are due."""

    async def aged(self, plan: PurgePlan) -> list[Aged]:
        """The rows of *plan*, by id, each with whether it is due, by the database's clock."""

    async def purge_by_hand(self, ids: Sequence[int], plan: PurgePlan) -> int:
        """Delete those of *ids* that are due by *plan*, in one short statement. How many they were."""

    async def close(self) -> None:
        """Let go of every connection."""


class PurgePaused(OutboxRelayError):
    """Somebody paused the purge: nothing more is deleted."""


@dataclass(slots=True)
class PurgeTold:
    """What happens while it works. All may be left as they are."""

    looked: Callable[[int], None] = lambda _: None
    """So many rows more were looked at."""
    deleted: Callable[[Aged], None] = lambda _: None
    """A dead letter is gone."""


@dataclass(slots=True)
class HandPurge:
    """
    The walk over the rows of *status* that are older than *older_than_seconds*.

    *is_paused* says why the purge is paused, or None. Raises PurgePaused before it deletes anything then.
    """

    purger: Purger
    status: Status
    older_than_seconds: float
    is_paused: Callable[[], Awaitable[str | None]]
    sleep: Callable[[float], Awaitable[bool]]
    """Rest so long; whether to go on."""
    told: PurgeTold = field(default_factory=PurgeTold)
    clock: Callable[[], float] = time.monotonic
    rows: int = 0
    """How many were deleted."""
    _walk: Walk = field(init=False)
    _asked_at: float = float("-inf")

    def __post_init__(self) -> None:
        if self.status not in (Status.PRODUCED, Status.DEAD):
            raise ValueError(f"a row that is {self.status.name} may still be published")
        self._walk = Walk(self.status, self.older_than_seconds)

    async def count(self) -> int:
        """How many are due. Deletes nothing."""
        due = 0
        async for found in self._looks(COUNT_ROWS):
            due += sum(row.due for row in found)
        return due

    async def run(self) -> bool:
        """Delete all that is due. False if *sleep* said to stop before that."""
        async for found in self._looks(LOOK_ROWS):
            due = [row for row in found if row.due]
            while due:
                # Dead letters one by one: each that is deleted is told, and no other.
                count = 1 if self.status is Status.DEAD else self._walk.pace.rows
                some, due = due[:count], due[count:]
                if not await self.sleep(await self._delete(some)):
                    return False
        return True

    async def _looks(self, rows: int) -> AsyncIterator[list[Aged]]:
        after_id = 0
        while True:
            found = await self.purger.aged(self._walk.plan(after_id, rows))
            self.told.looked(len(found))
            yield found
            if len(found) < rows:
                return
            after_id = found[-1].id
            await asyncio.sleep(0)

    async def _delete(self, some: Sequence[Aged]) -> float:
        """Delete *some*; how long to rest then."""
        started = self.clock()
        if started - self._asked_at >= ASK_SECONDS:
            self._asked_at = started
            reason = await self.is_paused()
            if reason is not None:
                raise PurgePaused(
                    f"the purge is paused: {reason}; let it go on with outbox-relay resume --purge"
                )
        started = self.clock()
        plan = self._walk.plan(0, len(some))
        count = await self.purger.purge_by_hand([row.id for row in some], plan)
        seconds = self.clock() - started
        self._walk.pace.deleted(len(some), seconds)
        self.rows += count
        if count and self.status is Status.DEAD:
            self.told.deleted(some[0])
        return rest_seconds(seconds, busy=False)
