"""
What ends a term by itself, wherever it is learnt, and what ends the relay.
"""

from __future__ import annotations

import asyncio
import gc

import pytest

from outbox_relay.errors import LeaseLost, ServerChanged
from outbox_relay.schema import Status
from outbox_relay.testing import RecordingBroker
from tests.unit.test_retention import produced

OVER = [LeaseLost("another relay took the lanes"), ServerChanged("another server answers")]


@pytest.mark.parametrize("error", OVER, ids=["lease lost", "server changed"])
@pytest.mark.parametrize("method", ["renew", "aged", "purge", "mark_produced", "mark_dead"])
async def test_whoever_learns_that_the_term_is_over_ends_it(
    start, store, broker, clock, method: str, error: Exception
):
    """
    I1, I5. Once, and the next term does what was to be done.
    """
    produced(store, 5, age=100.0)
    broker.max_record_bytes = 1000
    bad = store.insert("orders", key=b"k", payload=b"x" * 2000)
    good = store.insert("orders", key=b"k")
    store.fail(method, error)
    running = start(retention_seconds=50.0)
    await clock.advance(30)

    assert running.watcher.names().count("term_over") == 1
    assert ("term_over", {"error": str(error)}) in running.watcher.events
    assert running.watcher.names().count("lease_acquired") == 2
    assert sorted(store.rows) == [bad, good]
    assert [store.status(bad), store.status(good)] == [Status.DEAD, Status.PRODUCED]


@pytest.mark.parametrize("error", OVER, ids=["lease lost", "server changed"])
async def test_a_row_whose_term_is_over_is_not_given_up(start, store, broker, clock, error):
    """
    I5. Its lane is another's: that one says what becomes of it, and of what comes after it.
    """
    broker.max_record_bytes = 1000
    bad = store.insert("orders", key=b"k", payload=b"x" * 2000)
    later = store.insert("orders", key=b"k")
    store.fail("mark_dead", error)
    running = start()
    while "term_over" not in running.watcher.names():
        await asyncio.sleep(0)

    assert store.pending() == [bad, later]
    assert broker.seqs() == []
    assert "dead_letter" not in running.watcher.names()


@pytest.mark.parametrize("method", ["partitions", "publish", "probe", "probe aside"])
async def test_a_bug_in_the_port_of_the_broker_ends_the_relay_with_its_error(
    start, store, clock, method: str
):
    """
    It does not end in silence, with a relay that looks well: the process ends, and is started again.
    Said once, however many batches run into it.
    """
    said: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))

    class Buggy(RecordingBroker):
        async def partitions(self, topic):
            return await self._or_bug("partitions", super().partitions(topic))

        async def publish(self, topic, partition, records):
            return await self._or_bug("publish", super().publish(topic, partition, records))

        async def probe(self):
            return await self._or_bug("probe", super().probe())

        async def _or_bug(self, name, work):
            answer = await work
            if method.partition(" ")[0] == name and (name != "probe" or calls_of_probe.pop()):
                raise RuntimeError(f"a bug in {name}")
            return answer

    # The first probe is that of the track, the second that of the circuit.
    aside = method == "probe aside"
    calls_of_probe = [True, False] if aside else [True]
    broker = Buggy(clock, {"wide": 8})
    broker.down = method.startswith("probe")
    ids = [store.insert("wide", key=b"%d" % n) for n in range(1 if aside else 64)]
    running = start(broker=broker)
    await clock.advance(15)
    gc.collect()

    assert running.task.done()
    assert said == []
    assert str(running.task.exception()) == f"a bug in {method.partition(' ')[0]}"
    assert store.pending() == ids
