"""
The demo's processes: the embedded broker, the shop, and that none of them outlives the demo.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from aiokafka import AIOKafkaProducer
from sqlalchemy import create_engine as create_sync_engine

from outbox_relay.demo.account import Entry
from outbox_relay.demo.billing import Billing
from outbox_relay.demo.books import committed_events, count_outbox
from outbox_relay.demo.broker import EmbeddedBroker
from outbox_relay.demo.consumer import CountingConsumer
from outbox_relay.demo.processes import Child, ChildEnded
from outbox_relay.demo.traffic import ShopProcess, create_engine, create_shop_tables
from outbox_relay.schema import tables

WAIT_FOR_A_SIGNAL = "import signal; print('ready', flush=True); signal.pause()"


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[EmbeddedBroker]:
    broker = EmbeddedBroker("orders", log=tmp_path / "broker.log")
    await broker.start()
    yield broker
    await broker.kill()


async def publish(broker: EmbeddedBroker, entries: list[Entry]) -> None:
    async with AIOKafkaProducer(
        bootstrap_servers=broker.bootstrap_servers, acks="all", enable_idempotence=True
    ) as producer:
        for entry in entries:
            await producer.send_and_wait(
                "orders",
                b'{"number": %d}' % entry.number,
                key=entry.key.encode(),
                headers=[("ce_id", entry.event_id.encode())],
            )


async def test_the_consumer_reads_all_partitions_to_the_end(
    broker: EmbeddedBroker, tmp_path: Path
) -> None:
    """
    What was published before `finish` is read, on every partition, in order per key, copies too; the
    copies are dropped by the inbox, and each event is booked once.
    """
    entries = [Entry(f"e{n}-{k}", f"customer-{k}", n) for n in range(1, 6) for k in range(20)]
    billing = Billing(tmp_path / "billing.db")
    await billing.open()
    consumer = CountingConsumer("orders", billing)
    await consumer.start(broker.bootstrap_servers)
    await publish(broker, [*entries, entries[0]])
    consumer.finish()
    async with asyncio.timeout(30):
        await consumer.read()
    await consumer.stop()
    booked = await billing.bookings()
    await billing.close()

    assert sorted(consumer.delivered, key=str) == sorted([*entries, entries[0]], key=str)
    assert [e.number for e in consumer.delivered if e.key == "customer-7"] == [1, 2, 3, 4, 5]
    assert consumer.duplicates == billing.dropped == 1
    assert booked == len(entries)


async def test_a_frozen_broker_answers_again_when_thawed(broker: EmbeddedBroker) -> None:
    """
    SIGSTOP takes the broker away, SIGCONT brings it back with all that it had.
    """
    consumer = CountingConsumer("orders")
    await consumer.start(broker.bootstrap_servers)
    broker.freeze()
    publishing = asyncio.create_task(publish(broker, [Entry("e1", "anna", 1)]))
    done, _ = await asyncio.wait((publishing,), timeout=0.3)
    broker.thaw()
    async with asyncio.timeout(30):
        await publishing
        consumer.finish()
        await consumer.read()
    await consumer.stop()

    assert not done
    assert consumer.event_ids == {"e1"}


async def test_the_shop_books_each_event_with_its_order(tmp_path: Path) -> None:
    """
    Orders and outbox agree: each committed command has one event, a rolled back one has none.
    """
    database = tmp_path / "shop.db"
    sync_engine = create_sync_engine(f"sqlite:///{database}")
    tables().metadata.create_all(sync_engine)
    engine = create_engine(database)
    await create_shop_tables(engine)
    shop = ShopProcess(database, orders_per_second=400, log=tmp_path / "shop.log")
    await shop.start()
    async with asyncio.timeout(60):
        while json.loads(await shop.read_line())["committed"] < 100:
            pass
        code = await shop.terminate(timeout_seconds=30)
        await shop.follow()
    entries = await committed_events(engine)
    counts = await count_outbox(engine)
    with sync_engine.connect() as connection:
        outboxed = connection.execute(tables().outbox.select().order_by("id")).all()
    await engine.dispose()

    assert code == 0
    assert len(entries) == shop.committed == counts.backlog
    assert {entry.event_id for entry in entries} == {str(row.event_id) for row in outboxed}
    assert shop.rolled_back > 0
    by_id = {entry.event_id: entry for entry in entries}
    for key in {entry.key for entry in entries}:
        numbers = [by_id[str(row.event_id)].number for row in outboxed if row.key == key.encode()]
        assert numbers == list(range(1, len(numbers) + 1))


async def test_a_child_that_ends_by_itself_is_noticed(tmp_path: Path) -> None:
    """
    An unexpected end raises, with the end of the log; a kill of our own does not.
    """
    fails = Child("relay", "-c", "raise SystemExit('no luck')", log=tmp_path / "relay.log")
    await fails.start()
    assert await fails.read_line() == ""
    await fails.wait()
    with pytest.raises(ChildEnded, match=r"exit code 1(.|\n)*no luck"):
        fails.check()

    runs = Child("relay", "-c", WAIT_FOR_A_SIGNAL, log=tmp_path / "relay.log")
    await runs.start()
    await runs.read_line()
    await runs.kill()
    runs.check()


async def test_a_frozen_child_can_be_killed(tmp_path: Path) -> None:
    """
    Cleaning up works in the middle of an outage.
    """
    child = Child("broker", "-c", WAIT_FOR_A_SIGNAL, log=tmp_path / "child.log")
    await child.start()
    await child.read_line()
    child.freeze()

    async with asyncio.timeout(30):
        await child.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="needs PR_SET_PDEATHSIG")
async def test_children_die_with_a_demo_that_was_killed(tmp_path: Path) -> None:
    """
    ``kill -9`` of the demo leaves no process behind.
    """
    script = f"""
import asyncio, pathlib
from outbox_relay.demo.processes import Child
async def main():
    child = Child("relay", "-c", {WAIT_FOR_A_SIGNAL!r}, log=pathlib.Path({str(tmp_path / "log")!r}))
    await child.start()
    await child.read_line()
    print(child.pid, flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""
    demo = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE
    )
    assert demo.stdout is not None
    child = psutil.Process(int(await demo.stdout.readline()))
    os.kill(demo.pid, signal.SIGKILL)
    await demo.wait()

    await asyncio.to_thread(child.wait, 30)
    assert not child.is_running()
