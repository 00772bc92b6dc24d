"""
What follows where a batch is not one step for its broker.
"""

from __future__ import annotations

from outbox_relay.brokers.stored import KEEP_SECONDS, Stored, runs
from outbox_relay.relay.ports import HeaderBlock, Record
from outbox_relay.testing import FakeClock
from outbox_relay.testing import record as make_record


def record(key: bytes | None, seq: int) -> Record:
    return make_record(key, b"x", seq=seq)._replace(event_id=b"%036d" % seq)


def seqs(records: list[list[Record]]) -> list[list[int]]:
    return [[int(r.seq) for r in run] for run in records]


def test_no_two_records_of_a_key_are_in_one_run() -> None:
    """
    I4. And the runs together are the records, in order.
    """
    keys = [b"a", b"b", None, b"c", None, b"b", b"a", b"a", None]

    assert seqs(runs([record(key, n) for n, key in enumerate(keys)])) == [
        [0, 1, 2, 3, 4],
        [5, 6],
        [7, 8],
    ]
    assert runs([]) == []


def test_no_two_records_of_an_event_id_are_in_one_run() -> None:
    """
    A message that comes back is known by it alone.
    """
    one = record(b"a", 1)
    two = record(b"b", 2)._replace(event_id=one.event_id)

    assert seqs(runs([one, two])) == [[1], [2]]


async def test_what_is_stored_is_left_out_until_its_batch_is_settled() -> None:
    """
    I6. And for a while only: then somebody may publish it again on purpose.
    """
    clock = FakeClock()
    stored = Stored(clock.now)
    batch = [record(b"a", 1), record(b"b", 2), record(b"c", 3)]
    assert stored.without(batch) == batch

    stored.add(batch[:2])
    assert stored.without(batch) == batch[2:]
    stored.settle(batch[:1])
    assert stored.without(batch) == [batch[0], batch[2]]
    await clock.advance(KEEP_SECONDS + 1)
    assert stored.without(batch) == batch


def test_a_row_that_was_requeued_or_has_another_id_is_another_one() -> None:
    """
    I2. It is never taken for the one that was stored.
    """
    stored = Stored(FakeClock().now)
    first = record(b"a", 1)
    stored.add([first])
    requeued = first._replace(own=HeaderBlock((("requeued-at", b"2026"),)))
    others = [requeued, first._replace(seq=b"2"), first._replace(event_id=b"%036d" % 9)]

    assert stored.without([first, *others]) == others
