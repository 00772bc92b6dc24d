"""
Forgetting: old rows of an inbox are read by their age, a page at a time, and deleted by their key.

A DELETE by age would lock gaps of the index on MySQL, in which other consumers insert.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.ext.asyncio import AsyncEngine

from outbox_relay.inbox_schema import InboxTables
from outbox_relay.schema import utc_now


@dataclass(frozen=True, slots=True)
class Job:
    """What to forget."""

    tables: InboxTables
    consumer: str
    older_than_seconds: float
    batch_rows: int

    def cutoff(self, connection: Connection) -> datetime:
        """Rows from before it go. By the database's clock, which wrote them."""
        received_at = self.tables.inbox.c.received_at
        now: datetime = connection.execute(
            sa.select(sa.type_coerce(utc_now(), received_at.type))
        ).scalar_one()
        return now - timedelta(seconds=self.older_than_seconds)

    def delete_batch(self, connection: Connection, name: str, cutoff: datetime) -> int:
        """Delete a page of the oldest rows of table *name*; how many."""
        table = self.tables.metadata.tables[name]
        rows = table.c
        identity = rows.event_id if table is self.tables.inbox else rows.scope
        ours = sa.and_(rows.consumer == self.consumer, rows.received_at < cutoff)
        page = sa.select(identity).where(ours).order_by(rows.received_at).limit(self.batch_rows)
        found = connection.execute(page).scalars().all()
        if not found:
            return 0
        # The age is asked again: a key's latest event may have come in between.
        return connection.execute(sa.delete(table).where(ours, identity.in_(found))).rowcount

    @property
    def names(self) -> list[str]:
        """The tables, as their metadata calls them."""
        return [table.key for table in (self.tables.inbox, self.tables.latest)]


def run(engine: Engine, job: Job) -> int:
    """Delete until no old row is left; how many."""
    with engine.connect() as connection:
        cutoff = job.cutoff(connection)
    total = 0
    for name in job.names:
        while True:
            with engine.begin() as connection:
                deleted = job.delete_batch(connection, name, cutoff)
            total += deleted
            if deleted == 0:
                break
    return total


async def run_async(engine: AsyncEngine, job: Job) -> int:
    """The same on an async engine."""
    async with engine.connect() as connection:
        cutoff = await connection.run_sync(job.cutoff)
    total = 0
    for name in job.names:
        while True:
            async with engine.begin() as connection:
                deleted = await connection.run_sync(job.delete_batch, name, cutoff)
            total += deleted
            if deleted == 0:
                break
    return total
