"""
What becomes of a delivery, whatever the broker: handled, skipped, repeated, given up, held.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from outbox_relay import DomainEvent, NotificationEvent
from outbox_relay.consumer import (
    ConsumedRecord,
    ConsumerMetrics,
    EventConsumer,
    Outcome,
    Retries,
)
from outbox_relay.consumer.source import Process
from tests.unit.consuming import FakeSource, Handler, OrderPlaced, consume, delivery

SECRET = "4929 1234 5678"


async def test_each_delivery_is_handled_in_order() -> None:
    """
    The outcome comes after the handler has returned, and is counted.
    """
    handler, source = Handler(), FakeSource(delivery(0), delivery(1))
    consumer = await consume(source, handler)

    assert handler.handled == [0, 1]
    assert source.outcomes == [Outcome.HANDLED] * 2
    count = consumer.metrics.registry.get_sample_value
    name = "outbox_relay_consumer_records_total"
    assert count(name, {"topic": "orders", "outcome": "handled"}) == 2


async def test_a_failure_is_repeated() -> None:
    """
    The same record again, before the next one.
    """
    handler, source = Handler(ValueError(), ValueError()), FakeSource(delivery(0), delivery(1))
    await consume(source, handler)

    assert (handler.handled, handler.calls) == ([0, 1], 4)
    assert source.dead == []


async def test_a_poison_record_becomes_a_dead_letter() -> None:
    """
    After its attempts: its bytes and headers as they were, and where, why and after how many.
    """
    handler = Handler(*[ValueError("no such order")] * 3)
    source = FakeSource(delivery(7), delivery(8))
    await consume(source, handler)

    [(dead, headers)] = source.dead
    assert (dead.value, dead.key, headers["ce_id"]) == (b'{"order_id": 7}', b"k", b"7")
    assert {
        name: value for name, value in headers.items() if "dead" in name and "-at" not in name
    } == {
        "dead-letter-reason": b"handler_failed",
        "dead-letter-error": b"ValueError: no such order",
        "dead-letter-topic": b"orders",
        "dead-letter-partition": b"0",
        "dead-letter-offset": b"7",
    }
    assert headers["dead-letter-attempts"] == b"3"
    assert source.outcomes == [Outcome.DEAD_LETTER, Outcome.HANDLED]


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(),
        TimeoutError(),
        sa.exc.OperationalError("", {}, Exception()),
        sa.exc.TimeoutError(),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_an_outage_costs_no_attempt(error: Exception) -> None:
    """
    While a database is away every record fails: none of them is given up for it.
    """
    handler, source = Handler(*[error] * 20), FakeSource(delivery(0))
    await consume(source, handler)

    assert source.outcomes == [Outcome.HANDLED]


async def test_a_dead_letter_is_settled_only_when_the_broker_has_it() -> None:
    """
    While the dead letter topic takes nothing, the record waits, and is not handled again.
    """
    handler, source = Handler(*[ValueError()] * 3), FakeSource(delivery(0))
    source.refusals = 4
    await consume(source, handler)

    assert (source.refusals, len(source.dead), handler.calls) == (0, 1, 3)


async def test_an_error_without_a_text_gives_its_record_up_all_the_same() -> None:
    """
    A `__str__` that raises must neither end the consumer nor hold the partition.
    """

    class Wordless(Exception):
        def __str__(self) -> str:
            raise ZeroDivisionError

    source = FakeSource(delivery(0))
    await consume(source, Handler(*[Wordless()] * 3))

    assert source.dead[0][1]["dead-letter-error"] == b"Wordless"


async def test_without_dead_letters_a_record_is_held() -> None:
    """
    It is tried until it succeeds; those behind it wait.
    """
    handler = Handler(*[ValueError()] * 9)
    source = FakeSource(delivery(0), delivery(1), dead_letters=False)
    await consume(source, handler)

    assert handler.handled == [0, 1]


async def test_bytes_that_cannot_be_read_become_a_dead_letter_at_once() -> None:
    """
    No attempt can help, and no handler sees them.
    """
    handler = Handler()
    source = FakeSource(delivery(3, headers=(("ce_id", b"\xff"),)))
    await consume(source, handler)

    [(_, headers)] = source.dead
    assert handler.calls == 0
    assert headers["dead-letter-reason"] == b"unreadable"
    assert headers["dead-letter-error"] == b"UnreadableRecord: orders[0]@3: a header is not UTF-8"


async def test_an_unknown_event_is_skipped_and_counted() -> None:
    """
    Other services' events share the topic.
    """
    handler, source = Handler(), FakeSource(delivery(0, name="order.paid"), delivery(1))
    consumer = await consume(source, {"order.placed": handler})

    assert source.outcomes == [Outcome.SKIPPED, Outcome.HANDLED]
    labels = {"topic": "orders", "outcome": "skipped"}
    name = "outbox_relay_consumer_records_total"
    assert consumer.metrics.registry.get_sample_value(name, labels) == 1


async def test_long_names_are_remembered_and_logged_in_part() -> None:
    """
    I10. A name of megabytes is a record's content: a hundred of them fill no memory and no log.
    """
    source = FakeSource(delivery(0, name="n" * 1_000_000))
    with capture_logs() as logs:
        await consume(source, {"order.placed": Handler()})

    [skipped] = [entry for entry in logs if entry["event"] == "unknown_event_skipped"]
    assert len(skipped["event_name"]) == 255


async def test_an_unknown_event_is_a_dead_letter_where_that_is_asked_for() -> None:
    """
    For topics on which every event is meant for this service.
    """
    source = FakeSource(delivery(0, name="order.paid"))
    await consume(source, Handler(), events=[OrderPlaced], unknown="dead_letter")

    assert source.dead[0][1]["dead-letter-reason"] == b"unknown_event"


async def test_a_mediator_is_sent_events() -> None:
    """
    By the name on the wire, as the class that has it, with the id that it was written with.
    """
    sent = []

    class Mediator:
        async def send(self, event: object) -> None:
            sent.append(event)

    source = FakeSource(delivery(5), delivery(6, name="order.paid"))
    await consume(source, mediator=Mediator(), events=[OrderPlaced])

    [event] = sent
    assert isinstance(event, OrderPlaced)
    assert event.order_id == 5
    assert source.outcomes == [Outcome.HANDLED, Outcome.SKIPPED]


async def test_what_does_not_fit_its_class_becomes_a_dead_letter() -> None:
    """
    The mediator never sees it; pydantic says why.
    """
    source = FakeSource(delivery(0, value=b'{"order_id": "many"}'))
    await consume(source, mediator=Handler(), events=[OrderPlaced])

    assert b"ValidationError" in source.dead[0][1]["dead-letter-error"]


async def test_stopping_ends_the_waits() -> None:
    """
    A record that waits for its next attempt is left to be delivered again.
    """
    handler, source = Handler(*[ValueError()] * 9), FakeSource(delivery(0))
    slow = Retries(attempts=99, initial_seconds=3600, max_seconds=3600)
    consumer = EventConsumer(source, handler, retries=slow)
    running = asyncio.create_task(consumer.run(handle_signals=False))
    while handler.calls == 0:
        await asyncio.sleep(0)
    consumer.stop()
    await running

    assert source.outcomes == [None]


async def test_a_cancellation_inside_a_handler_is_a_failure_of_it() -> None:
    """
    A client that cancels its own call must not end the consumer.
    """
    handler, source = Handler(asyncio.CancelledError()), FakeSource(delivery(0))
    await consume(source, handler)

    assert source.outcomes == [Outcome.HANDLED]


async def test_as_many_handlers_as_asked_for_work_at_once() -> None:
    """
    `concurrency` bounds them over all partitions; a record that waits for its next attempt counts for
    none.
    """
    at_work, most, gate = 0, 0, asyncio.Event()

    async def handle(record: ConsumedRecord) -> None:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        await gate.wait()
        at_work -= 1

    class Many(FakeSource):
        async def run(self, process: Process, stopping: asyncio.Event, stop_seconds: float) -> None:
            tasks = [asyncio.create_task(process(each, stopping)) for each in self.deliveries]
            while at_work < 2:
                await asyncio.sleep(0)
            gate.set()
            self.outcomes += await asyncio.gather(*tasks)

    source = Many(*(delivery(number) for number in range(6)))
    await consume(source, handle, concurrency=2)

    assert (most, source.outcomes) == (2, [Outcome.HANDLED] * 6)


@pytest.mark.parametrize(
    "error",
    [ValueError(SECRET), sa.exc.IntegrityError("INSERT", {"card": SECRET}, Exception(SECRET))],
    ids=lambda error: type(error).__name__,
)
async def test_no_payload_is_logged(error: Exception) -> None:
    """
    I11. An error's text may quote what it is about; the log has its type and the line.
    """
    with capture_logs() as logs:
        await consume(FakeSource(delivery(0)), Handler(*[error] * 3))

    assert SECRET not in str(logs)
    failed = next(entry for entry in logs if entry["event"] == "handler_failed")
    assert failed["error"] == type(error).__name__
    assert failed["at"].startswith("consuming.py:")


class Twin(NotificationEvent, name="order.placed", topic="orders", key=None):
    """Another class of the same name."""


NOBODY: Callable[[ConsumedRecord], Awaitable[None]] = Handler()
WRONG: dict[str, Callable[[], object]] = {
    "say who handles": lambda: EventConsumer(FakeSource()),
    "say who handles: either": lambda: EventConsumer(FakeSource(), NOBODY, mediator=Handler()),  # type: ignore[arg-type]
    "needs events": lambda: EventConsumer(FakeSource(), mediator=Handler()),  # type: ignore[arg-type]
    "says the names already": lambda: EventConsumer(FakeSource(), {"n": NOBODY}, events=[Twin]),
    "two of the events": lambda: EventConsumer(FakeSource(), NOBODY, events=[Twin, OrderPlaced]),
    "needs a source that has dead letters": lambda: EventConsumer(
        FakeSource(dead_letters=False), NOBODY, unknown="dead_letter"
    ),
    "concurrency = 0": lambda: EventConsumer(FakeSource(), NOBODY, concurrency=0),
    "attempts = 0": lambda: Retries(attempts=0),
    "initial_seconds = 2": lambda: Retries(initial_seconds=2, max_seconds=1),
}


@pytest.mark.parametrize("why", WRONG)
def test_a_consumer_that_cannot_work_is_refused(why: str) -> None:
    """
    When it is made, and with what to do.
    """
    with pytest.raises(ValueError, match=why):
        WRONG[why]()


def test_topics_become_labels_up_to_a_bound() -> None:
    """
    Metrics cannot grow with the names that a pattern matches.
    """
    metrics = ConsumerMetrics()

    assert [metrics.topic(f"t{number}") for number in range(201)][-1] == "other"
    assert metrics.topic("t0") == "t0"


def test_a_domain_event_is_no_event_of_the_wire() -> None:
    """
    It has no name to be found by.
    """
    assert not hasattr(DomainEvent, "from_record")


def test_the_inbox_loads_no_broker_client() -> None:
    """
    A service pays for the client that it uses, and needs no other one.
    """
    program = """
import sys
from outbox_relay import ConsumedRecord, EventConsumer, Inbox
clients = {"aiokafka", "aio_pika", "confluent_kafka", "redis", "alembic", "starlette"}
print(sorted({name.split(".")[0] for name in sys.modules} & clients))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "[]"
