"""
Metrics and health over HTTP: what they answer, and what they never depend on.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain_text

from outbox_relay.config import HttpOptions
from outbox_relay.errors import ConfigError
from outbox_relay.http.app import build_app
from outbox_relay.http.server import HttpServer, listen
from outbox_relay.metrics import Metrics, MetricsObserver
from outbox_relay.relay.waiting import NONE, Cause, Late


class Relay:
    """Just enough of a relay to be asked about."""

    def __init__(self) -> None:
        self.now = 0.0
        self.stopping = False
        self.observer = MetricsObserver(Metrics(), clock=lambda: self.now)
        self.app = build_app(self.observer, stopping=lambda: self.stopping)


@pytest.fixture
def relay() -> Relay:
    return Relay()


@pytest.fixture
async def client(relay: Relay) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=relay.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://relay") as client:
        yield client


async def test_alive_while_the_loop_makes_progress(relay: Relay, client: httpx.AsyncClient) -> None:
    """
    200 within 30 s of the last progress, else 503 with the reason.
    """
    relay.now = 29.0
    at_start = await client.get("/livez")
    relay.now = 31.0
    stalled = await client.get("/livez")
    relay.observer.cycle()
    again = await client.get("/livez")

    assert (at_start.status_code, stalled.status_code, again.status_code) == (200, 503, 200)
    assert stalled.json() == {
        "status": "stalled",
        "reason": "the main loop has made no progress for 31 s",
    }


async def test_ready_whatever_database_and_broker_do(
    relay: Relay, client: httpx.AsyncClient
) -> None:
    """
    A sidecar's readiness is its pod's: only a stop takes it away.
    """
    relay.observer.schema("the outbox tables do not exist: run `outbox-relay migrate`")
    relay.observer.parked({"orders"}, 3)
    before = await client.get("/readyz")
    relay.stopping = True
    stopping = await client.get("/readyz")

    assert (before.status_code, before.json()) == (200, {"status": "ok"})
    assert (stopping.status_code, stopping.json()) == (503, {"status": "stopping"})


async def test_details_on_request(relay: Relay, client: httpx.AsyncClient) -> None:
    """
    ?verbose=1 shows what an operator asks first.
    """
    relay.observer.schema("run `outbox-relay migrate`")
    relay.observer.lanes(64, 15.0)
    relay.observer.parked({"orders"}, 3)
    relay.observer.waiting({Cause.TOPIC: Late(7, 1_000), Cause.TURN: NONE})
    relay.observer.log("store_unavailable", error="a text with names in it")
    relay.now = 2.0
    answer = (await client.get("/readyz?verbose=1")).json()
    relay.now = 61.0
    later = (await client.get("/readyz?verbose=1")).json()

    assert later["trouble"] is None
    assert answer == {
        "status": "ok",
        "schema": "run `outbox-relay migrate`",
        "active": True,
        "lanes_owned": 64,
        "paused_topics": ["orders"],
        "waiting": {"topic": 7},
        "trouble": {"event": "store_unavailable", "seconds_ago": 2.0},
        "seconds_since_progress": 2.0,
    }


async def test_metrics_in_both_formats(relay: Relay, client: httpx.AsyncClient) -> None:
    """
    Plain text for everybody, OpenMetrics for who asks; each parses and says what it is.
    """
    relay.observer.published("orders", 5, 100, 0.01)
    relay.observer.latency(0.02, 5)
    text = await client.get("/metrics")
    accept = {"accept": "application/openmetrics-text; version=1.0.0"}
    modern = await client.get("/metrics", headers=accept)
    names = {family.name for family in plain_text(text.text)}

    assert text.headers["content-type"].startswith("text/plain; version=")
    assert modern.headers["content-type"].startswith("application/openmetrics-text; version=")
    assert text.headers["content-type"].count("charset") == 1
    assert "outbox_relay_published" in names
    assert {family.name for family in openmetrics(modern.text)} >= {
        "outbox_relay_published",
        "outbox_relay_publish_latency_seconds",
    }


@pytest.mark.parametrize("path", ["/metrics", "/livez", "/readyz"])
async def test_only_get_and_head(client: httpx.AsyncClient, path: str) -> None:
    """
    Nothing can be changed here.
    """
    head = await client.head(path)
    refused = [(await client.request(method, path)) for method in ("POST", "PUT", "DELETE")]

    assert (head.status_code, head.content) == (200, b"") or path == "/metrics"
    assert [answer.status_code for answer in refused] == [405, 405, 405]
    assert all(answer.json() == {"error": "method not allowed"} for answer in refused)


async def test_everything_else_is_not_found(client: httpx.AsyncClient) -> None:
    """
    404 in JSON, with what there is.
    """
    answer = await client.get("/admin")

    assert answer.status_code == 404
    assert answer.json() == {"error": "not found", "paths": ["/metrics", "/livez", "/readyz"]}


async def test_port_0_takes_any_free_port(relay: Relay) -> None:
    """
    The server says which, answers there, and is gone after `close`.
    """
    server = HttpServer(relay.app, listen(HttpOptions(port=0)))
    server.start()
    host, port = server.address
    async with httpx.AsyncClient(base_url=f"http://{host}:{port}") as client:
        answer = await client.get("/livez")
    await server.close()

    assert answer.status_code == 200
    with pytest.raises(OSError):
        await asyncio.open_connection(host, port)


async def test_closing_does_not_wait_for_an_idle_client(relay: Relay) -> None:
    """
    A scraper that keeps its connection open holds up no stop.
    """
    server = HttpServer(relay.app, listen(HttpOptions(port=0)))
    server.start()
    reader, writer = await asyncio.open_connection(*server.address)
    writer.write(b"GET /livez HTTP/1.1\r\nHost: relay\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    async with asyncio.timeout(5):
        await server.close()
    writer.close()

    assert not server.serving


def test_a_port_that_is_taken_is_named() -> None:
    """
    One line that names the setting and a way out.
    """
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError) as raised:
            listen(HttpOptions(port=port))

    (problem,) = raised.value.problems
    assert problem.startswith(f"http.port = {port} on 127.0.0.1 cannot be listened on")
    assert "0 for any free one" in problem


def test_a_host_that_does_not_exist_is_named() -> None:
    """
    A wrong address is told by its setting.
    """
    with pytest.raises(ConfigError, match=r"http\.host = '300\.0\.0\.1' cannot be used"):
        listen(HttpOptions(host="300.0.0.1", port=0))
