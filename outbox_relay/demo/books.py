"""
The books: what the database says was committed, waits and was produced.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from outbox_relay.demo.account import Entry
from outbox_relay.demo.shop import Order
from outbox_relay.schema import Status, tables


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxCounts:
    """How many outboxed events stand where."""

    backlog: int
    produced: int
    dead: int


async def count_outbox(engine: AsyncEngine) -> OutboxCounts:
    """Count the outboxed events by status."""
    outbox = tables().outbox
    query = select(outbox.c.status, func.count()).group_by(outbox.c.status)
    async with engine.connect() as connection:
        counts = {row[0]: row[1] for row in await connection.execute(query)}
    return OutboxCounts(
        backlog=counts.get(Status.PENDING, 0),
        produced=counts.get(Status.PRODUCED, 0),
        dead=counts.get(Status.DEAD, 0),
    )


async def committed_events(engine: AsyncEngine) -> list[Entry]:
    """
    Every event that a committed order tells of.

    Reads the shop's orders, not the outbox: an event that the outbox lost must be missed.
    """
    placed = select(Order.placed_event_id, Order.customer_id, Order.placed_number)
    cancelled = select(Order.cancelled_event_id, Order.customer_id, Order.cancelled_number).where(
        Order.cancelled_event_id.is_not(None)
    )
    async with engine.connect() as connection:
        rows = [*await connection.execute(placed), *await connection.execute(cancelled)]
    return [Entry(str(event_id), str(key), number) for event_id, key, number in rows]
