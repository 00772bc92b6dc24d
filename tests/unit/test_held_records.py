"""
A record that is held, given up or cancelled: what has no outcome is delivered again.
"""

from __future__ import annotations

import asyncio
import zlib
from typing import Any

import pytest

from outbox_relay.consumer import (
    ConsumedRecord,
    Delivery,
    EventConsumer,
    Retries,
)
from tests.unit.consuming import FAST, FakeSource, Handler, consume, delivery

SLOW = Retries(attempts=1, initial_seconds=3600, max_seconds=3600)
HELD = "outbox_relay_consumer_held_records"


def start(source: FakeSource, handler: Handler, retries: Retries = SLOW) -> Any:
    """A consumer, and the task that runs it."""
    consumer = EventConsumer(source, handler, retries=retries)
    return consumer, asyncio.create_task(consumer.run(handle_signals=False))


async def until_held(consumer: EventConsumer) -> None:
    while not consumer.metrics.registry.get_sample_value(HELD):
        await asyncio.sleep(0)


@pytest.mark.parametrize("headers", [(), (("ce_id", b"\xff"),)], ids=["failed", "unreadable"])
@pytest.mark.parametrize("dead_letters", [True, False])
async def test_a_stop_while_a_record_is_held_gives_it_no_outcome(
    headers: tuple[tuple[str, bytes], ...], dead_letters: bool
) -> None:
    """
    Neither a dead letter that the broker did not take, nor one that has nowhere to go, is settled; and
    the gauge falls again.
    """
    source = FakeSource(delivery(0, headers=headers), dead_letters=dead_letters)
    source.refusals = 99
    consumer, running = start(source, Handler(ValueError()))
    await until_held(consumer)
    consumer.stop()
    await running

    assert source.outcomes == [None]
    assert source.dead == []
    assert consumer.metrics.registry.get_sample_value(HELD) == 0


async def test_an_unreadable_record_without_dead_letters_is_held_and_not_dropped() -> None:
    """
    Those behind it wait: nothing is skipped unless somebody asked for it.
    """
    source = FakeSource(delivery(0, headers=(("ce_id", b"\xff"),)), delivery(1), dead_letters=False)
    handler = Handler()
    consumer, running = start(source, handler, FAST)
    await until_held(consumer)
    consumer.stop()
    await running

    assert handler.calls == 0
    assert source.outcomes[0] is None


async def test_a_cancelled_consumer_repeats_nothing() -> None:
    """
    The handler ends where it is: it is not called again, and its record has no outcome.
    """
    began = asyncio.Event()

    class Stuck(Handler):
        async def __call__(self, record: ConsumedRecord) -> None:
            self.calls += 1
            began.set()
            await asyncio.Event().wait()

    source, handler = FakeSource(delivery(0)), Stuck()
    _, running = start(source, handler, FAST)
    await began.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    assert running.cancelled()
    assert (handler.calls, source.outcomes, source.dead) == (1, [], [])


async def test_failures_are_counted_by_whether_they_cost_an_attempt() -> None:
    """
    An alert on errors must not ring for an outage, nor the other way round.
    """
    handler = Handler(ConnectionError(), ConnectionError(), ValueError())
    consumer = await consume(FakeSource(delivery(0)), handler)

    count = consumer.metrics.registry.get_sample_value
    name = "outbox_relay_consumer_handler_failures_total"
    assert count(name, {"topic": "orders", "kind": "outage"}) == 2
    assert count(name, {"topic": "orders", "kind": "error"}) == 1


async def test_a_payload_over_the_limit_becomes_a_dead_letter() -> None:
    """
    I10. By max_payload_bytes, before a handler sees it.
    """
    headers = (("ce_id", b"1"), ("content-encoding", b"deflate"))
    source = FakeSource(delivery(0, value=zlib.compress(bytes(2000)), headers=headers))
    handler = Handler()
    await consume(source, handler, max_payload_bytes=1000)

    assert handler.calls == 0
    assert source.dead[0][1]["dead-letter-reason"] == b"unreadable"


async def test_a_dead_letter_that_dies_again_says_so_once() -> None:
    """
    It was published to its topic again, with the headers of its first death.
    """
    first, again = FakeSource(delivery(0)), FakeSource()
    await consume(first, Handler(*[ValueError("one")] * 3))
    [(_, headers)] = first.dead
    again.deliveries = (delivery(9, headers=tuple(headers.items())),)
    dead: list[list[tuple[str, bytes]]] = []

    async def dead_letter(found: Delivery, headers: list[tuple[str, bytes]]) -> None:
        dead.append(headers)

    again.dead_letter = dead_letter  # type: ignore[method-assign]
    await consume(again, Handler(*[ValueError("two")] * 3))

    said = [value for name, value in dead[0] if name == "dead-letter-error"]
    assert said == [b"ValueError: two"]
