"""
How many batches are under way at once: in order of coming, with patience, and no place lost.
"""

from __future__ import annotations

import asyncio

from outbox_relay.relay.gate import PATIENCE_SECONDS, Gate
from outbox_relay.relay.hints import Wakes
from outbox_relay.testing import FakeClock, settle


async def test_places_pass_on_in_order() -> None:
    """
    Who waits longest is next.
    """
    gate = Gate(FakeClock(), most=1)
    assert await gate.enter()
    first, second = asyncio.create_task(gate.enter()), asyncio.create_task(gate.enter())
    await settle()
    gate.leave()
    await settle()

    assert first.done()
    assert first.result()
    assert not second.done()
    gate.leave()
    assert await second


async def test_there_are_as_many_places_as_were_asked_for() -> None:
    """
    One more waits; each place that is given back lets one in, and is there again when nobody waits.
    """
    gate = Gate(FakeClock(), most=2)
    assert await gate.enter()
    assert await gate.enter()
    third = asyncio.create_task(gate.enter())
    await settle()
    assert not third.done()
    gate.leave()
    assert await third
    gate.leave()
    gate.leave()
    again = [asyncio.create_task(gate.enter()) for _ in range(3)]
    await settle()

    assert [task.done() for task in again] == [True, True, False]
    again[2].cancel()


async def test_patience_ends_without_a_place() -> None:
    """
    Those before it may wait for a broker that does not answer: it goes on, and has nothing to give back.
    """
    clock = FakeClock()
    gate = Gate(clock, most=1)
    assert await gate.enter()
    waiting = asyncio.create_task(gate.enter())
    await clock.advance(PATIENCE_SECONDS + 0.1)

    assert await waiting is False
    gate.leave()
    assert await gate.enter()


async def test_a_place_that_comes_with_a_cancellation_is_not_lost() -> None:
    """
    Neither where the wait is cancelled, nor where that meets its turn.
    """
    for comes_first in (False, True):
        gate = Gate(FakeClock(), most=1)
        assert await gate.enter()
        waiting = asyncio.create_task(gate.enter())
        await settle()
        if comes_first:
            gate.leave()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        if not comes_first:
            gate.leave()

        assert await asyncio.wait_for(gate.enter(), 1)


class Recorder:
    """A way by which hints come."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.calls: list[object] = []

    def start(self, received) -> None:
        self.calls.append(received)

    def pass_on(self, address: str) -> None:
        self.calls.append(address)

    def close(self) -> None:
        self.calls.append("closed")


def test_several_ways_by_which_hints_come_are_one() -> None:
    """
    Each is started, told and closed; the address is that of the one that has one.
    """
    ways = [Recorder(""), Recorder("udp:h:1")]
    wakes = Wakes(*ways)
    wakes.start(print)
    wakes.pass_on("udp:h:2")
    wakes.close()

    assert wakes.address == "udp:h:1"
    assert [way.calls for way in ways] == [[print, "udp:h:2", "closed"]] * 2
    assert Wakes().address == ""
