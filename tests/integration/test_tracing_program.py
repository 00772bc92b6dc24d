"""
The relay as `opentelemetry-instrument` runs it, towards a collector that speaks OTLP.
"""

from __future__ import annotations

import gzip
import http.server
import json
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from outbox_relay import Outbox
from outbox_relay.migrate import migrate
from outbox_relay.store import DatabaseOptions
from tests.integration.command import environment

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Collector:
    """Takes spans; `wait` gives the next one."""

    def __init__(self) -> None:
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as otlp

        spans: queue.Queue[Any] = queue.Queue()
        self.spans = spans

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                if self.path == "/v1/traces":
                    taken = otlp.ExportTraceServiceRequest.FromString(body)
                    for resource in taken.resource_spans:
                        for scope in resource.scope_spans:
                            for span in scope.spans:
                                spans.put(span)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def wait(self) -> Any:
        """A span, as it came."""
        return self.spans.get(timeout=30)


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def config(tmp_path: Path, sqlite_database: Any) -> Path:
    """An outbox with one event of a sampled trace, and a file instead of a broker."""
    migrate(DatabaseOptions(url=sqlite_database.async_url))
    engine = sa.create_engine(sqlite_database.sync_url)
    with engine.begin() as connection:
        Outbox().add(connection, {}, name="e", topic="t", key="k", headers={"traceparent": PARENT})
    engine.dispose()
    path = tmp_path / "config.toml"
    path.write_text(
        f'[database]\nurl = "{sqlite_database.async_url}"\n[broker]\nkind = "jsonl"\n'
        f'[jsonl]\npath = "{tmp_path}/events.jsonl"\n[tracing]\nenabled = true\n[http]\nport = 0\n'
    )
    return path


def run(config: Path, *words: str, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*words, sys.executable, "-m", "outbox_relay", "run"],
        cwd=config.parent,
        env=environment(**variables),
        stderr=subprocess.PIPE,
        text=True,
    )


def until(process: subprocess.Popen[str], event: str) -> dict[str, Any]:
    """Read the log up to *event*."""
    assert process.stderr is not None
    for text in process.stderr:
        line: dict[str, Any] = json.loads(text) if text.startswith("{") else {}
        if line.get("event") == event:
            return line
    raise AssertionError(f"{event} was never logged")


def test_spans_of_an_instrumented_relay_reach_the_collector(
    config: Path, collector: Collector
) -> None:
    """
    The span continues the stored trace; SIGTERM is a stop in order, and the last spans go out before it.
    """
    program = str(Path(sys.executable).with_name("opentelemetry-instrument"))
    process = run(
        config,
        program,
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
        # So late that nothing but the end of the process sends them.
        OTEL_BSP_SCHEDULE_DELAY="600000",
    )
    until(process, "lease_acquired")
    events = config.with_name("events.jsonl")
    while not events.exists() or not events.read_text():
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    until(process, "stopped")
    code = process.wait(60)
    span = collector.wait()
    sent = json.loads(events.read_text())["headers"]["traceparent"]

    assert code == 0
    assert span.name == "publish t"
    assert span.trace_id.hex() == PARENT[3:35]
    assert span.parent_span_id.hex() == PARENT[36:52]
    assert sent == f"00-{span.trace_id.hex()}-{span.span_id.hex()}-01"


def test_tracing_without_a_provider_is_said(config: Path) -> None:
    """
    Else nobody would know why no trace arrives.
    """
    process = run(config)
    said = until(process, "tracing_without_provider")
    process.kill()
    process.wait()

    assert "opentelemetry-instrument" in said["mend"]
