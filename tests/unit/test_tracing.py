"""
A trace leads from the handler that wrote an event, over the relay, to the handler that took it.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode, use_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from outbox_relay import Outbox
from outbox_relay.consumer import Delivery, EventConsumer, decode
from outbox_relay.consumer.tracing import ConsumerTracing
from outbox_relay.relay.outcomes import Fault, Rejected, RejectReason, Unknown
from outbox_relay.relay.tracing import traceparent_of
from outbox_relay.testing.broker import record
from outbox_relay.tracing import RelayTracing
from tests.unit.test_event_consumer import FakeSource, Handler, consume, delivery

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
HEADERS = (("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_type", b"order.placed"))
NOT_SAMPLED = PARENT[:-1] + "0"


class Traced:
    """An SDK of OpenTelemetry that keeps its spans."""

    def __init__(self, **options) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(**options)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("tests")

    def spans(self, name=""):
        return [s for s in self.exporter.get_finished_spans() if s.name.startswith(name)]


@pytest.fixture
def traced():
    return Traced()


@pytest.fixture
def tracing(traced):
    return RelayTracing(system="kafka", provider=traced.provider)


def headers_of(outbox, **said):
    """The headers that the row of an event gets."""
    statement = outbox.insert({"a": 1}, name="e", topic="orders", key=None, **said)
    stored = statement.compile().params["headers"]
    return None if stored is None else json.loads(stored)


def write(store, headers):
    """A committed row of the topic orders."""
    transaction = store.begin()
    row_id = transaction.insert("orders", key=b"k", headers=headers)
    transaction.commit()
    return row_id


# Writing


def test_an_event_keeps_the_span_in_which_it_was_written(traced):
    """
    W3C Trace Context, 3.2.2: version, trace id, the span's own id, flags; tracestate beside it.
    """
    state = TraceContextTextMapPropagator().extract({"traceparent": PARENT, "tracestate": "v=1"})
    with traced.tracer.start_as_current_span("handler", context=state) as span:
        headers = headers_of(Outbox())
    context = span.get_span_context()

    assert headers == {
        "traceparent": f"00-0af7651916cd43dd8448eb211c80319c-{context.span_id:016x}-01",
        "tracestate": "v=1",
    }


def test_without_a_span_nothing_is_added():
    """
    Nor where OpenTelemetry is loaded and no span is active.
    """
    assert headers_of(Outbox()) is None
    assert headers_of(Outbox(source="/shop")) == {"ce_source": "/shop"}


def test_what_the_event_says_itself_wins(traced):
    """
    Whoever sets a traceparent has a reason; then tracestate is theirs too.
    """
    with traced.tracer.start_as_current_span("handler"):
        own = headers_of(Outbox(), headers={"Traceparent": PARENT})
        shared = headers_of(Outbox(headers={"traceparent": PARENT}))
        other = headers_of(Outbox(), headers={"tenant": "a"})

    assert own == {"Traceparent": PARENT}
    assert shared == {"traceparent": PARENT}
    assert set(other) == {"tenant", "traceparent"}


def test_it_can_be_switched_off(traced):
    """
    Events of a trace each have headers of their own, which costs the relay some microseconds.
    """
    with traced.tracer.start_as_current_span("handler"):
        assert headers_of(Outbox(trace=False)) is None


def test_writing_loads_no_opentelemetry():
    """
    An application without it pays for a look into a dict.
    """
    program = (
        "import sys; from outbox_relay import Outbox; "
        "Outbox().insert({}, name='e', topic='t', key=None); "
        "print([n for n in sys.modules if n.startswith('opentelemetry')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True
    )

    assert done.stdout.strip() == "[]", done.stderr


# Relaying


async def test_a_trace_leads_from_handler_to_handler(start, store, broker, clock, traced, tracing):
    """
    The relay's span is a child of the one that wrote the row, the consumer's a child of the relay's.
    """
    with traced.tracer.start_as_current_span("handler") as handler:
        headers = headers_of(Outbox())
    write(store, headers)
    start(tracing=tracing)
    await clock.advance(1)
    [published] = broker.published
    taken = decode(
        Delivery(topic="orders", value=b"{}", headers=tuple(published.record.headers), partition=0)
    )
    with ConsumerTracing(traced.provider).handling(taken):
        pass
    [publish], [process] = traced.spans("publish"), traced.spans("process")

    assert publish.context.trace_id == process.context.trace_id == handler.context.trace_id
    assert publish.parent.span_id == handler.context.span_id
    assert process.parent.span_id == publish.context.span_id
    assert (publish.kind, process.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    assert publish.attributes["messaging.system"] == "kafka"
    assert publish.attributes["messaging.destination.name"] == "orders"
    assert publish.status.status_code is StatusCode.UNSET


@pytest.mark.parametrize(
    "headers", [None, {"traceparent": NOT_SAMPLED}, {"traceparent": "no such thing"}]
)
async def test_no_span_where_the_trace_has_none(
    start, store, broker, clock, traced, tracing, headers
):
    """
    Not sampled, without a trace, or with one that cannot be read: the record goes out as stored.
    """
    write(store, headers)
    start(tracing=tracing)
    await clock.advance(1)
    [published] = broker.published
    sent = dict(published.record.headers).get("traceparent")

    assert traced.spans() == []
    assert sent == (None if headers is None else headers["traceparent"].encode())


@pytest.mark.parametrize("provider", [None, TracerProvider(sampler=ALWAYS_OFF)])
async def test_the_stored_context_stays_where_no_span_is_kept(
    start, store, broker, clock, provider
):
    """
    Tracing is on, and there is no SDK, or one that samples nothing: consumers see the writer's span.
    """
    write(store, {"traceparent": PARENT})
    start(tracing=RelayTracing(system="kafka", provider=provider))
    await clock.advance(1)

    assert dict(broker.published[0].record.headers)["traceparent"] == PARENT.encode()


async def test_one_span_covers_every_attempt(start, store, broker, clock, traced, tracing):
    """
    A batch that ended unknown is published again with the same records; its span says so and goes on.
    """
    failures = [Unknown(fault=Fault.PARTITION, detail="lost")]
    sent = []

    def answer(_topic, _partition, records):
        sent.append(traceparent_of(records[0]))
        return failures.pop() if failures else None

    broker.answer = answer
    write(store, {"traceparent": PARENT})
    start(tracing=tracing)
    await clock.advance(5)
    [span] = traced.spans("publish")

    assert len(sent) == 2
    assert sent[0] == sent[1] != PARENT.encode()
    assert [event.name for event in span.events] == ["publish unknown"]
    assert span.status.status_code is StatusCode.UNSET
    assert tracing._spans == {}


async def test_a_dead_letter_ends_its_span_as_an_error(
    start, store, broker, clock, traced, tracing
):
    """
    Its neighbours in the batch are published all the same.
    """

    def answer(_topic, _partition, records):
        bad = any(r.seq == b"1" for r in records)
        return Rejected(reason=RejectReason.INVALID_RECORD, detail="no") if bad else None

    broker.answer = answer
    for _ in range(3):
        write(store, {"traceparent": PARENT})
    start(tracing=tracing)
    await clock.advance(5)
    codes = {
        span.attributes["outbox_relay.row.id"]: span.status.status_code
        for span in traced.spans("publish")
    }

    assert codes == {1: StatusCode.ERROR, 2: StatusCode.UNSET, 3: StatusCode.UNSET}
    assert tracing._spans == {}


async def test_spans_end_when_the_relay_does(start, store, broker, clock, traced, tracing):
    """
    What was under way is published by the next relay, in a span of its own.
    """
    broker.hold("orders")
    write(store, {"traceparent": PARENT})
    running = start(tracing=tracing)
    await clock.advance(1)
    running.task.cancel()
    await clock.advance(1)
    [span] = traced.spans("publish")

    assert span.status.status_code is StatusCode.ERROR
    assert tracing._spans == {}


@pytest.mark.parametrize(
    ("value", "well_formed"),
    [
        (PARENT, True),
        ("cc" + PARENT[2:] + "-what-the-future-holds", True),
        (PARENT + "-more", False),
        ("ff" + PARENT[2:], False),
        (PARENT.upper(), False),
        ("00-" + "0" * 32 + "-b7ad6b7169203331-01", False),
        ("00-0af7651916cd43dd8448eb211c80319c-" + "0" * 16 + "-01", False),
    ],
)
def test_a_traceparent_is_read_as_the_standard_says(value, well_formed):
    """
    W3C Trace Context, 3.2.2 and 4: what is not well formed counts as no trace.
    """
    made = record(None, b"", headers=(("traceparent", value.encode()),))

    assert traceparent_of(made) == (value.encode() if well_formed else None)


# Consuming


def consumed(**headers):
    return decode(
        Delivery(
            topic="orders",
            value=b"{}",
            headers=tuple((name, value.encode()) for name, value in headers.items()),
            partition=3,
            offset=7,
        )
    )


def test_a_handler_runs_inside_its_span(traced):
    """
    What it starts is a child; tracestate travels on.
    """
    with (
        ConsumerTracing(traced.provider).handling(consumed(traceparent=PARENT, tracestate="v=1")),
        traced.tracer.start_as_current_span("query"),
    ):
        pass
    [query], [process] = traced.spans("query"), traced.spans("process")

    assert query.parent.span_id == process.context.span_id
    assert process.context.trace_state.get("v") == "1"
    assert process.attributes["messaging.kafka.offset"] == 7


def test_a_handlers_error_is_told_without_its_text(traced):
    """
    I11. A database quotes parameters in its errors.
    """
    with pytest.raises(ValueError), ConsumerTracing(traced.provider).handling(consumed()):
        raise ValueError("geheim")
    [span] = traced.spans("process")

    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["error.type"] == "ValueError"
    assert "geheim" not in span.to_json()


def test_the_active_span_is_not_the_parent(traced):
    """
    A consumer's own loop may be traced: the event belongs to the trace that wrote it.
    """
    loop = traced.tracer.start_span("loop")
    with use_span(loop), ConsumerTracing(traced.provider).handling(consumed(traceparent=PARENT)):
        pass
    [process] = traced.spans("process")

    assert f"{process.context.trace_id:032x}" == PARENT.split("-")[1]


async def test_each_attempt_of_a_handler_is_a_span(traced):
    """
    `EventConsumer(tracing=...)`: two attempts, two spans, children of what the record carries.
    """
    handler = Handler(ValueError("no"))
    source = FakeSource(delivery(0, headers=(("traceparent", PARENT.encode()), *HEADERS)))
    await consume(source, handler, tracing=traced.provider)
    spans = traced.spans("process orders")

    assert handler.handled == [0]
    assert [span.status.status_code for span in spans] == [StatusCode.ERROR, StatusCode.UNSET]
    assert {f"{span.parent.span_id:016x}" for span in spans} == {PARENT.split("-")[2]}


async def test_a_consumer_makes_no_spans_unless_it_is_asked(traced):
    """
    Without `tracing` OpenTelemetry is not even loaded.
    """
    with traced.tracer.start_as_current_span("loop") as loop:
        await consume(FakeSource(delivery(0)), Handler())

    assert [span.name for span in traced.spans()] == ["loop"]
    assert loop.get_span_context().is_valid


def test_a_consumer_that_lacks_the_package_says_what_to_install(monkeypatch):
    """
    At once, not at the first record.
    """
    monkeypatch.setitem(sys.modules, "outbox_relay.consumer.tracing", None)

    with pytest.raises(ImportError, match=r"outbox-relay\[otel\]"):
        EventConsumer(FakeSource(), Handler(), tracing=True)
