"""How fast events are written and produced, from two looks at the table."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import sqlalchemy as sa

from outbox_relay.operations.access import Access
from outbox_relay.operations.selection import by_status
from outbox_relay.operations.standing import MOST_ROWS, Standing
from outbox_relay.schema import Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """
    Rows a second since the last look. Ids that were given out and rolled back count as written.

    With `at_least` more were waiting than are counted, and all that were counted are gone.
    """

    seconds: float
    written_per_second: float
    produced_per_second: float
    at_least: bool = False

    def text(self) -> str:
        """For a line on the screen."""
        more = "at least " if self.at_least else ""
        return f"{self.written_per_second:,.1f} written/s, {more}{self.produced_per_second:,.1f} produced/s"


@dataclass(frozen=True, slots=True)
class Mark:
    """
    What waited at one look, and up to which id: at the next, what is missing of it was produced.
    """

    standing: Standing
    upto_id: int
    rows: int


async def mark(access: Access, standing: Standing) -> Mark:
    """Remember *standing*. Reads the id of the last row that was counted, where there are more."""
    if standing.backlog_rows < MOST_ROWS:
        return Mark(standing, standing.newest_id, standing.backlog_rows)
    outbox = access.names.outbox
    last = await access.run(partial(_last_counted, outbox))
    return Mark(standing, last or standing.newest_id, MOST_ROWS)


async def rate(access: Access, before: Mark, now: Standing) -> Rate | None:
    """What moved since *before*; None if no time passed, or the database's clock was set back."""
    if before.standing.read_at is None or now.read_at is None:
        return None
    seconds = (now.read_at - before.standing.read_at).total_seconds()
    if seconds <= 0:
        return None
    waiting = await access.run(partial(_pending_upto, access.names.outbox, before.upto_id))
    written = max(0, now.newest_id - before.standing.newest_id)
    produced = before.rows - waiting
    if before.rows < MOST_ROWS and now.backlog_rows < MOST_ROWS:
        # Also what was written since, and does not wait any more.
        produced += written - (now.backlog_rows - waiting)
    produced -= now.dead_letter_rows - before.standing.dead_letter_rows
    return Rate(
        seconds=seconds,
        written_per_second=written / seconds,
        produced_per_second=max(0, produced) / seconds,
        at_least=before.rows >= MOST_ROWS and not waiting,
    )


def _last_counted(outbox: sa.Table, connection: sa.Connection) -> int | None:
    c: Any = outbox.c
    query = by_status(sa.select(c.id), outbox, Status.PENDING).order_by(c.id)
    found: int | None = connection.execute(query.offset(MOST_ROWS - 1).limit(1)).scalar()
    return found


def _pending_upto(outbox: sa.Table, upto_id: int, connection: sa.Connection) -> int:
    c: Any = outbox.c
    some = by_status(sa.select(c.id), outbox, Status.PENDING).where(c.id <= upto_id)
    counted = sa.select(sa.func.count()).select_from(some.limit(MOST_ROWS).subquery())
    return connection.execute(counted).scalar_one()
