"""
A consumer's handler under measurement: one row for each event, in one transaction, in one of four ways.

It answers each word that is the name of a way, and ends with any other.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine

from benchmarks.child import say, wait_for_word
from benchmarks.orders import customer
from benchmarks.transactions import measure_transactions
from outbox_relay import uuid7
from outbox_relay.consumer import Delivery, Inbox, decode

ALONE: Final = "handler alone"
INBOX: Final = "with the inbox"
LATEST: Final = "with the inbox, reject_stale"
DUPLICATE: Final = "with the inbox, a duplicate"

_metadata = sa.MetaData()
_invoices = sa.Table(
    "invoices",
    _metadata,
    sa.Column("id", sa.BigInteger, primary_key=True),
    sa.Column("order_id", sa.BigInteger, nullable=False),
)


class Handlers:
    """The ways. Each decodes its delivery, so that they differ in the inbox alone."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._sessions = async_sessionmaker(engine)
        self._plain, self._strict = Inbox("plain"), Inbox("strict", reject_stale=True)
        self._number = 0
        self._repeated = self._delivery()

    def ways(self) -> Mapping[str, Callable[[], Awaitable[None]]]:
        """By name."""
        return {
            ALONE: lambda: self._handle(None, self._delivery()),
            INBOX: lambda: self._handle(self._plain, self._delivery()),
            LATEST: lambda: self._handle(self._strict, self._delivery()),
            DUPLICATE: lambda: self._handle(self._plain, self._repeated),
        }

    def _delivery(self) -> Delivery:
        self._number += 1
        headers = {
            "ce_specversion": "1.0",
            "ce_id": str(uuid7()),
            "ce_type": "order.placed",
            "ce_source": "/shop",
            "ce_time": "2026-11-22T12:00:00.000000Z",
            "outbox-seq": str(self._number),
        }
        return Delivery(
            topic="orders",
            partition=0,
            offset=self._number,
            key=customer(self._number).encode(),
            value=b'{"order_id": 7}',
            headers=tuple((name, text.encode()) for name, text in headers.items()),
        )

    async def _handle(self, inbox: Inbox | None, delivery: Delivery) -> None:
        record = decode(delivery)
        async with self._sessions.begin() as session:
            if inbox is None or await inbox.first_time(session, record):
                order_id = record.payload["order_id"]
                await session.execute(sa.insert(_invoices).values(order_id=order_id))


async def run(argument: dict[str, Any]) -> None:
    """Answer the words."""
    engine = create_async_engine(argument["url"])
    await Inbox("plain").create(engine)
    async with engine.begin() as connection:
        await connection.run_sync(_metadata.create_all)
    statements = 0

    @sa.event.listens_for(engine.sync_engine, "before_cursor_execute")
    def count(*_: object) -> None:
        nonlocal statements
        statements += 1

    known = Handlers(engine).ways()
    say(ready=True)
    while (word := wait_for_word()) in known:
        statements = 0
        found = await measure_transactions(known[word], argument["count"])
        say(**found, statements=statements / argument["count"])
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(run(json.loads(sys.argv[1])))
