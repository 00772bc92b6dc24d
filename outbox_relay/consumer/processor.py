"""
From a delivery to its outcome: decode, find the handler, call it, repeat, give up.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

import structlog

from outbox_relay.consumer.decoding import MAX_BYTES, decode
from outbox_relay.consumer.deliveries import delivery_of
from outbox_relay.consumer.metrics import ConsumerMetrics
from outbox_relay.consumer.record import ConsumedRecord, Delivery
from outbox_relay.consumer.retries import Again, Retries
from outbox_relay.consumer.routes import Handler, Route, call
from outbox_relay.consumer.source import DeadLetter, Outcome, Reason, Source
from outbox_relay.consumer.waiting import wait_until
from outbox_relay.errors import ConsumeError, UnreadableRecord
from outbox_relay.schema import MAX_NAME_CHARS

log: Final = structlog.stdlib.get_logger("outbox_relay.consumer")


@dataclass(slots=True, kw_only=True)
class Processor:
    """Does what `source.Process` says. One for all partitions; keeps nothing of a record."""

    source: Source
    route: Route
    retries: Retries
    unknown: Literal["skip", "dead_letter"]
    metrics: ConsumerMetrics
    slots: asyncio.Semaphore
    max_payload_bytes: int = MAX_BYTES
    chance: Callable[[], float] = random.random
    around: Callable[[ConsumedRecord], AbstractContextManager[None]] | None = None
    """What is around each attempt of a handler: a span."""
    _unknown_names: set[str] = field(default_factory=set)

    async def __call__(self, message: object, ending: asyncio.Event) -> Outcome | None:
        """Handle *message*; None if *ending* was set before it came to an end."""
        delivery = delivery_of(message)
        outcome = await self._process(delivery, ending)
        if outcome is not None:
            self.metrics.records.labels(self.metrics.topic(delivery.topic), outcome.value).inc()
        return outcome

    async def _process(self, delivery: Delivery, ending: asyncio.Event) -> Outcome | None:
        try:
            record = decode(delivery, max_bytes=self.max_payload_bytes)
        except UnreadableRecord as error:
            return await self._give_up(delivery, Reason.UNREADABLE, error, 0, ending)
        handler = self.route(record)
        if handler is not None:
            return await self._handle(handler, record, ending)
        if self.unknown == "skip":
            self._say_unknown(record)
            return Outcome.SKIPPED
        unknown = ConsumeError(f"{record.place}: nobody handles its event")
        return await self._give_up(delivery, Reason.UNKNOWN_EVENT, unknown, 0, ending)

    async def _handle(
        self, handler: Handler, record: ConsumedRecord, ending: asyncio.Event
    ) -> Outcome | None:
        attempts = failures = 0
        while not ending.is_set():
            async with self.slots:
                if ending.is_set():
                    return None
                error = await self._attempt(handler, record)
            if error is None:
                return Outcome.HANDLED
            said = self.retries.decide(
                error, attempts=attempts, failures=failures, chance=self.chance()
            )
            counts = said.attempts > attempts
            attempts, failures = said.attempts, failures + 1
            kind = "error" if counts else "outage"
            self.metrics.failures.labels(self.metrics.topic(record.topic), kind).inc()
            _say("handler_failed", record.delivery, error, kind=kind, attempts=attempts)
            if isinstance(said, Again):
                await wait_until(ending, said.after_seconds)
            elif self.source.can_dead_letter:
                reason = Reason.HANDLER_FAILED
                return await self._give_up(record.delivery, reason, error, attempts, ending)
            else:
                await self._hold(ending, failures)
        return None

    async def _attempt(self, handler: Handler, record: ConsumedRecord) -> BaseException | None:
        started_at = time.monotonic()
        try:
            if self.around is None:
                await call(handler, record)
            else:
                with self.around(record):
                    await call(handler, record)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return error  # something inside the handler was cancelled, not the handler
        except Exception as error:  # noqa: BLE001 - whatever a handler raises is its failure
            return error
        self.metrics.seconds.observe(time.monotonic() - started_at)
        return None

    async def _give_up(
        self,
        delivery: Delivery,
        reason: Reason,
        error: BaseException,
        attempts: int,
        ending: asyncio.Event,
    ) -> Outcome | None:
        """Publish the dead letter; only when the broker has acked it may the record be settled."""
        failures = 0
        dead = DeadLetter(
            delivery=delivery,
            reason=reason,
            error=_text(error),
            attempts=attempts,
            at=datetime.now(UTC),
        )
        while not ending.is_set():
            if not self.source.can_dead_letter:
                _say("record_held", delivery, error, reason=reason.value)
                await self._hold(ending, failures)
            else:
                try:
                    await self.source.dead_letter(delivery, dead.headers())
                except Exception as problem:  # noqa: BLE001 - the record waits, whatever it is
                    _say("dead_letter_failed", delivery, problem)
                    await self._hold(ending, failures)
                else:
                    _say("dead_letter", delivery, error, reason=reason.value, attempts=attempts)
                    return Outcome.DEAD_LETTER
            failures += 1
        return None

    @contextmanager
    def holding(self) -> Iterator[None]:
        """See Process."""
        self.metrics.held.inc()
        try:
            yield
        finally:
            self.metrics.held.dec()

    async def _hold(self, ending: asyncio.Event, failures: int) -> None:
        with self.holding():
            await wait_until(ending, self.retries.delay_seconds(failures, self.chance()))

    def _say_unknown(self, record: ConsumedRecord) -> None:
        name = (record.event_name or "")[:MAX_NAME_CHARS]
        if name not in self._unknown_names and len(self._unknown_names) < 100:
            self._unknown_names.add(name)
            log.info("unknown_event_skipped", topic=record.topic, event_name=name)


def _say(event: str, delivery: Delivery, error: BaseException, **more: Any) -> None:
    # The type and the line, never the text: a database quotes parameters, pydantic the input.
    log.warning(event, place=delivery.place, error=type(error).__name__, at=_line(error), **more)


def _text(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - a text that cannot be had must not keep the record from its place
        return type(error).__name__


def _line(error: BaseException) -> str:
    trace = error.__traceback__
    if trace is None:
        return ""
    while trace.tb_next is not None:
        trace = trace.tb_next
    return f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
