"""
What tracing costs, in microseconds of CPU for each event: `python -m benchmarks.tracing`.

No server is needed. On the write side, what `Outbox.insert` takes; in the relay, what making and tracing
the records of a batch takes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Tracer

from outbox_relay import Outbox
from outbox_relay.relay.envelope import make_encoder
from outbox_relay.relay.ports import Record, Row
from outbox_relay.relay.tracing import Tracing
from outbox_relay.relay.wire import WireOptions
from outbox_relay.tracing import RelayTracing

EVENTS = 20_000
BATCH = 500
ROUNDS = 5


def microseconds(work: Callable[[], object]) -> float:
    """The least of some rounds, for each event."""
    least = float("inf")
    for _ in range(ROUNDS):
        started = time.process_time()
        work()
        least = min(least, time.process_time() - started)
    return least / EVENTS * 1e6


def writing(tracer: Tracer, *, in_a_span: bool) -> float:
    """Making rows of events."""
    outbox = Outbox(source="/shop")

    def work() -> None:
        span = tracer.start_as_current_span("handler") if in_a_span else nullcontext()
        with span:
            for number in range(EVENTS):
                outbox.insert({"number": number}, name="order.placed", topic="orders", key=number)

    return microseconds(work)


def rows(*, traced: bool) -> list[Row]:
    """Rows as a relay reads them; each of a trace of its own."""

    def headers(number: int) -> str:
        if not traced:
            return '{"ce_source":"/shop"}'
        return f'{{"ce_source":"/shop","traceparent":"00-{number:032x}-{number:016x}-01"}}'

    return [
        Row(
            id=number,
            topic="orders",
            key=b"%d" % number,
            payload=b"x" * 300,
            payload_bytes=300,
            codec=0,
            headers=headers(number),
            event_id=number.to_bytes(16, "big"),
            event_name="order.placed",
            content_type="application/json",
            created_us=1_700_000_000_000_000 + number,
            requeued_us=None,
        )
        for number in range(1, EVENTS + 1)
    ]


def relaying(found: list[Row], tracing: Tracing | None = None) -> float:
    """Making records of rows, in batches, with their spans."""

    def work() -> None:
        encoder = make_encoder(WireOptions(), max_payload_bytes=1 << 20)
        for start in range(0, len(found), BATCH):
            batch = found[start : start + BATCH]
            records: list[Record] = [encoder.record(row) for row in batch]
            if tracing is not None:
                tracing.begin("orders", 0, batch, records)
                tracing.acked(batch)

    return microseconds(work)


def main() -> None:
    """Print a table."""
    provider = TracerProvider()
    tracer = provider.get_tracer("benchmark")
    spans = RelayTracing(system="kafka", provider=provider)
    lines = {
        "write, no span active": writing(tracer, in_a_span=False),
        "write, in a span": writing(tracer, in_a_span=True),
        "relay, rows without a trace": relaying(rows(traced=False)),
        "relay, rows without a trace, tracing.enabled": relaying(rows(traced=False), spans),
        "relay, each row of a trace of its own": relaying(rows(traced=True)),
        "relay, the same, tracing.enabled, all sampled": relaying(rows(traced=True), spans),
    }
    print("| | CPU, µs an event |\n|---|---:|")
    for what, cost in lines.items():
        print(f"| {what} | {cost:.1f} |")


if __name__ == "__main__":
    main()
