"""
A statement that is cancelled: the task ends, and the next answer is the right one.
"""

from __future__ import annotations

import asyncio
from random import Random

import pytest
import sqlalchemy as sa

from outbox_relay.relay.ports import ReadPlan
from outbox_relay.store import DatabaseOptions, open_store
from tests.contract.stores import create_tables

MOST_STEPS_LOG2 = 11
"""An answer takes some hundred steps of a loop that does nothing else."""


@pytest.mark.parametrize("kind", ["mariadb", "mysql", "postgresql", "sqlite"])
async def test_a_cancelled_statement_ends_its_task_and_leaves_nothing_behind(kind, request):
    """
    I5. A term that is over ends, whenever the cancellation arrives; drivers were seen to lose it.
    """
    database = request.getfixturevalue(f"{kind}_database")
    engine = sa.create_engine(database.sync_url)
    made = create_tables(engine)
    with engine.begin() as connection:
        rows = [{"event_name": "e", "topic": "t", "payload": b"x" * 200} for _ in range(300)]
        connection.execute(made.outbox.insert(), rows)
    engine.dispose()
    store = open_store(DatabaseOptions(url=database.async_url))
    random = Random(1)
    cancelled = 0
    for limit in range(1, 200):
        plan = ReadPlan(after_id=0, open_ids=frozenset(), limit=limit)
        task = asyncio.create_task(store.read(plan))
        # By steps of the loop and not by time: few of them are always too few for an answer.
        for _ in range(int(2 ** (random.random() * MOST_STEPS_LOG2))):
            await asyncio.sleep(0)
        was_done = task.done()
        task.cancel()
        outcome = (await asyncio.gather(task, return_exceptions=True))[0]
        if not was_done:
            cancelled += 1
            assert isinstance(outcome, asyncio.CancelledError)
        else:
            assert len(outcome) == limit
    await store.close()

    assert cancelled > 10
