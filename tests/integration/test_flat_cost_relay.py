"""
Flat cost of the whole relay: very many rows of a paused topic, very many partitions, large payloads.

I10. Statements and the rows that they look at are counted by the server, memory by the interpreter.
"""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Sequence
from typing import Any

import pytest
import sqlalchemy as sa

from outbox_relay.relay.options import RelayOptions
from outbox_relay.relay.outcomes import Acked, Outcome
from outbox_relay.relay.ports import Record
from outbox_relay.relay.producer import EventProducer
from outbox_relay.relay.waiting import WAITING_ROWS
from outbox_relay.relay.window import LEAST_IDS, Window
from outbox_relay.store import DatabaseOptions, open_store
from outbox_relay.testing import FakeClock, RecordingBroker
from tests.contract.stores import create_tables
from tests.integration.test_flat_cost import TWO, Relay, World, is_read, world  # noqa: F401 - a fixture
from tests.integration.work import fill

PAUSED = 50_000

pytestmark = pytest.mark.alone


@pytest.mark.parametrize("world", TWO, indirect=True)
async def test_no_statement_passes_all_rows_of_a_paused_topic(
    world: World,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    Reads, sweeps and wake-ups pass a window of them, however many lie in front; the others go on.
    """
    monkeypatch.setattr(Window.__init__, "__defaults__", (LEAST_IDS, float("inf")))
    monkeypatch.setattr(Window, "passed", lambda self, ids, *, seconds: None)
    fill(world.engine, PAUSED, topic="paused")
    fill(world.engine, 500)
    with world.engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO outbox_control (topic) VALUES ('paused')")
    relay = Relay(world, {"t": 2, "paused": 2})
    await relay.has_published(500)
    async with asyncio.timeout(30):
        while relay.producer._term.reading.cursor < PAUSED:
            await asyncio.sleep(0.01)
    world.meter.reset()
    for number in range(1, 6):
        fill(world.engine, 100)
        await relay.has_published(500 + 100 * number)
    relay.producer._term.reading.rewind()
    fill(world.engine, 100)
    await relay.has_published(1100)
    await relay.stop()

    reads = [work for work in world.meter.statements if is_read(work)]
    most = max(reads, key=lambda work: work.rows)
    assert most.rows <= LEAST_IDS + 1000
    assert {record.topic for record in relay.broker.published} == {"t"}


@pytest.mark.parametrize("world", TWO, indirect=True)
async def test_a_hundred_topics_with_twelve_partitions_each(world: World) -> None:  # noqa: F811
    """
    1,200 tracks share the room that the settings give, and need no more statements a row than one.
    """
    topics = {f"t{number}": 12 for number in range(100)}
    fill(world.engine, 12_000)
    topic, key = "CONCAT('t', id % 100)", "`key` = CONCAT('k', id)"
    if world.kind == "postgresql":
        key = "key = convert_to(CONCAT('k', id), 'UTF8')"
    with world.engine.begin() as connection:
        connection.execute(sa.text(f"UPDATE outbox SET topic = {topic}, {key}"))
    relay = Relay(world, topics, chunk_rows=1000, in_flight_rows=2000)
    await relay.has_published(12_000)
    await relay.stop()
    statements, rows, _ = world.meter.of()

    tracks = {(record.topic, record.partition) for record in relay.broker.published}
    assert len(tracks) > 1100
    assert relay.most_rows <= 2000
    assert statements <= 12_000 * 0.02
    # The sample looks at so many of the oldest that wait, once in a while, and groups them by topic.
    assert rows <= 12_000 * 6 + 3 * WAITING_ROWS


class Forgetful(RecordingBroker):
    """Acks and keeps nothing but a count."""

    count = 0

    async def publish(self, topic: str, partition: int, records: Sequence[Record]) -> Outcome:
        """See MessageBroker."""
        await asyncio.sleep(0)
        self.count += len(records)
        return Acked()


@pytest.mark.parametrize("kind", ["mariadb", "postgresql"])
async def test_memory_is_what_the_settings_allow(kind: str, request: pytest.FixtureRequest) -> None:
    """
    A backlog of 48 MB through 2 MB: payloads that come with a read, and larger ones that are fetched.
    """
    database = request.getfixturevalue(f"{kind}_database")
    engine = sa.create_engine(database.sync_url, poolclass=sa.NullPool)
    create_tables(engine)
    repeat = "convert_to(repeat('x', {}), 'UTF8')" if kind == "postgresql" else "REPEAT('x', {})"
    fill(engine, 3000)
    with engine.begin() as connection:
        sql = f"UPDATE outbox SET payload = {repeat.format(15_000)} WHERE id % 15 <> 0"
        connection.execute(sa.text(sql))
        sql = f"UPDATE outbox SET payload = {repeat.format(30_000)} WHERE id % 15 = 0"
        connection.execute(sa.text(sql))
    engine.dispose()
    most = 0
    broker = Forgetful(FakeClock(), {"t": 4})
    options = RelayOptions(in_flight_bytes=2_000_000, max_payload_bytes=1_000_000)
    store = open_store(DatabaseOptions(url=database.async_url))
    producer = EventProducer(store, broker, options=options)
    tracemalloc.start()
    try:
        run = asyncio.create_task(producer.run(until_empty=True))
        while not run.done():
            term: Any = producer._term
            most = max(most, term.reading.bytes_in_flight if term is not None else 0)
            await asyncio.sleep(0)
        await run
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert broker.count == 3000
    assert 0 < most <= 2_000_000
    assert peak <= 14_000_000
