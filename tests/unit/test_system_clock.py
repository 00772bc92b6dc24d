"""
The clock of a relay that no test moves.
"""

from __future__ import annotations

import asyncio
import time

from outbox_relay.relay.producer import SystemClock


def test_it_never_goes_back_and_knows_the_date():
    """
    Leases are counted on the one, records carry the other: microseconds since 1970.
    """
    clock = SystemClock()
    first, before = clock.now(), time.time_ns()

    assert clock.now() >= first
    assert before // 1000 <= clock.wall_us() <= time.time_ns() // 1000


async def test_a_wait_says_whether_the_event_came():
    """
    It returns at once when the event is there, and without it when the time is over.
    """
    clock, event = SystemClock(), asyncio.Event()
    await clock.sleep(0)

    assert await clock.wait(event, 0) is False

    event.set()

    assert await clock.wait(event, 3600) is True
