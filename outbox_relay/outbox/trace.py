"""
The trace in which an event is written, as its row keeps it: W3C Trace Context, ``traceparent`` and
``tracestate``.

Asks only an OpenTelemetry that the application has loaded: where there is none, no span can be active.
"""

from __future__ import annotations

import sys
from typing import Final

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"


def current_trace() -> dict[str, str] | None:
    """
    The headers that carry on the span that is active here; None if there is none.

    ``traceparent`` is that of version 00 (3.2.2): trace id, the span's own id as the parent's, flags.
    ``tracestate`` goes with it where the trace has one (3.3), never alone.
    """
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    found = {
        TRACEPARENT: f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    }
    if context.trace_state:
        found[TRACESTATE] = context.trace_state.to_header()
    return found
