"""
Spans of a consumer, by OpenTelemetry. Needs opentelemetry-api; the SDK is the application's.

Each attempt of a handler is a CONSUMER span. Its parent is the context that the record carries in
``traceparent`` and ``tracestate`` (W3C Trace Context): the relay's span, where the relay traces, else the
one in which the event was written. So a trace leads from the handler that wrote the event to the one that
took it. What a handler does runs inside the span.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from outbox_relay._version import __version__
from outbox_relay.consumer.record import ConsumedRecord

_PROPAGATOR = TraceContextTextMapPropagator()
_HEADERS = ("traceparent", "tracestate")


class ConsumerTracing:
    """Makes the spans, by the tracer provider of the process or by *provider*."""

    def __init__(self, provider: trace.TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer("outbox_relay", __version__, tracer_provider=provider)

    @contextmanager
    def handling(self, record: ConsumedRecord) -> Iterator[None]:
        """
        A span around one attempt to handle *record*. Whatever is raised inside makes it an error.
        """
        carrier = {
            name: record.headers[name].decode("ascii", "replace")
            for name in _HEADERS
            if name in record.headers
        }
        span = self._tracer.start_span(
            f"process {record.topic}",
            context=_PROPAGATOR.extract(carrier),
            kind=SpanKind.CONSUMER,
            attributes=_attributes(record),
        )
        with trace.use_span(
            span, end_on_exit=True, record_exception=False, set_status_on_exception=False
        ):
            try:
                yield
            except BaseException as error:
                # The type alone: a database quotes parameters in its texts, pydantic the input.
                span.set_attribute("error.type", type(error).__qualname__)
                span.set_status(Status(StatusCode.ERROR))
                raise


def _attributes(record: ConsumedRecord) -> dict[str, str | int]:
    found: dict[str, str | int] = {
        "messaging.operation.type": "process",
        "messaging.operation.name": "process",
        "messaging.destination.name": record.topic,
    }
    if record.event_id is not None:
        found["messaging.message.id"] = str(record.event_id)
    delivery = record.delivery
    if delivery.partition is not None:
        found["messaging.destination.partition.id"] = str(delivery.partition)
    if delivery.offset is not None:
        found["messaging.kafka.offset"] = delivery.offset
    return found
