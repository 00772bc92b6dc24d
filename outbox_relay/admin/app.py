"""The dashboard as an application."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from outbox_relay.admin import actions, pages
from outbox_relay.admin.desk import Desk
from outbox_relay.admin.live import Live
from outbox_relay.admin.login import Login
from outbox_relay.admin.web import HERE, Guarded, visit_of

SHOWN: Final[Mapping[str, pages.Page]] = {
    "/": pages.overview,
    "/topics": pages.topics,
    "/events": pages.events,
    "/events/{which}": pages.one_event,
    "/dead-letters": pages.letters,
    "/doctor": pages.doctor,
}

DONE: Final[Mapping[str, actions.Action]] = {
    "/logout": actions.log_out,
    "/topics/pause": actions.pause_topic,
    "/topics/resume": actions.resume_topic,
    "/dead-letters/change": actions.change_letters,
}


def build_admin(desk: Desk) -> Starlette:
    """The pages over *desk*. Raises ConfigError if its token cannot be used."""
    login = Login(desk.options)
    login.check()
    app = Starlette(
        routes=[
            *(Route(path, pages.seen(page), methods=["GET"]) for path, page in SHOWN.items()),
            *(Route(path, actions.done(act), methods=["POST"]) for path, act in DONE.items()),
            Route("/login", actions.ask_to_log_in, methods=["GET"]),
            Route("/login", actions.log_in, methods=["POST"]),
            Route("/live", Live().answer, methods=["GET"]),
            Mount("/static", StaticFiles(directory=HERE / "static")),
        ],
        middleware=[Middleware(Guarded, options=desk.options)],
        exception_handlers={HTTPException: _refuse, Exception: _fail},
    )
    app.state.desk = desk
    app.state.login = login
    return app


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    answer = await visit_of(request).page(
        "trouble.html", status=error.status_code, trouble=error.detail
    )
    for name, value in (error.headers or {}).items():
        answer.headers[name] = value
    return answer


async def _fail(request: Request, error: Exception) -> Response:
    """A mistake of ours: logged, and told without what it holds."""
    visit = visit_of(request)
    visit.desk.logger.error("admin_failed", path=request.url.path, exc_info=error)
    text = f"{type(error).__name__}: the relay's log says more"
    return await visit.page("trouble.html", status=500, trouble=text)
