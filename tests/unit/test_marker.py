"""
Marks: many rows in one statement, two statements at once when much waits, none forgotten.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from random import Random
from typing import Any

import pytest

from outbox_relay.errors import LeaseLost, StoreUnavailable
from outbox_relay.relay.lease import ALL_LANES, Holding, Lease, Term
from outbox_relay.relay.marker import MARK_ROWS, Marker
from outbox_relay.relay.watching import Silent
from outbox_relay.testing import FakeClock


class Records:
    """Takes marks, and keeps each under way until it is answered."""

    def __init__(self) -> None:
        self.under_way: list[tuple[Sequence[int], asyncio.Future[None]]] = []
        self.marked: list[int] = []
        self.terms: list[Term] = []

    async def mark_produced(self, ids: Sequence[int], term: Term) -> None:
        self.terms.append(term)
        answer = asyncio.get_running_loop().create_future()
        self.under_way.append((ids, answer))
        await answer

    def answer(self, number: int, error: Exception | None = None) -> None:
        _, answer = self.under_way.pop(number)
        if error is None:
            answer.set_result(None)
        else:
            answer.set_exception(error)

    def sizes(self) -> list[int]:
        return [len(ids) for ids, _ in self.under_way]


class Bench:
    """A marker at work on `Records`."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.records = Records()
        store: Any = self.records
        lease = Lease(term=Term(1, "nonce"), server="s", noted_id=0, crash_count=0)
        self.holding = Holding(lease)
        self.marker = Marker(
            store,
            self.holding,
            clock=self.clock,
            observer=Silent(),
            random=Random(1),
            on_marked=self.records.marked.extend,
        )
        self.task = asyncio.create_task(self.marker.run())

    async def add(self, first: int, count: int) -> None:
        self.marker.add(range(first, first + count))
        await self.clock.advance(0.02)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    made.task.cancel()
    await asyncio.gather(made.task, return_exceptions=True)


async def test_what_is_acked_meanwhile_is_marked_beside_a_slow_mark(bench: Bench) -> None:
    """
    A commit that waits for a disk does not hold up others; no id is in two marks.
    """
    await bench.add(1, MARK_ROWS)
    await bench.add(MARK_ROWS + 1, MARK_ROWS)
    await bench.add(2 * MARK_ROWS + 1, MARK_ROWS)

    assert bench.records.sizes() == [MARK_ROWS, MARK_ROWS]

    bench.records.answer(1)
    await bench.clock.advance(0.02)
    bench.records.answer(0)
    bench.records.answer(0)
    await bench.clock.advance(0.02)

    assert sorted(bench.records.marked) == list(range(1, 3 * MARK_ROWS + 1))


async def test_few_acks_wait_for_the_mark_under_way(bench: Bench) -> None:
    """
    Else a slow database would get more and smaller marks.
    """
    await bench.add(1, 10)
    await bench.add(11, 10)

    assert bench.records.sizes() == [10]


async def test_a_flush_waits_for_both(bench: Bench) -> None:
    """
    At the end of a term nothing acked stays unmarked.
    """
    await bench.add(1, MARK_ROWS)
    await bench.add(MARK_ROWS + 1, MARK_ROWS)
    flushed = asyncio.create_task(bench.marker.flush())
    await bench.clock.advance(0.02)
    bench.records.answer(0)
    await bench.clock.advance(0.02)

    assert not flushed.done()

    bench.records.answer(0)
    await bench.clock.advance(0.02)

    assert flushed.done()
    assert len(bench.records.marked) == 2 * MARK_ROWS


async def test_a_mark_that_fails_is_repeated_while_others_go_on(bench: Bench) -> None:
    """
    Its rows are not marked before the database said so.
    """
    await bench.add(1, MARK_ROWS)
    await bench.add(MARK_ROWS + 1, MARK_ROWS)
    bench.records.answer(0, StoreUnavailable("deadlock"))
    await bench.clock.advance(0.02)
    bench.records.answer(0)
    await bench.clock.advance(1)

    assert bench.records.marked == list(range(MARK_ROWS + 1, 2 * MARK_ROWS + 1))

    bench.records.answer(0)
    await bench.clock.advance(0.02)

    assert len(bench.records.marked) == 2 * MARK_ROWS


async def test_a_lost_lease_ends_both(bench: Bench) -> None:
    """
    I5. Whichever of the two learns it.
    """
    await bench.add(1, MARK_ROWS)
    await bench.add(MARK_ROWS + 1, MARK_ROWS)
    bench.records.answer(1, LeaseLost("taken"))
    await bench.clock.advance(0.02)

    with pytest.raises(LeaseLost):
        bench.task.result()
    assert bench.records.under_way[0][1].cancelled()


async def test_much_at_once_is_marked_in_statements_of_a_bounded_size(bench: Bench) -> None:
    """
    I10. Two are under way, and what is left follows without another ack.
    """
    await bench.add(1, 2 * MARK_ROWS + 10)

    assert bench.records.sizes() == [MARK_ROWS, MARK_ROWS]

    bench.records.answer(0)
    bench.records.answer(0)
    await bench.clock.advance(0.02)
    bench.records.answer(0)
    await bench.clock.advance(0.02)

    assert sorted(bench.records.marked) == list(range(1, 2 * MARK_ROWS + 11))


async def test_what_is_acked_during_a_flush_does_not_gather(bench: Bench) -> None:
    """
    I9. The budget of a stop is short.
    """
    flushed = asyncio.create_task(bench.marker.flush())
    await bench.clock.advance(0)
    bench.marker.add([1])
    await bench.clock.advance(0)

    assert bench.records.sizes() == [1]

    bench.records.answer(0)
    await bench.clock.advance(0)

    assert flushed.done()


async def test_a_mark_that_names_given_lanes_is_repeated_without_them(bench: Bench) -> None:
    """
    I5. Nothing of them was in it: the term goes on.
    """
    await bench.add(1, 10)
    bench.holding.gave(frozenset({3}))
    bench.records.answer(0, LeaseLost("taken", frozenset({3})))
    await bench.clock.advance(0.02)

    assert bench.records.terms[-1].lanes == ALL_LANES - {3}

    bench.records.answer(0)
    await bench.clock.advance(0.02)

    assert bench.records.marked == list(range(1, 11))
