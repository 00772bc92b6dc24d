"""
Spans of the relay, by OpenTelemetry. Needs the extra `otel`; the SDK is whoever runs the relay's.

A row that was written in a sampled trace gets a PRODUCER span, from the moment its batch is first
published to the ack, whatever lies between. Its parent is the span that wrote the row, and the record
carries its context: so a consumer's span is a child of it. Rows of traces that are not sampled, or of
none, get no span, and their records go out as they were stored: the decision is the root's (W3C Trace
Context, 3.2.2.5.1), and the relay takes nobody's place in a trace that nobody keeps.

Names follow the semantic conventions for messaging, which are still in development.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from opentelemetry import trace
from opentelemetry.trace import Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from outbox_relay._version import __version__
from outbox_relay.relay.ports import Record, Row
from outbox_relay.relay.tracing import is_sampled, traceparent_of, with_traceparent


class RelayTracing:
    """The `Tracing` port over the tracer provider of the process, or over *provider*."""

    def __init__(self, *, system: str, provider: trace.TracerProvider | None = None) -> None:
        self._system = system
        self._tracer = trace.get_tracer("outbox_relay", __version__, tracer_provider=provider)
        self._spans: dict[int, Span] = {}

    def begin(
        self, topic: str, partition: int, rows: Sequence[Row], records: Sequence[Record]
    ) -> list[Record]:
        """See Tracing."""
        found = []
        for row, record in zip(rows, records, strict=True):
            stored = traceparent_of(record)
            if stored is not None and is_sampled(stored):
                span = self._start(stored, topic, partition, row, len(rows))
                own = span.get_span_context()
                if span.is_recording() and own.is_valid:
                    self._spans[row.id] = span
                    found.append(with_traceparent(record, traceparent(own)))
                    continue
            found.append(record)
        return found

    def _start(self, stored: bytes, topic: str, partition: int, row: Row, batch: int) -> Span:
        parent = SpanContext(
            trace_id=int(stored[3:35], 16),
            span_id=int(stored[36:52], 16),
            is_remote=True,
            trace_flags=TraceFlags(TraceFlags.SAMPLED),
        )
        return self._tracer.start_span(
            f"publish {topic}",
            context=trace.set_span_in_context(trace.NonRecordingSpan(parent)),
            kind=SpanKind.PRODUCER,
            attributes={
                "messaging.system": self._system,
                "messaging.operation.type": "send",
                "messaging.operation.name": "publish",
                "messaging.destination.name": topic,
                "messaging.destination.partition.id": str(partition),
                "messaging.batch.message_count": batch,
                "messaging.message.id": str(UUID(bytes=row.event_id)),
                "outbox_relay.row.id": row.id,
                "outbox_relay.event.name": row.event_name,
            },
        )

    def acked(self, rows: Sequence[Row]) -> None:
        """See Tracing."""
        for row in rows if self._spans else ():
            if (span := self._spans.pop(row.id, None)) is not None:
                span.end()

    def troubled(self, rows: Sequence[Row], detail: str) -> None:
        """See Tracing."""
        for row in rows if self._spans else ():
            if (span := self._spans.get(row.id)) is not None:
                span.add_event("publish unknown", {"error.message": detail})

    def ended(self, rows: Sequence[Row], detail: str) -> None:
        """See Tracing."""
        for row in rows if self._spans else ():
            if (span := self._spans.pop(row.id, None)) is not None:
                span.set_status(Status(StatusCode.ERROR, detail))
                span.end()


def has_provider() -> bool:
    """Whether somebody set up where spans go; without one none is made, and nobody says so."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def flush(seconds: float) -> None:
    """Hand over what has ended: the process leaves without the SDK's own handlers of its end."""
    force = getattr(trace.get_tracer_provider(), "force_flush", None)
    if force is not None:
        force(int(seconds * 1000))


def traceparent(context: SpanContext) -> bytes:
    """
    The header of *context*, version 00 (W3C Trace Context, 3.2.2).

    >>> traceparent(SpanContext(1, 2, is_remote=False, trace_flags=TraceFlags(1)))
    b'00-00000000000000000000000000000001-0000000000000002-01'
    """
    text = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    return text.encode()
