"""
An application under measurement: one event in each transaction, in one of three ways.

It answers each word that is the name of a way, and ends with any other.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from benchmarks.child import say, wait_for_word
from benchmarks.orders import EVENT_NAME, customer, make_lines, order
from benchmarks.transactions import measure_transactions
from outbox_relay import Outbox

BARE: Final = "bare Core INSERT"
ADD: Final = "Outbox.add"
INSERT: Final = "Outbox.insert"

Way = Callable[[], Awaitable[None]]


def ways(sessions: async_sessionmaker[Any], topic: str) -> Mapping[str, Way]:
    """A transaction of each kind."""
    outbox = Outbox()
    number = 0
    encoded = outbox.insert(order(0), name=EVENT_NAME, topic=topic, key=customer(0))
    row = encoded.compile().params
    statement = sa.insert(outbox.table)

    def next_order() -> dict[str, Any]:
        nonlocal number
        number += 1
        return order(number)

    async def bare() -> None:
        async with sessions.begin() as session:
            await session.execute(statement, row)

    async def add() -> None:
        made = next_order()
        async with sessions.begin() as session:
            await outbox.add(session, made, name=EVENT_NAME, topic=topic, key=customer(number))

    async def insert() -> None:
        made = next_order()
        async with sessions.begin() as session:
            await session.execute(
                outbox.insert(made, name=EVENT_NAME, topic=topic, key=customer(number))
            )

    return {BARE: bare, ADD: add, INSERT: insert}


async def run(argument: dict[str, Any]) -> None:
    """Answer the words."""
    engine = create_async_engine(argument["url"])
    known = ways(async_sessionmaker(engine), argument["topic"])
    make_lines()
    say(ready=True)
    while (word := wait_for_word()) in known:
        say(**await measure_transactions(known[word], argument["count"]))
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(run(json.loads(sys.argv[1])))
