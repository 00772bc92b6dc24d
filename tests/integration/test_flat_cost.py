"""
Flat cost: the same work per row with few rows in the table and with very many, counted by the server.

I10. Nothing here measures time; `work.py` counts what each statement looks at.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from operator import attrgetter
from typing import Any

import pytest
import sqlalchemy as sa

from outbox_relay.relay import term
from outbox_relay.relay.options import RelayOptions
from outbox_relay.relay.ports import PurgePlan, ReadPlan, Term
from outbox_relay.relay.producer import EventProducer
from outbox_relay.relay.watching import Silent
from outbox_relay.relay.window import LEAST_IDS
from outbox_relay.schema import Status
from outbox_relay.store import DatabaseOptions, open_store
from outbox_relay.testing import FakeClock, RecordingBroker
from tests.contract.stores import create_tables
from tests.integration.work import Meter, Work, fill, metered, produce

FEW, MANY = 11_000, 45_000
NEW = 200
TWO = ["mariadb", "postgresql"]
"""Where the third would only take time."""

# Which reads see a row depends on the moment.
pytestmark = pytest.mark.alone

Costs = dict[str, tuple[int, int]]


@dataclass
class World:
    """A store on a real server, and who counts."""

    kind: str
    engine: sa.Engine
    store: Any
    meter: Meter


@pytest.fixture(params=["mariadb", "mysql", "postgresql"])
async def world(request, monkeypatch) -> Any:
    database = request.getfixturevalue(f"{request.param}_database")
    engine = sa.create_engine(database.sync_url, poolclass=sa.NullPool)
    create_tables(engine)
    store = open_store(DatabaseOptions(url=database.async_url))
    with metered(monkeypatch, request.param) as meter:
        yield World(request.param, engine, store, meter)
    await store.close()
    engine.dispose()


@contextmanager
def a_snapshot(world: World) -> Iterator[None]:
    """A report that began a while ago and is not done."""
    repeatable = world.engine.execution_options(isolation_level="REPEATABLE READ")
    with repeatable.connect() as report:
        report.exec_driver_sql("SELECT COUNT(*) FROM outbox").all()
        yield


def plan(**changes: Any) -> ReadPlan:
    return ReadPlan(**({"after_id": 0, "open_ids": frozenset(), "limit": NEW} | changes))


async def one_round(world: World, held: Term) -> Costs:
    """What the relay does for new rows, and beside that, each with its rows and pages."""
    store = world.store
    before = await store.max_id()
    top = fill(world.engine, NEW, topic="new")
    ids = [row.id for row in await store.read(plan(after_id=before))]
    assert len(ids) == NEW
    late = frozenset(range(before - 50, before))
    old = PurgePlan(status=Status.PRODUCED, older_than_seconds=10**6, after_id=0, limit=1000)
    paused = frozenset({"t"})
    calls = {
        "note": store.max_id,
        "read": lambda: store.read(plan(after_id=before)),
        "read with open ids": lambda: store.read(plan(after_id=before, open_ids=late)),
        "look for open ids": lambda: store.uncommitted_ids(
            plan(after_id=before, open_ids=late, upto_id=top, limit=1000)
        ),
        "first read": lambda: store.read(plan(upto_id=LEAST_IDS)),
        "sweep": lambda: store.read(plan(upto_id=LEAST_IDS, limit=1000)),
        "sweep while it pauses": lambda: store.read(
            plan(upto_id=LEAST_IDS, limit=1000, skip_topics=paused)
        ),
        "sample": lambda: store.sample(cap=1000),
        "dead keys": lambda: store.dead_keys(limit=1000),
        "purge": lambda: store.aged(old),
    }
    costs = {name: await world.meter.rows_and_pages(call) for name, call in calls.items()}
    mark = await world.meter.rows_and_pages(lambda: store.mark_produced(ids, held), times=1)
    # InnoDB reads pages for itself meanwhile, and a mark cannot be repeated to leave them out.
    return costs | {"mark": mark if world.kind == "postgresql" else (mark[0], 0)}


def grown(few: Costs, many: Costs) -> dict[str, Any]:
    """What costs more with many rows. A tree of many has a level more."""
    return {
        name: (few[name], many[name])
        for name in few
        if many[name][0] > 1.2 * few[name][0] + 10 or many[name][1] > 1.6 * few[name][1] + 20
    }


@pytest.mark.parametrize("state", [Status.PRODUCED, Status.DEAD, Status.PENDING], ids=str)
async def test_work_does_not_grow_with_the_rows_that_are_there(world: World, state: Status) -> None:
    """
    I10. Reading, looking for open ids, sweeping, sampling, purging, marking: with 56,000 produced
    rows, dead letters or pending rows as with 11,000.
    """
    lease = await world.store.acquire("relay", wake_address="", lease_seconds=1000)
    fill(world.engine, 1000, status=Status.PRODUCED)
    fill(world.engine, FEW, status=state)
    few = await one_round(world, lease.term)
    fill(world.engine, MANY, status=state)
    many = await one_round(world, lease.term)
    if world.kind == "postgresql" and state != Status.PRODUCED:
        # Which index would serve: by id the purge passes what is not produced, at its own pace.
        few.pop("purge")

    assert grown(few, many) == {}


async def test_work_does_not_grow_with_what_a_long_transaction_keeps(world: World) -> None:
    """
    I10. A snapshot is open elsewhere, so nothing of what the relay has drained since can be cleared
    away. What passes all of it takes its share of the time and no more.
    """
    lease = await world.store.acquire("relay", wake_address="", lease_seconds=1000)
    fill(world.engine, NEW)
    with a_snapshot(world):
        produce(world.engine, fill(world.engine, FEW))
        few = await one_round(world, lease.term)
        produce(world.engine, fill(world.engine, MANY))
        many = await one_round(world, lease.term)
    passing = ["sample"]
    if world.kind != "postgresql":
        # InnoDB passes them all, however few ids are asked for.
        passing += ["first read", "sweep", "sweep while it pauses"]
    for name in passing:
        few.pop(name)

    assert grown(few, many) == {}


@pytest.mark.parametrize("world", TWO, indirect=True)
async def test_the_note_does_not_pass_what_was_deleted_on_the_ack(world: World) -> None:
    """
    I10. With ``retention_seconds = 0`` and a snapshot open elsewhere, the end of the table is full of
    rows that are gone.
    """
    pages = []
    top = fill(world.engine, NEW)
    with a_snapshot(world):
        for count in (FEW, MANY):
            top = fill(world.engine, count)
            with world.engine.begin() as connection:
                connection.exec_driver_sql("DELETE FROM outbox")
            assert await world.store.max_id(at_least=top) == top
            cost = await world.meter.rows_and_pages(lambda: world.store.max_id(at_least=top))  # noqa: B023 - used at once
            pages.append(cost[1])

    assert pages[1] <= pages[0] + 10


class Relay(Silent):
    """An EventProducer on the store of *world*, and what it had under way at most."""

    def __init__(self, world: World, topics: dict[str, int], **options: Any) -> None:
        self.most_rows = self.most_bytes = 0
        self.broker = RecordingBroker(FakeClock(), topics)
        self.producer = EventProducer(
            world.store,
            self.broker,
            observer=self,
            options=RelayOptions(**({"sample_seconds": 1000.0} | options)),
        )
        self.task = asyncio.create_task(self.producer.run())

    def in_flight(self, rows: int, byte_count: int) -> None:
        self.most_rows = max(self.most_rows, rows)
        self.most_bytes = max(self.most_bytes, byte_count)

    async def has_published(self, count: int) -> None:
        async with asyncio.timeout(30):
            while len(self.broker.published) < count:
                await asyncio.sleep(0.002)
                if self.task.done():
                    self.task.result()

    async def stop(self) -> None:
        self.producer.stop()
        await self.task


def is_look(work: Work) -> bool:
    """One for open ids, which passes each row once."""
    return "generate_series" in work.sql


def is_read(work: Work) -> bool:
    """
    Not the sweep from the first id, nor what the purge looks at: on PostgreSQL both pass what cannot
    be cleared away, at their own pace.
    """
    others = ("produced_at <=", "id > 0 AND id <=")
    return (
        work.verb == "SELECT" and not any(part in work.sql for part in others) and not is_look(work)
    )


@pytest.mark.parametrize("world", TWO, indirect=True)
@pytest.mark.parametrize("retention_seconds", [1000.0, 0.0], ids=["mark", "delete"])
async def test_work_does_not_grow_while_a_writer_stays_open(
    world: World, retention_seconds: float, monkeypatch
) -> None:
    """
    I10. A transaction has inserted an event and does not end, while others write on: reads do not
    begin where it began, and its event comes when it commits.
    """
    monkeypatch.setattr(term, "NOTE_SECONDS", 0.1)
    fill(world.engine, 1000)
    relay = Relay(world, {"t": 4}, retention_seconds=retention_seconds)
    await relay.has_published(1000)
    rounds, per_round = 3, 5
    world.meter.reset()
    ends = [0]
    with world.engine.connect() as writer:
        writer.execute(
            sa.text("INSERT INTO outbox (event_name, topic, payload) VALUES ('', 't', '')")
        )
        for number in range(rounds * per_round):
            fill(world.engine, 2000)
            await relay.has_published(2000 * (number + 1) + 1000)
            if (number + 1) % per_round == 0:
                ends.append(len(world.meter.statements))
        published = len(relay.broker.published)
        writer.commit()
    await relay.has_published(published + 1)
    await relay.stop()

    # Neither the rows nor the pages of all that was published since. InnoDB reads pages for itself
    # meanwhile, to clear away what the relay deletes.
    reads = [world.meter.statements[start:end] for start, end in pairwise(ends)]
    rows = [sum(work.rows for work in some if is_read(work)) for some in reads]
    assert rows[2] <= max(1.3 * rows[1], 2.5 * 2000 * per_round)
    if world.kind == "postgresql":
        # Each id that is asked for, as it may be open, is looked up.
        dearest = max(filter(is_read, reads[2]), key=attrgetter("pages"))
        asked = dearest.sql.count(",") if "unnest" in dearest.sql else 0
        assert dearest.pages <= 600 + 4 * asked, dearest
    assert world.meter.of(is_look)[2] <= 3 * published
    assert len(relay.broker.published) == published + 1
