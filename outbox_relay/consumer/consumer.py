"""
`EventConsumer`: a broker's records, handed to the application's handlers, at least once and in order.

A record is settled with the broker after its handler has returned, so that a crash in between delivers
it again; the `Inbox` in the handler's own transaction makes the effect happen once.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, Final, Literal

from outbox_relay.consumer.decoding import MAX_BYTES
from outbox_relay.consumer.metrics import ConsumerMetrics
from outbox_relay.consumer.processor import Processor, log
from outbox_relay.consumer.record import ConsumedRecord
from outbox_relay.consumer.retries import Retries
from outbox_relay.consumer.routes import Events, Handler, Mediator, route
from outbox_relay.consumer.source import Source

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class EventConsumer:
    """
    Consumes from *source* until it is told to stop.

    * handle: takes each record; or handlers by the event's name
    * mediator, events: instead of *handle*; the mediator is sent events of these classes
    * retries: what becomes of a handler's error
    * unknown: what becomes of an event of another name: skipped and counted, or a dead letter
    * concurrency: handlers at work at once; order stays within a partition
    * stop_seconds: how long what is in work may take to end; a broker that does not answer may take
      10 s more
    * max_payload_bytes: how large a compressed payload may become
    * metrics: where to count
    * tracing: whether each attempt of a handler is a span of OpenTelemetry, a child of the span that its
      record names; True, or the tracer provider to use. Needs `opentelemetry-api`

    A record whose attempts are used up, or that cannot be read, goes to the source's dead letters; if
    it has none, the record is held: tried again and again, and its partition waits.
    """

    def __init__(
        self,
        source: Source,
        handle: Handler | Mapping[str, Handler] | None = None,
        *,
        mediator: Mediator | None = None,
        events: Events = (),
        retries: Retries | None = None,
        unknown: Literal["skip", "dead_letter"] = "skip",
        concurrency: int = 1,
        stop_seconds: float = 20.0,
        max_payload_bytes: int = MAX_BYTES,
        metrics: ConsumerMetrics | None = None,
        tracing: bool | TracerProvider = False,
    ) -> None:
        if unknown == "dead_letter" and not source.can_dead_letter:
            raise ValueError('unknown="dead_letter" needs a source that has dead letters')
        if concurrency < 1 or stop_seconds <= 0:
            raise ValueError(
                f"concurrency = {concurrency} must be at least 1, stop_seconds = {stop_seconds} "
                "above 0"
            )
        self.metrics = metrics or ConsumerMetrics()
        self._source = source
        self._stop_seconds = stop_seconds
        self._stopping = asyncio.Event()
        self._process = Processor(
            source=source,
            route=route(handle, mediator, events),
            retries=retries or Retries(),
            unknown=unknown,
            metrics=self.metrics,
            slots=asyncio.Semaphore(concurrency),
            max_payload_bytes=max_payload_bytes,
            around=_spans(tracing) if tracing is not False else None,
        )

    def stop(self) -> None:
        """Take no new record; `run` returns when what is in work has ended, in stop_seconds at most."""
        self._stopping.set()

    async def run(self, *, handle_signals: bool = True) -> None:
        """
        Consume until `stop`, or until SIGTERM or SIGINT if *handle_signals*.

        Outlasts outages of the broker. Cancelling it ends handlers where they are; what they did not
        commit is delivered again.
        """
        loop = asyncio.get_running_loop()
        handled = []
        for number in _SIGNALS if handle_signals else ():
            with suppress(NotImplementedError, ValueError, RuntimeError):  # no main thread
                loop.add_signal_handler(number, self.stop)
                handled.append(number)
        log.info("consumer_started")
        try:
            await self._source.run(self._process, self._stopping, self._stop_seconds)
        finally:
            for number in handled:
                loop.remove_signal_handler(number)
            log.info("consumer_stopped")


def _spans(
    tracing: Literal[True] | TracerProvider,
) -> Callable[[ConsumedRecord], AbstractContextManager[None]]:
    try:
        from outbox_relay.consumer.tracing import ConsumerTracing  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise ImportError(
            'tracing needs opentelemetry-api: install "outbox-relay[otel]"'
        ) from error
    return ConsumerTracing(None if tracing is True else tracing).handling
