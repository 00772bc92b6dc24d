"""
What changes on a page by itself: server-sent events with parts of pages.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from typing import Final

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.types import Message, Send

from outbox_relay.admin.pages import overview_values
from outbox_relay.admin.web import PAGES, Visit, visit_of

EVERY_SECONDS: Final = 2.0
MOST_VIEWERS: Final = 20
STREAM_SECONDS: Final = 600.0
"""Then the browser asks again: a session that is over ends here too."""


SEND_SECONDS: Final = 30.0
"""A browser that takes nothing for so long is gone, and its place is somebody else's."""


class Stream(StreamingResponse):
    """Ends when nobody takes what it sends, and lets go of its place then."""

    async def stream_response(self, send: Send) -> None:
        """See StreamingResponse."""

        async def bounded(message: Message) -> None:
            async with asyncio.timeout(SEND_SECONDS):
                await send(message)

        async with aclosing(self.body_iterator):  # type: ignore[type-var]
            with suppress(TimeoutError):
                await super().stream_response(bounded)


class Live:
    """The streams of one dashboard."""

    def __init__(self) -> None:
        self._viewers = 0

    async def answer(self, request: Request) -> Response:
        """A stream of the parts that the page shows; 503 if too many look already."""
        visit = visit_of(request)
        if not visit.may_look:
            return PlainTextResponse("log in first\n", status_code=403)
        if self._viewers >= MOST_VIEWERS:
            return PlainTextResponse("too many look at once\n", status_code=503)
        return Stream(self._parts(visit), media_type="text/event-stream")

    async def _parts(self, visit: Visit) -> AsyncIterator[str]:
        wants_overview = visit.request.query_params.get("page") == "overview"
        before: dict[str, str] = {}
        self._viewers += 1
        until = asyncio.get_running_loop().time() + STREAM_SECONDS
        try:
            yield "retry: 3000\n\n"
            while asyncio.get_running_loop().time() < until:
                shown = await visit.desk.shown()
                parts = {"status": _part("part_status.html", shown=shown)}
                if wants_overview:
                    values = await overview_values(visit)
                    parts["overview"] = _part(
                        "part_overview.html", visit=visit, shown=shown, **values
                    )
                sent = [sse(name, text) for name, text in parts.items() if before.get(name) != text]
                before |= parts
                # A comment keeps what is between from closing a connection that says nothing.
                yield "".join(sent) or ": nothing new\n\n"
                await asyncio.sleep(EVERY_SECONDS)
        finally:
            self._viewers -= 1


def _part(template: str, **values: object) -> str:
    return PAGES.get_template(template).render(**values)


def sse(name: str, text: str) -> str:
    """
    An event of the stream.

    >>> sse("status", "a" + chr(10) + "b")
    'event: status\\ndata: a\\ndata: b\\n\\n'
    """
    lines = "".join(f"data: {line}\n" for line in text.splitlines())
    return f"event: {name}\n{lines}\n"
