"""What each request goes through: known host, headers, session; and what pages are made with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from outbox_relay._version import __version__
from outbox_relay.admin import texts
from outbox_relay.admin.desk import Desk
from outbox_relay.admin.login import COOKIE, Login, Session, is_known_host, is_same_origin
from outbox_relay.admin.options import AdminOptions

MOST_FORM_BYTES: Final = 64 * 1024
HERE: Final = Path(__file__).parent

HEADERS: Final = {
    # Nothing from elsewhere, no script of a page's own text, in nobody's frame.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class Guarded:
    """Refuses hosts that are not known, and adds `HEADERS` to each answer."""

    def __init__(self, app: ASGIApp, options: AdminOptions) -> None:
        self._app = app
        self._options = options

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        host = Request(scope).headers.get("host", "")
        if is_known_host(self._options, host):
            await self._app(scope, receive, guarded)
            return
        text = f"{host!r} is no name of this dashboard: see admin.hosts\n"
        await PlainTextResponse(text, status_code=421)(scope, receive, guarded)


@dataclass(slots=True)
class Visit:
    """One request: who asks, and how it is answered."""

    request: Request
    desk: Desk
    login: Login
    session: Session | None

    @property
    def may_look(self) -> bool:
        """Whether pages are shown at all."""
        return self.session is not None or not self.login.required

    @property
    def may_act(self) -> bool:
        """Whether something may be changed."""
        return self.session is not None

    async def page(self, template: str, *, status: int = 200, **values: Any) -> Response:
        """A page, with what all pages show."""
        notices: list[str] = []
        if self.session is not None:
            notices, self.session.notices = self.session.notices, []
        shown = await self.desk.shown() if self.may_look else None
        text = PAGES.get_template(template).render(
            visit=self,
            shown=shown,
            notices=notices,
            version=__version__,
            path=self.request.url.path,
            **values,
        )
        return HTMLResponse(text, status_code=status)

    async def form(self) -> Form:
        """What the browser sends with a form of this session. Raises HTTPException."""
        headers = self.request.headers
        host = headers.get("host", "")
        if not is_same_origin(host, headers.get("origin"), headers.get("sec-fetch-site")):
            raise HTTPException(403, "the form comes from another page")
        found = await read_form(self.request)
        if self.session is None:
            raise HTTPException(403, "log in first")
        if found.one("form_token") != self.session.form_token:
            raise HTTPException(403, "the form is of an earlier session: load the page again")
        return found

    def back_to(self, page: str, notice: str) -> Response:
        """Go to *page*, which tells *notice*: to load it again does nothing again."""
        assert self.session is not None
        self.session.notices.append(notice)
        return RedirectResponse(page, status_code=303)


class Form:
    """The fields of a form, in their order."""

    def __init__(self, fields: list[tuple[str, str]]) -> None:
        self._fields = fields

    def one(self, name: str) -> str:
        """The value of *name*, without spaces around it; nothing if it is not there."""
        return self.as_sent(name).strip()

    def as_sent(self, name: str) -> str:
        """The value of *name* with its spaces, which may be part of a topic's name."""
        return next((value for key, value in self._fields if key == name), "")

    def all(self, name: str) -> list[str]:
        """Each value of *name*."""
        return [value for key, value in self._fields if key == name]


async def read_form(request: Request) -> Form:
    """The fields that a form sends. Raises HTTPException if there are too many."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MOST_FORM_BYTES:
            raise HTTPException(413, f"a form has at most {MOST_FORM_BYTES} bytes")
    try:
        return Form(parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=False))
    except ValueError as error:
        raise HTTPException(400, "the form cannot be read") from error


def visit_of(request: Request) -> Visit:
    """Who asks."""
    state = request.app.state
    login: Login = state.login
    session = login.session(request.cookies.get(COOKIE)) if login.required else None
    return Visit(request, state.desk, login, session)


def address(path: str, query: Mapping[str, object]) -> str:
    """
    *path* with what is not empty of *query*.

    >>> address("/events", {"topic": "a b", "key": ""})
    '/events?topic=a+b'
    """
    given = {name: value for name, value in query.items() if value not in ("", None)}
    return f"{path}?{urlencode(given)}" if given else path


def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("rows", "duration", "rate", "moment", "state"):
        made.filters[name] = getattr(texts, name)
    made.globals["address"] = address
    return made


PAGES: Final = _environment()
