"""
/metrics, /livez and /readyz. Read-only, and without any secret, payload or key.

`/livez` asks neither database nor broker: their outage must not restart the relay. `/readyz` never
fails because of them either, since a sidecar's readiness is its pod's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from outbox_relay.liveness import stall
from outbox_relay.metrics import MetricsObserver

FRESH_SECONDS: Final = 60.0
"""So long trouble is shown: what lasts is tried again within relay.backoff_max_seconds."""


def build_app(observer: MetricsObserver, *, stopping: Callable[[], bool]) -> Starlette:
    """The application that shows what *observer* has seen."""

    async def metrics(request: Request) -> Response:
        return _metrics(observer.metrics.registry, request.headers.get("accept", ""))

    async def livez(_request: Request) -> Response:
        reason = stall(observer.seconds_since_progress())
        if reason is None:
            return JSONResponse({"status": "ok"})
        return JSONResponse({"status": "stalled", "reason": reason}, status_code=503)

    async def readyz(request: Request) -> Response:
        ready = not stopping()
        body: dict[str, Any] = {"status": "ok" if ready else "stopping"}
        if request.query_params.get("verbose", "") not in ("", "0", "false"):
            body |= _details(observer)
        return JSONResponse(body, status_code=200 if ready else 503)

    return Starlette(
        # Starlette adds HEAD to GET; every other method is answered with 405.
        routes=[
            Route("/metrics", metrics, methods=["GET"]),
            Route("/livez", livez, methods=["GET"]),
            Route("/readyz", readyz, methods=["GET"]),
        ],
        exception_handlers={HTTPException: _refuse},
    )


def _metrics(registry: CollectorRegistry, accept: str) -> Response:
    encoder, content_type = choose_encoder(accept)
    # As a header, not as media_type: Starlette would add a second charset.
    return Response(encoder(registry), headers={"content-type": content_type})


def _details(observer: MetricsObserver) -> dict[str, Any]:
    ago = round(observer.seconds_since_trouble(), 3)
    return {
        "schema": observer.schema_problem or "ok",
        "active": observer.lanes_owned > 0,
        "lanes_owned": observer.lanes_owned,
        "paused_topics": sorted(observer.paused_topics),
        "waiting": observer.causes,
        "trouble": {"event": observer.trouble, "seconds_ago": ago} if ago < FRESH_SECONDS else None,
        "seconds_since_progress": round(observer.seconds_since_progress(), 3),
    }


async def _refuse(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    body: dict[str, Any] = {"error": error.detail.lower()}
    if error.status_code == 404:
        body["paths"] = ["/metrics", "/livez", "/readyz"]
    return JSONResponse(body, status_code=error.status_code, headers=error.headers)
